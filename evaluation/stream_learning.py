"""The trainer itself over recorded clicks, with stream time as its clock; knows no figure.

Shapes: F clicks of the test period.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Final, Literal, cast

import numpy as np
from prometheus_client import CollectorRegistry

from evaluation.recorded import Int64, Recorded
from evaluation.workshop import Reign, Workshop
from stream.click_feed import ClickFeed, Reading
from stream.messages import ClickEvent, ModelAnnouncement
from stream.monitor import Health
from trainer.metrics import TrainerMetrics
from trainer.releases import Releases
from trainer.start import begin, comparable
from trainer.trainer import CONDITIONS, Surroundings, Trainer
from worker.version import ServingVersion

_PARTITION: Final = 0
_QUIET_MS: Final = 6 * 3_600_000  # so long after the last click nothing of the trainer is due


class RecordedFeed:
    """The interface of `ClickFeed` over a log; a click is read once it was offered."""

    topic = "recorded"
    lost = 0

    def __init__(self, recorded: Recorded, *, max_poll: int) -> None:
        self._recorded = recorded
        self._max_poll = max_poll
        self._first = self._offered = recorded.first_test
        self.next_offsets = {_PARTITION: self._first}

    @property
    def waiting(self) -> int:
        """Clicks that were offered and not yet read."""
        return self._offered - self.next_offsets[_PARTITION]

    def offer(self, stop: int) -> None:
        """Let the clicks before position `stop` be read."""
        self._offered = stop

    def start(
        self, offsets: Mapping[int, int], *, start_from: Literal["earliest", "latest"]
    ) -> None:
        """Read on from an offset, else from the split: a trainer that goes back reads again."""
        self.next_offsets[_PARTITION] = offsets.get(_PARTITION, self._first)

    def poll(self, *, timeout_ms: int) -> Iterator[Reading]:
        """Yield some clicks that wait."""
        start = self.next_offsets[_PARTITION]
        for position in range(start, min(start + self._max_poll, self._offered)):
            yield self._reading(position)
            self.next_offsets[_PARTITION] = position + 1

    def commit(self) -> None:
        """Show nobody where the trainer stands."""

    def lag(self) -> dict[int, int]:
        """Return the clicks that wait."""
        return {_PARTITION: self.waiting}

    def close(self) -> None:
        """Release nothing."""

    def _reading(self, position: int) -> Reading:
        recorded = self._recorded
        time_ms = int(recorded.time_F[position])
        click = ClickEvent(
            user_id=str(recorded.session_F[position]),
            item_id=recorded.item_ids[recorded.item_F[position]],
            timestamp=time_ms,
        )
        return Reading(click, time_ms, "")


class StreamLearning:
    """Runs the trainer's loop over the test period and yields the versions it announces.

    The trainer's clocks show stream time, so its own settings say when it learns and publishes;
    storing and loading take no stream time. A click is learnt once it is `delay_ms` old.
    """

    def __init__(
        self,
        recorded: Recorded,
        workshop: Workshop,
        first: ServingVersion,
        *,
        delay_ms: int,
        cpu_seconds: Callable[[], float],
    ) -> None:
        settings = workshop.settings
        self._recorded = recorded
        self._workshop = workshop
        self._first = first
        self._cpu_seconds = cpu_seconds
        step_seconds = min(settings.dataset.batch_seconds, settings.delta_seconds)
        self._step_ms = max(1, round(step_seconds * 1_000))
        self._known_F: Int64 = recorded.time_F[recorded.first_test :] + delay_ms
        self._now_ms = recorded.split_ms
        self._announced: list[ModelAnnouncement] = []
        self._metrics = TrainerMetrics(CollectorRegistry())
        self._feed = RecordedFeed(recorded, max_poll=settings.poll_records)
        self._trainer = self._construct()
        self.spent_seconds = 0.0

    @property
    def num_learnt(self) -> int:
        """Clicks that the trainer has read."""
        return self._feed.next_offsets[_PARTITION] - self._recorded.first_test

    @property
    def verdicts(self) -> dict[str, int]:
        """How often the gate said what."""
        found: dict[str, int] = {}
        for family in self._metrics.gate_verdicts.collect():
            for sample in family.samples:
                if sample.name.endswith("_total"):
                    verdict = sample.labels["verdict"]
                    found[verdict] = found.get(verdict, 0) + int(sample.value)
        return found

    def reigns(self) -> Iterator[Reign]:
        """Yield each version with the clicks it answers; learning goes on in between.

        A version made at time t has learnt only clicks before t, and answers those from t on.
        """
        start, version = self._recorded.first_test, self._first
        for now_ms in ticks(self._known_F, self._now_ms, self._step_ms, self._end_ms):
            self._learn_until(now_ms)
            for message in self._announced:
                stop = self._recorded.first_from(now_ms)
                if start < stop:
                    yield Reign(start, stop, version)
                start, version = stop, self._workshop.load(message)
            self._announced.clear()
        yield Reign(start, len(self._recorded), version)

    @property
    def _end_ms(self) -> int:
        return int(self._recorded.time_F[-1])

    def _learn_until(self, now_ms: int) -> None:
        """Let the trainer go round at `now_ms` with the clicks that are known by then."""
        started = self._cpu_seconds()
        self._now_ms = now_ms
        known = int(np.searchsorted(self._known_F, now_ms, side="left"))
        self._feed.offer(self._recorded.first_test + known)
        self._trainer.turn()
        while self._feed.waiting:
            self._trainer.turn()
        self.spent_seconds += self._cpu_seconds() - started

    def _construct(self) -> Trainer:
        """Wire a trainer as `nextclick trainer` does, going on from the first version."""
        settings = self._workshop.settings
        stream, position = begin(settings, None)
        releases = Releases(self._workshop.store, self._announced.append, settings)
        bundle = self._first.bundle
        releases.serve(stream, bundle.manifest.version, comparable(stream, bundle))
        around = Surroundings(
            self._metrics, Health(CONDITIONS), self._stream_seconds, lambda: self._now_ms
        )
        # The trainer asks no more of a feed than what RecordedFeed has.
        trainer = Trainer(cast(ClickFeed, self._feed), stream, releases, settings, around)
        trainer.resume(position)
        return trainer

    def _stream_seconds(self) -> float:
        return (self._now_ms - self._recorded.split_ms) / 1_000


def ticks(known_F: Int64, start_ms: int, step_ms: int, end_ms: int) -> Iterator[int]:
    """Yield start + n · step up to the end, without those long after the last known click."""
    now_ms = start_ms + step_ms
    while now_ms <= end_ms:
        yield now_ms
        place = int(np.searchsorted(known_F, now_ms, side="left"))
        last_ms = int(known_F[place - 1]) if place else start_ms
        now_ms += step_ms
        if now_ms - last_ms > _QUIET_MS and place < len(known_F):
            steps = math.floor((int(known_F[place]) - start_ms) / step_ms) + 1
            now_ms = max(now_ms, start_ms + steps * step_ms)
