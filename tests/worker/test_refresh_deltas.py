"""Announced deltas: which of them is loaded, in which order with their bundles."""

from pathlib import Path

import pytest
from kafka.errors import KafkaConnectionError

from stream.announcements import restoring
from stream.messages import Gate, ModelAnnouncement, decode_announcement, encode

BUNDLE, DELTA = b"default/bundle", b"default/delta"


def version_name(n):
    return f"20261123T{n:09d}Z-{n:08x}"


def announcement(manifest, stored, kind, **fields):
    return ModelAnnouncement(
        **{
            "name": "default", "version": manifest.version, "kind": kind, "uri": stored.uri,
            "manifest_sha256": stored.manifest_sha256, "bytes": stored.num_bytes, "created_at": 1,
            "encoder_version": "e", "trained_through": {}, "metrics": {},
            "gate": Gate(verdict="accepted"), "parent": manifest.parent,
        } | fields
    )  # fmt: skip


@pytest.fixture
def bundle(publish_bundle):
    """Publish bundle n; returns its record of the models topic."""

    def make(n):
        published = publish_bundle(version=version_name(n), seed=n)
        return BUNDLE, encode(announcement(published.manifest, published, "bundle"))

    return make


@pytest.fixture
def delta(make_bundle, make_delta, store_delta):
    """Publish a delta of bundle n; returns its record of the models topic."""

    def make(n, number, *, harm=None, **fields):
        made = make_delta(make_bundle(version=version_name(n), seed=n), number, new_ids=["new"])
        stored = store_delta(made, 200)
        if harm is not None:
            harm(Path(stored.uri.removeprefix("file:")))
        return DELTA, encode(announcement(made.manifest, stored, "delta", **fields))

    return make


@pytest.fixture
def wait_for(follow, wait_until):
    """Follow polls until a version was handed over; returns all that were, and the counts."""

    def wait(polls, name):
        follower, count = follow(polls)
        taken = []

        def arrived():
            version = follower.take()
            taken.extend([version] if version is not None else [])
            return taken and taken[-1].name == name

        wait_until(arrived, 20, f"{name} is loaded")
        return taken, count

    return wait


def test_a_delta_of_the_bundle_that_serves_is_loaded(wait_for, bundle, delta):
    taken, count = wait_for([[bundle(1)], [delta(1, 1)]], version_name(1) + "+0001")

    version = taken[-1]
    assert version.bundle.catalogue.row("new") == 200
    assert version.bundle.manifest.parent == version_name(1)
    assert count("loaded") == 2


def test_a_fresh_worker_loads_the_bundle_and_only_the_newest_delta(wait_for, bundle, delta):
    polls = [[bundle(1), delta(1, 1), bundle(2), delta(2, 1), delta(2, 2), delta(2, 3)]]

    _, count = wait_for(polls, version_name(2) + "+0003")

    assert count("loaded") == 2


def test_versions_of_one_process_have_numbers_of_their_own(wait_for, bundle, delta):
    polls = [[bundle(1)], [delta(1, 1)], [delta(1, 2)], [bundle(2)]]

    taken, _ = wait_for(polls, version_name(2))

    assert len({version.number for version in taken}) == len(taken)


def test_a_delta_that_comes_before_its_bundle_waits_for_it(wait_for, bundle, delta):
    polls = [[bundle(1)], [delta(2, 1)], [], [bundle(2)]]

    _, count = wait_for(polls, version_name(2) + "+0001")

    assert count("loaded") == 3


def test_a_delta_of_an_earlier_bundle_is_passed_over_quietly(wait_for, bundle, delta):
    polls = [[bundle(1), bundle(2)], [delta(1, 1)], [delta(2, 1)]]

    taken, count = wait_for(polls, version_name(2) + "+0001")

    assert all(version.name.startswith(version_name(2)) for version in taken)
    assert count("loaded") == 2


@pytest.fixture
def restored(bundle):
    """Announce under version n that an earlier bundle serves again; returns its record."""

    def make(n, earlier):
        found = decode_announcement(earlier[1])
        gate = Gate(verdict="restored")
        return BUNDLE, encode(restoring(found, version_name(n), gate))

    return make


def test_deltas_of_a_bundle_that_was_rolled_back_are_passed_over(wait_for, bundle, delta, restored):
    first, later = bundle(1), [bundle(4), delta(4, 1)]
    polls = [[first], [bundle(2), delta(2, 1)], [restored(3, first)], [delta(2, 2)], later]

    taken, count = wait_for(polls, version_name(4) + "+0001")

    names = [version.name for version in taken]
    assert version_name(2) + "+0002" not in names
    assert count("loaded") == 6
    assert not any(count("refused", reason) for reason in ("older", "parent", "missing"))


def test_a_fresh_worker_after_a_rollback_serves_the_restored_bundle_alone(
    follow, bundle, delta, restored, wait_until
):
    first = bundle(1)
    polls = [[first, bundle(2), delta(2, 1), restored(3, first)], []]

    follower, count = follow(polls)
    wait_until(lambda: not polls, 10, "all is read")

    assert follower.take(wait_seconds=10).name == version_name(1)
    assert count("loaded") == 1


def test_a_delta_is_watched_as_its_bundle(wait_for, bundle, delta):
    taken, _ = wait_for([[bundle(1)], [delta(1, 1)]], version_name(1) + "+0001")

    assert taken[-1].announcement.version == version_name(1)
    assert taken[-1].announcement.kind == "bundle"


def test_a_delta_that_was_loaded_is_not_loaded_again(wait_for, bundle, delta):
    first = [bundle(1), delta(1, 2), delta(1, 1)]
    polls = [first, KafkaConnectionError("away"), [first[0]], first[1:], [delta(1, 3)]]

    _, count = wait_for(polls, version_name(1) + "+0003")

    assert count("loaded") == 3


def remove_tensors(folder):
    (folder / "delta.safetensors").unlink()


@pytest.mark.matrix("F41")
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"harm": remove_tensors}, "missing"),
        ({"manifest_sha256": "0" * 64}, "manifest_sha256"),
        ({"uri": "file:///no/such/folder"}, "store"),
    ],
)
def test_a_broken_delta_is_refused_for_the_one_before(wait_for, bundle, delta, options, reason):
    polls = [[bundle(1), delta(1, 1), delta(1, 2, **options)]]

    _, count = wait_for(polls, version_name(1) + "+0001")

    assert count("refused", reason) == 1


def test_files_of_another_delta_are_refused(wait_for, bundle, delta, wait_until, follow):
    record = delta(
        1, 1, harm=lambda folder: folder.rename(folder.with_name(f"{folder.name[:-1]}2"))
    )
    renamed = record[1].replace(b"+0001", b"+0002")

    _, count = follow([[bundle(1), (DELTA, renamed)]])

    wait_until(lambda: count("refused", "manifest") == 1, 10, "refused")


def test_an_announcement_that_does_not_decode_is_refused(follow, bundle, wait_until):
    _, count = follow([[bundle(1)], [(DELTA, b"{")]])

    wait_until(lambda: count("refused", "malformed") == 1, 10, "refused")
