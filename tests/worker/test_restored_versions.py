"""A version that is announced as restored: loaded from its own files, ordered by its new name."""

import pytest
from prometheus_client import CollectorRegistry

from model.bundle import BundleError
from stream.announcements import restoring
from stream.kafka_types import TopicPartition
from stream.messages import Gate, ModelAnnouncement, encode
from worker.loader import VersionLoader
from worker.metrics import WorkerMetrics
from worker.refresh import VersionFollower

MODELS = TopicPartition("models", 0)
BACK = Gate(verdict="rolled_back", reason="worse")


def version_name(n):
    return f"20261123T{n:09d}Z-{n:08x}"


class Reader:
    """A consumer of the models topic that gets each value of a list in a poll of its own."""

    def __init__(self, values):
        self._values = values

    def assign(self, partitions):
        pass

    def seek_to_beginning(self, *partitions):
        pass

    def poll(self, timeout_ms):
        if not self._values:
            return {}
        return {MODELS: [Record(self._values.pop(0))]}

    def close(self):
        pass


class Record:
    key = b"default/bundle"

    def __init__(self, value):
        self.value = value


@pytest.fixture
def announced(publish_bundle):
    def make(n, **bundle):
        published = publish_bundle(version=version_name(n), seed=n, **bundle)
        return ModelAnnouncement(
            name="default", version=version_name(n), kind="bundle", uri=published.uri,
            manifest_sha256=published.manifest_sha256, bytes=1, created_at=1, encoder_version="e",
            trained_through={}, metrics={}, gate=Gate(verdict="accepted"),
        )  # fmt: skip

    return make


@pytest.fixture
def loader(tmp_path):
    return VersionLoader(str(tmp_path / "models"), max_bytes=2**30, num_popular=41)


class Followed:
    """A follower whose topic grows when the test says so."""

    def __init__(self, loader):
        self.values = []
        self.registry = CollectorRegistry()
        self.follower = VersionFollower(
            lambda: Reader(self.values),
            loader,
            WorkerMetrics(self.registry),
            topic="models",
            model="default",
        )
        self.follower.start()

    def announce(self, announcement):
        self.values.append(encode(announcement))

    def next(self):
        return self.follower.take(wait_seconds=10)

    def count(self, outcome, reason=""):
        labels = {"outcome": outcome, "reason": reason}
        return self.registry.get_sample_value("nextclick_model_loads_total", labels) or 0


@pytest.fixture
def followed(loader):
    made = Followed(loader)
    yield made
    made.follower.close()


def test_a_restored_version_serves_again_under_its_own_name(followed, announced):
    first, second = announced(1), announced(2)
    followed.announce(first)
    before = followed.next()
    followed.announce(second)
    followed.next()

    followed.announce(restoring(first, version_name(3), BACK))
    again = followed.next()

    assert again.name == version_name(1)
    assert again.announcement.version == version_name(3)
    assert again.number == before.number, "sessions that nobody touched go on with their states"


def test_it_is_loaded_once_however_often_it_is_announced(followed, announced, wait_until):
    first, second = announced(1), announced(2)
    for message in (first, second):
        followed.announce(message)
        followed.next()
    followed.announce(restoring(first, version_name(3), BACK))
    followed.next()

    followed.announce(restoring(first, version_name(4), BACK))
    followed.announce(second)

    wait_until(lambda: followed.count("refused", "older") == 1, 10, "the bad one stays away")
    assert followed.follower.take() is None
    assert followed.count("loaded") == 3


def test_the_trainer_goes_on_after_a_rollback(followed, announced):
    first, second, fourth = announced(1), announced(2), announced(4)
    for message in (first, second, restoring(first, version_name(3), BACK)):
        followed.announce(message)
        followed.next()

    followed.announce(fourth)

    assert followed.next().name == version_name(4)


def test_an_older_version_may_know_fewer_items_but_no_others(followed, announced, wait_until):
    small, other = tuple(f"i{n}" for n in range(50)), tuple(f"x{n}" for n in range(200))
    first, strange, second = announced(1, ids=small), announced(2, ids=other), announced(3)
    followed.announce(second)
    followed.next()

    followed.announce(restoring(strange, version_name(4), BACK))
    wait_until(lambda: followed.count("refused", "overlap") == 1, 10, "refused")
    followed.announce(restoring(first, version_name(5), BACK))

    assert followed.next().name == version_name(1)


def test_a_restored_version_must_be_the_one_it_names(loader, announced):
    first, second = announced(1), announced(2)
    restored = restoring(first, version_name(3), BACK)
    swapped = {"uri": second.uri, "manifest_sha256": second.manifest_sha256}

    with pytest.raises(BundleError, match="store"):
        loader(ModelAnnouncement(**fields_of(restored) | swapped))


def fields_of(announcement):
    return {name: getattr(announcement, name) for name in announcement.__struct_fields__}


def test_old_numbers_are_forgotten(loader, monkeypatch):
    monkeypatch.setattr("worker.loader._NUMBERS_KEPT", 2)

    numbers = [loader._number(name) for name in ("a", "b", "a", "c", "b", "a")]

    assert numbers == [1, 2, 1, 3, 2, 4]
