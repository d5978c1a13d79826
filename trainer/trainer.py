"""The trainer's loop: clicks in, learning steps, versions and checkpoints out, each when due.

It knows the order and the cadence; what a step, a version or a checkpoint is, others know.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from model.bundle import BundleError
from stream.click_feed import ClickFeed, Reading
from stream.messages import ClickEvent
from stream.monitor import Health
from trainer import checkpoint, state
from trainer.gate import Verdict
from trainer.learner import Step
from trainer.metrics import TrainerMetrics
from trainer.releases import Releases
from trainer.settings import TrainerSettings
from trainer.stream_learner import StreamLearner

log = structlog.get_logger(__name__)

CONDITIONS = ("reading",)

_POLL_MS = 200
_MAX_REFUSED_STEPS = 3
_MAX_RELOADS = 3


class LearningFailedError(RuntimeError):
    """Learning gives no usable numbers, also after going back to the last checkpoint."""


class Cadence:
    """Says when something is due again; monotonic seconds."""

    def __init__(self, seconds: float, now: float) -> None:
        self._seconds = seconds
        self._next = now + seconds

    def due(self, now: float) -> bool:
        """Whether the time has come."""
        return now >= self._next

    def restart(self, now: float) -> None:
        """Wait for the full time from now on."""
        self._next = now + self._seconds

    def hasten(self, now: float, *, at_most: float) -> None:
        """Wait no longer than `at_most` from now on."""
        self._next = min(self._next, now + at_most)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the loop reports to, and its clocks."""

    metrics: TrainerMetrics
    health: Health
    monotonic: Callable[[], float]
    wall_ms: Callable[[], int]


class Trainer:
    """One process, one reader of all partitions; construct it with a started feed."""

    def __init__(
        self,
        feed: ClickFeed,
        stream: StreamLearner,
        releases: Releases,
        settings: TrainerSettings,
        around: Surroundings,
    ) -> None:
        self._feed = feed
        self._stream = stream
        self._releases = releases
        self._settings = settings
        self._metrics = around.metrics
        self._health = around.health
        self._monotonic = around.monotonic
        self._wall_ms = around.wall_ms
        self._clicks_since_publish = 0
        self._learnt_through = dict(feed.next_offsets)
        self._click_time_ms = stream.learner.items.counted_ms
        self._refused_in_row = 0
        self._reloads = 0
        self._shown = releases.announced
        now = around.monotonic()
        self._batch = Cadence(settings.dataset.batch_seconds, now)
        self._delta = Cadence(settings.delta_seconds, now)
        self._publish = Cadence(settings.publish_seconds, now)
        self._checkpoint = Cadence(settings.checkpoint_seconds, now)
        self._trial = Cadence(settings.gate.canary_seconds, now)

    def resume(self, position: state.Position) -> None:
        """Take over what a checkpoint counted, and scores that still compare with what serves.

        Where deltas cannot go on a bundle comes soon.
        """
        self._clicks_since_publish = position.clicks_since_publish
        releases = self._releases
        releases.rejoin(self._stream, position)
        if releases.serving is not None and releases.deltas.standing is None:
            self._publish.hasten(self._monotonic(), at_most=self._settings.delta_seconds)

    def run(self, stopping: Callable[[], bool]) -> None:
        """Poll, learn, publish and save until `stopping`, then save once more.

        Nothing is saved between a dropped batch and the next learnt one: going back must not lead
        to the weights that failed.
        """
        self._health.set("reading", True)
        while not stopping():
            self.turn()
        self._health.set("reading", False)
        if not self._refused_in_row:
            self._save()
        self._feed.close()

    def turn(self) -> None:
        """Go round once: 1 poll, 2 learn, 3 publish a bundle or a delta, 4 save.

        The last three only when due.
        """
        for reading in self._feed.poll(timeout_ms=_POLL_MS):
            self._take(reading)
        self._health.beat()
        now = self._monotonic()
        self._metrics.last_poll_timestamp.set(self._wall_ms() / 1000)
        # A delta is to have what was clicked until it is made.
        if self._stream.full or self._batch.due(now) or self._delta.due(now):
            self._learn()
            self._batch.restart(now)
        if self._releases.trying and self._trial.due(now):
            self._show_verdict(self._releases.end_trial(self._stream))
        elif self._should_publish(now):
            self._release()
            self._publish.restart(self._monotonic())
        elif self._delta.due(now) and not self._refused_in_row:
            self._release_delta()
            self._delta.restart(self._monotonic())
        if self._checkpoint.due(now) and not self._refused_in_row:
            self._save()
            self._checkpoint.restart(self._monotonic())

    def _take(self, reading: Reading) -> None:
        self._metrics.clicks.inc()
        reason: str | None = reading.reason
        self._click_time_ms = max(self._click_time_ms, reading.time_ms)
        if (click := reading.click) is not None:
            reason = self._add(click, reading.time_ms)
        if reason:
            self._metrics.clicks_skipped.labels(reason).inc()

    def _add(self, click: ClickEvent, time_ms: int) -> str | None:
        """Return why a click does not train; without consent nothing of it may be kept."""
        if not click.consent:
            return "no_consent"
        return self._stream.add(click.user_id, click.session_id, click.item_id, time_ms)

    def _learn(self) -> None:
        with self._metrics.step_seconds.time():
            step = self._stream.step(self._click_time_ms)
        self._learnt_through = dict(self._feed.next_offsets)
        if step is None:
            return
        self._show(step)
        if step.drifted:
            self._metrics.drifts.inc()
            log.warning("the stream drifts: a bundle comes soon")
            self._publish.hasten(self._monotonic(), at_most=self._settings.delta_seconds)
        if step.refused is None:
            self._refused_in_row = 0
            self._clicks_since_publish += step.num_targets
            return
        self._metrics.batches_skipped.labels(step.refused).inc()
        self._refused_in_row += 1
        log.warning("batch dropped", reason=step.refused, in_row=self._refused_in_row)
        if self._refused_in_row >= _MAX_REFUSED_STEPS:
            self._go_back()

    def _should_publish(self, now: float) -> bool:
        """Whether the time or the clicks are there; an undecided candidate waits for the time.

        While one version is tried there is no other.
        """
        if self._releases.trying:
            return False
        if self._releases.serving is None:
            # What `nextclick train` learnt counts: its checkpoint is served at once.
            return self._stream.learner.progress.clicks >= self._settings.first_publish_clicks
        if (
            self._clicks_since_publish >= self._settings.publish_clicks
            and not self._releases.extensions
        ):
            return True
        return self._clicks_since_publish > 0 and self._publish.due(now)

    def _release(self) -> None:
        verdict = self._releases.release(
            self._stream, trained_through=self._learnt_through, now_ms=self._wall_ms()
        )
        if verdict.verdict != "undecided":
            self._clicks_since_publish = 0
        self._trial.restart(self._monotonic())
        self._show_verdict(verdict)

    def _show_verdict(self, verdict: Verdict) -> None:
        """Count it, and show what serves by now."""
        self._metrics.gate_verdicts.labels(verdict.verdict, verdict.reason).inc()
        if verdict.accepted and not self._releases.trying:
            self._metrics.models_published.labels("bundle").inc()
            self._delta.restart(self._monotonic())
        latest = self._releases.announced
        if latest is not None and latest is not self._shown:
            self._metrics.show_model(latest)
            self._shown = latest

    def _release_delta(self) -> None:
        try:
            sent = self._releases.deltas.release(
                self._stream, trained_through=self._learnt_through, now_ms=self._wall_ms()
            )
        except BundleError as error:
            self._metrics.deltas_refused.labels(error.reason).inc()
            log.error("delta refused", reason=error.reason, detail=error.detail)
            return
        if sent is not None:
            self._metrics.models_published.labels("delta").inc()
            self._metrics.delta_rows.set(sent.metrics["changed_rows"] + sent.metrics["new_items"])
            self._metrics.show_model(sent)

    def _save(self) -> None:
        """Write a checkpoint, then show its offsets to the group: never the other way round."""
        position = state.Position(
            offsets=dict(self._feed.next_offsets),
            clicks_since_publish=self._clicks_since_publish,
            extensions=self._releases.extensions,
            serving=self._releases.serving,
            deltas=self._releases.deltas.standing,
        )
        checkpoint.write(self._directory, state.capture(self._stream, position))
        self._metrics.checkpoint_timestamp.set(self._wall_ms() / 1000)
        self._feed.commit()
        self._reloads = 0

    def _go_back(self) -> None:
        """Return to the last checkpoint and read the clicks since then again."""
        content = checkpoint.read_latest(self._directory)
        self._reloads += 1
        if content is None or self._reloads > _MAX_RELOADS:
            raise LearningFailedError(
                f"{_MAX_REFUSED_STEPS} batches in a row were dropped and going back did not help"
            )
        log.error("going back to the last checkpoint", reloads=self._reloads)
        self._stream, position = state.restore(content, self._settings)
        # Other random numbers than last time, or the same steps would fail the same way.
        self._stream.learner.rng.random(self._reloads)
        self.resume(position)
        self._refused_in_row = 0
        self._feed.start(position.offsets, start_from=self._settings.start_from)
        self._checkpoint.restart(self._monotonic())

    def _show(self, step: Step) -> None:
        self._metrics.loss.set(step.loss)
        compared = self._stream.comparison
        for name, value in (
            ("recall_at_20", compared.candidate.recall),
            ("mrr_at_20", compared.candidate.mrr),
            ("serving_recall_at_20", compared.serving.recall),
            ("serving_mrr_at_20", compared.serving.mrr),
        ):
            self._metrics.prequential_ratio.labels(name).set(value)
        for partition, lag in self._feed.lag().items():
            self._metrics.lag_records.labels(self._feed.topic, str(partition)).set(lag)

    @property
    def _directory(self) -> Path:
        return self._settings.checkpoint_dir
