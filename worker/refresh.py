"""New model versions, off the hot thread: follow announcements, verify, load, index, warm up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import structlog
import torch

from index.candidates import RING
from index.item_index import IndexPlan, ItemIndex
from model.bundle import Bundle, BundleError, load
from model.golden import check_golden
from model.store import Store
from stream.announcements import stored_version
from stream.decoding import DecodeError
from stream.kafka_types import KafkaConsumer, KafkaError, TopicPartition
from stream.messages import ModelAnnouncement, decode_announcement
from worker.metrics import WorkerMetrics
from worker.sessions import EMPTY
from worker.version import ServingVersion, serving_version

log = structlog.get_logger(__name__)
_MIN_OVERLAP = 0.8
_RETRY_SECONDS = 10.0
_WARM_UP_QUERIES = 32
_NUMBERS_KEPT = 100  # a version that was restored after so many others is a new one to sessions


class VersionFollower:
    """Follow the models topic in a thread and hand over the newest version that can serve.

    A version that is broken or older is refused: counted with its reason, and the old one goes on.
    The newest one is tried again while its files cannot be read: a store may be away for a while.
    The topic is read without a group from its beginning, so a fresh worker finds what serves.
    """

    def __init__(
        self,
        make_reader: Callable[[], KafkaConsumer],
        load: Callable[[ModelAnnouncement], ServingVersion],
        metrics: WorkerMetrics,
        *,
        topic: str,
        model: str,
    ) -> None:
        self._make_reader = make_reader
        self._load = load
        self._metrics = metrics
        self._partition = TopicPartition(topic, 0)
        self._key = f"{model}/bundle".encode()
        self._newest: ServingVersion | None = None
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
        finally:
            reader.close()

    def _consider(self, value: bytes) -> bool:
        """Load an announced version unless it is refused; tells whether it serves now."""
        try:
            announcement = decode_announcement(value)
            if self._is_known(announcement):
                return True
            version = self._load(announcement)
            self._compare(version, announcement)
        except (DecodeError, BundleError) as error:
            self._metrics.model_loads.labels("refused", error.reason).inc()
            log.error("version refused", reason=error.reason, detail=str(error))
            if isinstance(error, BundleError) and error.reason == "missing" and not self._unread:
                self._unread, self._retry_at = value, time.monotonic() + _RETRY_SECONDS
            return False
        self._metrics.model_loads.labels("loaded", "").inc()
        with self._changed:
            self._newest = self._waiting = version
            self._changed.notify_all()
        return True

    def _is_known(self, announcement: ModelAnnouncement) -> bool:
        """Tell whether these files are loaded already; they may be announced once more.

        What is announced decides the order, not the files: a restored version is an older one.
        """
        if self._newest is None or self._newest.announcement is None:
            return False
        newest = self._newest.announcement
        if announcement.version < newest.version:
            raise BundleError("older", f"{announcement.version} < {newest.version}")
        if announcement.manifest_sha256 != newest.manifest_sha256:
            return False
        self._newest = replace(self._newest, announcement=announcement)
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


class VersionLoader:
    """Turn an announcement into a version that can serve; raises BundleError for its refusal.

    Everything that is dear happens here, on the follower's thread: reading and checking the files,
    the index, a first call of each step of the hot path.
    """

    def __init__(self, store_url: str, *, max_bytes: int, num_popular: int) -> None:
        self._store_url = store_url
        self._store = Store(store_url)
        self._max_bytes = max_bytes
        self._num_popular = num_popular
        self._numbers: dict[str, int] = {}

    def __call__(self, announcement: ModelAnnouncement) -> ServingVersion:
        """Load the announced version."""
        self._require_own_store(announcement)
        bundle = _bundle(announcement, self._max_bytes)
        check_golden(bundle)
        facts = bundle.manifest.index
        plan = IndexPlan(
            bundle.centroids_CD, bundle.list_numbers_N, nprobe=facts.nprobe, recall=facts.recall
        )
        index = ItemIndex.build(bundle.vectors_ND, plan)
        number = self._number(bundle.manifest.version)
        version = serving_version(bundle, index, number, self._num_popular)
        _warm_up(version)
        return replace(version, announcement=announcement)

    def _number(self, name: str) -> int:
        """Return the number of a version: the same again when it is restored.

        Sessions that no other version touched meanwhile go on with their states.
        """
        if name not in self._numbers:
            self._numbers[name] = max(self._numbers.values(), default=0) + 1
            if len(self._numbers) > _NUMBERS_KEPT:
                self._numbers.pop(next(iter(self._numbers)))
        return self._numbers[name]

    def _require_own_store(self, announcement: ModelAnnouncement) -> None:
        """Open no address only because somebody could write it to the models topic."""
        try:
            expected = self._store.uri(announcement.name, stored_version(announcement))
        except ValueError as error:
            raise BundleError("store", str(error)) from error
        if announcement.uri != expected:
            raise BundleError(
                "store",
                f"{announcement.uri} is not this version in store.url = {self._store_url}: "
                "give worker and trainer the same store",
            )


def _bundle(announcement: ModelAnnouncement, max_bytes: int) -> Bundle:
    bundle = load(announcement.uri, announcement.manifest_sha256, max_bytes=max_bytes)
    named = (bundle.manifest.name, bundle.manifest.version)
    if named != (announcement.name, stored_version(announcement)):
        raise BundleError("manifest", f"{named} was announced as another version")
    return bundle


def _warm_up(version: ServingVersion) -> None:
    vectors_BD = version.bundle.vectors_ND[:_WARM_UP_QUERIES]
    encoder = version.bundle.encoder
    with torch.inference_mode():
        items_BD = torch.from_numpy(np.ascontiguousarray(vectors_BD))
        hidden_BH = encoder.step(encoder.init_state(len(vectors_BD)), items_BD)
        query_BD = encoder.query(hidden_BH, items_BD)
    near = version.index.search(query_BD.numpy(), 1)
    if (near[1] < 0).any():
        raise BundleError("index", "a query near an item finds no item")
    if version.fusion is not None:  # a machine's first call compiles for some seconds
        rings_BR = np.full((len(vectors_BD), RING), EMPTY)
        rings_BR[:, 0] = np.arange(len(vectors_BD))
        version.fusion.order(rings_BR, query_BD.numpy(), near, session_items=True)
