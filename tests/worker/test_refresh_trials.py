"""Versions to be tried: loaded beside what serves, until they serve or are withdrawn."""

import pytest

from stream.announcements import key_of, on_trial, withdrawn
from stream.messages import Gate, ModelAnnouncement, encode

BUNDLE, CANARY = key_of("default"), key_of("default", "canary")


@pytest.fixture
def published(publish_bundle):
    """Publish versions 1, 2, 3 … and return their announcements."""

    def make(n):
        version = f"20261123T{n:09d}Z-{n:08x}"
        stored = publish_bundle(version=version, seed=n)
        return ModelAnnouncement(
            name="default", version=version, kind="bundle", uri=stored.uri,
            manifest_sha256=stored.manifest_sha256, bytes=stored.num_bytes, created_at=1,
            encoder_version="e", trained_through={}, metrics={}, gate=Gate(verdict="accepted"),
        )  # fmt: skip

    return make


def bundle(announcement):
    return BUNDLE, encode(announcement)


def canary(announcement):
    return CANARY, encode(announcement)


def tried(follower):
    return follower.on_trial and follower.on_trial.name


def test_a_version_to_be_tried_is_loaded_beside_the_serving_one(follow, published, wait_until):
    first, second = published(1), published(2)
    follower, count = follow([[bundle(first)], [canary(on_trial(second, 0.05))]])

    assert follower.take(wait_seconds=10).name == first.version
    wait_until(lambda: tried(follower) == second.version, 10, "it is tried")
    assert follower.on_trial.announcement.share == 0.05
    assert follower.take() is None
    assert count("loaded") == 2


def test_a_fresh_worker_finds_both(follow, published, wait_until):
    first, second = published(1), published(2)
    follower, _ = follow([[canary(on_trial(second, 0.05)), bundle(first)]])

    assert follower.take(wait_seconds=10).name == first.version
    wait_until(lambda: tried(follower) == second.version, 10, "it is tried")


def test_a_withdrawn_version_is_tried_no_more(follow, published, wait_until):
    first, trial = published(1), on_trial(published(2), 0.05)
    polls = [[bundle(first)], [canary(trial)]]
    follower, _ = follow(polls)
    wait_until(lambda: tried(follower) == trial.version, 10, "it is tried")

    polls.append([canary(withdrawn(trial, "worse"))])

    wait_until(lambda: tried(follower) is None, 10, "it is withdrawn")


def test_when_it_serves_it_is_not_loaded_again(follow, published, wait_until):
    first, second = published(1), published(2)
    polls = [[bundle(first)], [canary(on_trial(second, 0.05))]]
    follower, count = follow(polls)
    follower.take(wait_seconds=10)
    wait_until(lambda: tried(follower) == second.version, 10, "it is tried")
    trial = follower.on_trial

    polls.append([bundle(second)])

    version = follower.take(wait_seconds=10)
    assert version.bundle is trial.bundle
    assert version.announcement.share == 1
    assert tried(follower) is None
    assert count("loaded") == 3  # three hand-overs, of which the last read no file


def test_a_later_bundle_ends_a_trial_and_an_earlier_trial_never_begins(
    follow, published, wait_until
):
    first, second, third = (published(n) for n in (1, 2, 3))
    polls = [[bundle(first)], [canary(on_trial(second, 0.05))]]
    follower, _ = follow(polls)
    wait_until(lambda: tried(follower) == second.version, 10, "it is tried")

    polls.append([bundle(third)])
    wait_until(lambda: tried(follower) is None, 10, "a later version serves")
    polls.append([canary(on_trial(second, 0.5))])
    polls.append([bundle(published(4))])

    wait_until(lambda: (v := follower.take()) and v.name[-1] == "4", 10, "all was read")
    assert tried(follower) is None


def test_a_broken_version_is_not_tried_and_what_serves_goes_on(follow, published, wait_until):
    trial = on_trial(published(2), 0.05)
    broken = CANARY, encode(trial).replace(trial.manifest_sha256.encode(), b"0" * 64)
    follower, count = follow([[bundle(published(1))], [broken]])

    wait_until(lambda: count("refused", "manifest_sha256") == 1, 10, "it is refused")
    assert tried(follower) is None
    assert follower.take() is not None
