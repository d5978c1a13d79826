"""New model versions, off the hot thread: follows announcements and says which one is loaded."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from model.bundle import BundleError
from stream.announcements import is_tried, key_of
from stream.decoding import DecodeError
from stream.kafka_types import KafkaConsumer, KafkaError, TopicPartition
from stream.messages import ModelAnnouncement, decode_announcement
from worker.metrics import WorkerMetrics
from worker.version import ServingVersion

log = structlog.get_logger(__name__)
_MIN_OVERLAP = 0.8
_RETRY_SECONDS = 10.0


class VersionFollower:
    """Follow the models topic in a thread and hand over the newest version that can serve.

    A version that is broken or older is refused: counted with its reason, and the old one goes on.
    The newest one is tried again while its files cannot be read: a store may be away for a while.
    The topic is read without a group from its beginning, so a fresh worker finds what serves.
    A delta is loaded if it is of the newest bundle: one of an earlier bundle is passed over, one of
    a later bundle waits for it. `load` is given the delta's bundle beside its announcement.
    A bundle that is to be tried is loaded beside, until it is withdrawn or a bundle as late serves.
    """

    def __init__(
        self,
        make_reader: Callable[[], KafkaConsumer],
        load: Callable[[ModelAnnouncement, ServingVersion | None], ServingVersion],
        metrics: WorkerMetrics,
        *,
        topic: str,
        model: str,
    ) -> None:
        self._make_reader = make_reader
        self._load = load
        self._metrics = metrics
        self._partition = TopicPartition(topic, 0)
        self._key, self._delta_key = key_of(model), key_of(model, "delta")
        self._canary_key = key_of(model, "canary")
        self._newest: ServingVersion | None = None  # bundle
        self._newest_delta = ""
        self._early: bytes | None = None  # a delta that came before its bundle
        self._trial_value: bytes | None = None  # announced, and not looked at yet
        self._on_trial: ServingVersion | None = None
        self._waiting: ServingVersion | None = None
        self._unread: bytes | None = None
        self._retry_at = 0.0
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="versions", daemon=True)

    def start(self) -> None:
        """Start following."""
        self._thread.start()

    def take(self, wait_seconds: float = 0.0) -> ServingVersion | None:
        """Return a version that is ready and was not taken yet, waiting at most `wait_seconds`.

        Raises what ended the thread, if something did: without it no version ever came again.
        """
        with self._changed:
            if self._waiting is None and self._failure is None and wait_seconds:
                self._changed.wait(wait_seconds)
            if self._failure is not None:
                raise self._failure
            version, self._waiting = self._waiting, None
            return version

    @property
    def on_trial(self) -> ServingVersion | None:
        """The version whose lists a share of the users is to get, None without a trial."""
        return self._on_trial

    def close(self) -> None:
        """Stop following; a load in progress is not waited for longer than 5 s."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _follow(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._read()
                except (KafkaError, ConnectionError) as error:
                    log.warning("models topic not readable", error=repr(error))
                    self._stop.wait(1.0)
        except BaseException as error:
            with self._changed:
                self._failure = error
                self._changed.notify_all()
            raise

    def _read(self) -> None:
        reader = self._make_reader()
        try:
            reader.assign([self._partition])
            reader.seek_to_beginning(self._partition)
            while not self._stop.is_set():
                messages = reader.poll(timeout_ms=250).get(self._partition, [])
                ours = [m.value for m in messages if m.key == self._key and m.value is not None]
                if not ours and self._unread is not None and time.monotonic() >= self._retry_at:
                    ours = [self._unread]
                if ours:
                    self._unread = None
                # Earlier ones are already replaced: a fresh worker loads one bundle, not all,
                # but rather an earlier one than none.
                any(self._consider(value) for value in reversed(ours))
                deltas = [m.value for m in messages if m.key == self._delta_key]
                self._follow_deltas([value for value in deltas if value is not None])
                trials = [m.value for m in messages if m.key == self._canary_key]
                self._follow_trial(trials[-1] if trials else self._trial_value)
        finally:
            reader.close()

    def _consider(self, value: bytes) -> bool:
        """Load an announced version unless it is refused; tells whether it serves now."""
        try:
            announcement = decode_announcement(value)
            if self._renewed(announcement):
                return True
            version = self._load(announcement, None)
            self._compare(version, announcement)
        except (DecodeError, BundleError) as error:
            self._count_refused(error)
            if isinstance(error, BundleError) and error.reason == "missing" and not self._unread:
                self._unread, self._retry_at = value, time.monotonic() + _RETRY_SECONDS
            return False
        self._serve(version)
        return True

    def _serve(self, version: ServingVersion) -> None:
        self._newest, self._newest_delta = version, ""
        self._end_old_trial()
        self._hand_over(version)

    def _follow_trial(self, value: bytes | None) -> None:
        """Load the version that is to be tried, or end the trial; it waits for a bundle."""
        self._trial_value = value
        if value is None or self._newest is None:
            return
        self._trial_value = None
        try:
            announcement = decode_announcement(value)
            if not is_tried(announcement, _announced(self._newest)):
                self._on_trial = None
            elif self._on_trial is None or self._on_trial.name != announcement.version:
                self._on_trial = self._load(announcement, None)
                self._metrics.model_loads.labels("loaded", "").inc()
        except (DecodeError, BundleError) as error:
            self._count_refused(error)

    def _end_old_trial(self) -> None:
        """End a trial of what serves now, or of what came before it."""
        trial, newest = self._on_trial, self._newest
        if trial and newest and _announced(trial) <= _announced(newest):
            self._on_trial = None

    def _follow_deltas(self, values: list[bytes]) -> None:
        """Load the newest delta that can be loaded; it holds what all before it held."""
        if self._early is not None:
            values = [self._early, *values]
            self._early = None
        any(self._consider_delta(value) for value in reversed(values))

    def _consider_delta(self, value: bytes) -> bool:
        """Load an announced delta of the newest bundle; tells whether none before it is needed."""
        try:
            announcement = decode_announcement(value)
            parent, bundle = announcement.parent or "", self._newest
            if bundle is None or parent > _announced(bundle):
                self._early = value
                return True
            if parent != bundle.name or announcement.version <= self._newest_delta:
                return True
            version = self._load(announcement, bundle)
        except (DecodeError, BundleError) as error:
            # One that cannot be read is not tried again: the next one holds all of it.
            self._count_refused(error)
            return False
        self._newest_delta = version.name
        self._hand_over(version)
        return True

    def _hand_over(self, version: ServingVersion) -> None:
        self._metrics.model_loads.labels("loaded", "").inc()
        with self._changed:
            self._waiting = version
            self._changed.notify_all()

    def _count_refused(self, error: DecodeError | BundleError) -> None:
        self._metrics.model_loads.labels("refused", error.reason).inc()
        log.error("version refused", reason=error.reason, detail=str(error))

    def _renewed(self, announcement: ModelAnnouncement) -> bool:
        """Tell whether these files are loaded already, and note under which name they are now.

        What is announced decides the order, not the files: a restored version is an older one.
        """
        if self._newest is None or self._newest.announcement is None:
            return False
        newest = self._newest.announcement
        if announcement.version < newest.version:
            raise BundleError("older", f"{announcement.version} < {newest.version}")
        trial = self._on_trial
        if trial and trial.announcement and _same_files(trial.announcement, announcement):
            self._serve(replace(trial, announcement=announcement))
            return True
        if not _same_files(newest, announcement):
            return False
        self._newest = replace(self._newest, announcement=announcement)
        self._end_old_trial()
        return True

    def _compare(self, version: ServingVersion, announcement: ModelAnnouncement) -> None:
        """Refuse a version whose catalogue is another shop's."""
        if self._newest is None:
            return
        old, new = self._newest.bundle.catalogue, version.bundle.catalogue
        if announcement.restores is not None:
            old, new = new, old  # it may know fewer items, but no others
        overlap = float((new.rows(old.ids) >= 0).mean())
        if overlap < _MIN_OVERLAP:
            raise BundleError("overlap", f"only {overlap:.0%} of the serving catalogue is in it")


def _same_files(one: ModelAnnouncement, other: ModelAnnouncement) -> bool:
    return one.manifest_sha256 == other.manifest_sha256


def _announced(bundle: ServingVersion) -> str:
    """Return the name under which a bundle was announced last, which decides the order."""
    return bundle.name if bundle.announcement is None else bundle.announcement.version
