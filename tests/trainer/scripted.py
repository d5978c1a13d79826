"""A click feed for the trainer's tests, and a trainer over it."""

from prometheus_client import CollectorRegistry

from model.store import Store
from stream.click_feed import Reading
from stream.messages import ClickEvent
from stream.monitor import Health
from trainer.metrics import TrainerMetrics
from trainer.releases import Releases
from trainer.settings import TrainerSettings
from trainer.start import begin
from trainer.trainer import CONDITIONS, Surroundings, Trainer


class ScriptedFeed:
    """The feed's interface over a list of readings, a hundred at each poll."""

    topic = "clicks"

    def __init__(self, readings) -> None:
        self.readings = readings
        self.next_offsets = {0: 0}
        self.commits: list[dict[int, int]] = []
        self.closed = False
        self.lost = 0

    def start(self, offsets, *, start_from) -> None:
        self.next_offsets = {0: offsets.get(0, 0)}

    def poll(self, *, timeout_ms):
        for reading in self.readings[self.next_offsets[0] :][:100]:
            yield reading
            self.next_offsets[0] += 1

    def commit(self) -> None:
        self.commits.append(dict(self.next_offsets))

    def lag(self):
        return {0: len(self.readings) - self.next_offsets[0]}

    def close(self) -> None:
        self.closed = True

    @property
    def empty(self) -> bool:
        return self.next_offsets[0] == len(self.readings)


class Bench:
    """A trainer over scripted clicks, with a clock that moves when the test says so."""

    def __init__(self, clicks, tmp_path, *, serving=None, **overrides) -> None:
        readings = [
            Reading(ClickEvent(user_id=user, item_id=item, timestamp=time), time, "")
            for user, _, item, time in clicks
        ]
        self.settings = TrainerSettings.model_validate(
            {
                "checkpoint_dir": tmp_path / "checkpoints",
                "first_publish_clicks": 300,
                "learning": {"dim": 16},
                "dataset": {"batch_targets": 200, "user_clicks_per_hour": 1000},
                "gate": {"min_clicks": 50},
                **overrides,
            }
        )
        self.feed = ScriptedFeed(readings)
        self.sent = []
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.health = Health(CONDITIONS)
        self.metrics = TrainerMetrics(self.registry)
        self.releases = Releases(Store(str(tmp_path / "models")), self.sent.append, self.settings)
        stream, position = begin(self.settings, None)
        around = Surroundings(
            self.metrics, self.health, lambda: self.now, lambda: int(1.7e12 + self.now * 1000)
        )
        self.stream = stream
        self.releases.serve(stream, serving, None)
        self.trainer = Trainer(self.feed, stream, self.releases, self.settings, around)
        self.trainer.resume(position)
        self.feed.start(position.offsets, start_from="earliest")

    def run(self) -> None:
        self.trainer.run(lambda: self.feed.empty)

    def value(self, metric: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"nextclick_{metric}", labels)
