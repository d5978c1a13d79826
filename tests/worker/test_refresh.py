"""New versions: what is refused, for which reason, and that the old one goes on."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from kafka.errors import KafkaConnectionError
from safetensors.numpy import load, save

from model.bundle import publish
from model.golden import golden_sessions
from model.store import Store
from stream.messages import Gate, ModelAnnouncement, encode


def version_name(n):
    return f"20261123T{n:09d}Z-{n:08x}"


@pytest.fixture
def announced(publish_bundle):
    """Publish a version; returns its record of the models topic, altered by overrides."""

    def make(n=1, *, published=None, key=b"default/bundle", fields=None, **bundle):
        published = published or publish_bundle(version=version_name(n), seed=n, **bundle)
        announcement = ModelAnnouncement(
            **{
                "name": "default", "version": published.manifest.version, "kind": "bundle",
                "uri": published.uri, "manifest_sha256": published.manifest_sha256,
                "bytes": published.num_bytes, "created_at": 1, "encoder_version": "e",
                "trained_through": {}, "metrics": {}, "gate": Gate(verdict="accepted"),
            } | (fields or {})
        )  # fmt: skip
        return key, encode(announcement)

    return make


def test_a_version_is_loaded_and_taken_once(follow, announced):
    follower, count = follow([[announced(1)]])

    version = follower.take(wait_seconds=10)

    assert version.name == version_name(1)
    assert follower.take() is None
    assert count("loaded") == 1


def test_only_the_newest_of_those_waiting_is_loaded(follow, announced):
    follower, count = follow([[announced(n) for n in (1, 2, 3)]])

    assert follower.take(wait_seconds=10).name == version_name(3)
    assert count("loaded") == 1


def test_a_broken_newest_version_is_passed_over_for_the_one_before(follow, announced):
    broken = announced(2, fields={"manifest_sha256": "0" * 64})
    follower, count = follow([[announced(1), broken]])

    assert follower.take(wait_seconds=10).name == version_name(1)
    assert count("refused", "manifest_sha256") == 1


def test_other_names_kinds_and_tombstones_are_not_ours(follow, announced):
    others = [announced(5, key=b"other/bundle"), announced(6, key=b"default/delta")]
    follower, count = follow([[announced(1), *others, (b"default/bundle", None)]])

    assert follower.take(wait_seconds=10).name == version_name(1)
    assert count("loaded") == 1


def test_an_unreachable_topic_is_tried_again(follow, announced):
    follower, _ = follow([KafkaConnectionError("away"), [announced(1)]])

    assert follower.take(wait_seconds=10).name == version_name(1)


def damage(file, change):
    def apply(folder):
        path = Path(folder.removeprefix("file:")) / file
        path.write_bytes(change(path.read_bytes()))

    return apply


def remove(file):
    return lambda folder: (Path(folder.removeprefix("file:")) / file).unlink()


def nan_vectors(data):
    tensors = {name: array.copy() for name, array in load(data).items()}
    tensors["vectors"][3, 0] = np.nan
    return save(tensors)


@pytest.mark.matrix("F41")
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (damage("items.safetensors", lambda data: data[:-8]), "size"),
        (damage("items.safetensors", lambda data: data[:-1] + b"\1"), "sha256"),
        (damage("items.safetensors", nan_vectors), "sha256"),
        (damage("manifest.json", lambda data: data + b" "), "manifest_sha256"),
        (remove("catalogue.json"), "missing"),
    ],
)
def test_a_damaged_version_is_refused_and_the_old_one_goes_on(
    follow, announced, publish_bundle, harm, reason
):
    published = publish_bundle(version=version_name(2), seed=2)
    harm(published.uri)
    polls = [[announced(1)], [announced(published=published)], [announced(3)]]
    follower, count = follow(polls[:1])
    assert follower.take(wait_seconds=10).name == version_name(1)

    follower, count = follow(polls)
    names = set()
    while version_name(3) not in names:
        version = follower.take(wait_seconds=10)
        assert version is not None
        names.add(version.name)

    assert version_name(2) not in names
    assert count("refused", reason) == 1


@pytest.mark.matrix("F41")
@pytest.mark.parametrize(
    ("later", "reason"),
    [
        ({"n": 0}, "older"),
        ({"n": 2, "ids": tuple(f"other{n}" for n in range(200))}, "overlap"),
        ({"n": 2, "fields": {"version": version_name(9)}}, "store"),
        ({"n": 2, "fields": {"uri": "http://127.0.0.1:1/x"}}, "store"),
        ({"n": 2, "fields": {"uri": "/no/such/folder"}}, "store"),
        ({"n": 2, "fields": {"version": "9/../../x"}}, "store"),
    ],
)
def test_an_unfit_version_is_refused(follow, announced, wait_until, later, reason):
    follower, count = follow([[announced(1)], [announced(**later)]])

    wait_until(lambda: count("refused", reason) == 1, 10, f"refused as {reason}")

    assert follower.take().name == version_name(1)
    assert follower.take() is None
    assert count("loaded") == 1


@pytest.mark.matrix("F41")
def test_files_of_another_version_are_refused(follow, announced, publish_bundle, wait_until):
    published = publish_bundle(version=version_name(2), seed=2)
    folder = Path(published.uri.removeprefix("file:"))
    moved = folder.rename(folder.with_name(version_name(3)))
    fields = {"version": version_name(3), "uri": f"file://{moved}"}

    _, count = follow([[announced(published=published, fields=fields)]])

    wait_until(lambda: count("refused", "manifest") == 1, 10, "refused")


def test_an_announcement_that_does_not_decode_is_refused(follow, wait_until):
    _, count = follow([[(b"default/bundle", json.dumps({"name": "x"}).encode())]])

    wait_until(lambda: count("refused", "missing") == 1, 10, "refused")


def test_a_version_whose_files_are_away_is_tried_again(
    follow, announced, publish_bundle, wait_until, monkeypatch
):
    monkeypatch.setattr("worker.refresh._RETRY_SECONDS", 0.0)
    published = publish_bundle(version=version_name(2), seed=2)
    folder = Path(published.uri.removeprefix("file:"))
    away = folder.rename(folder.with_name("away"))
    follower, count = follow([[announced(1), announced(published=published)]])
    wait_until(lambda: count("loaded") == 1 and count("refused", "missing"), 10, "refused")
    first = follower.take()

    away.rename(folder)

    wait_until(lambda: count("loaded") == 2, 10, "loaded")
    assert (first.name, follower.take().name) == (version_name(1), version_name(2))


def test_what_ends_the_thread_is_raised_to_the_worker(follow, monkeypatch):
    hooked = []
    monkeypatch.setattr("threading.excepthook", hooked.append)
    follower, _ = follow([ZeroDivisionError()])

    with pytest.raises(ZeroDivisionError):
        follower.take(wait_seconds=10)


@pytest.mark.matrix("F41")
def test_a_version_whose_rows_are_shuffled_is_refused_and_the_old_one_goes_on(
    follow, announced, make_bundle, tmp_path, wait_until
):
    bundle = make_bundle(version=version_name(2), seed=2)
    golden = golden_sessions(bundle.encoder, bundle.vectors_ND, [[1, 2, 3], [4], [5, 6]])
    shuffled = replace(bundle, golden=golden, vectors_ND=bundle.vectors_ND[::-1].copy())
    published = publish(Store(str(tmp_path / "models")), shuffled)
    follower, count = follow([[announced(1)], [announced(published=published)]])

    wait_until(lambda: count("refused", "golden") == 1, 10, "refused")

    assert follower.take().name == version_name(1)
    assert follower.take() is None


@pytest.mark.matrix("F41")
def test_a_version_with_a_nan_is_refused_though_its_checksums_are_right(
    follow, announced, publish_bundle, wait_until
):
    published = publish_bundle(version=version_name(2), seed=2)
    folder = Path(published.uri.removeprefix("file:"))
    data = nan_vectors((folder / "items.safetensors").read_bytes())
    manifest = json.loads((folder / "manifest.json").read_bytes())
    vouched = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    manifest["files"]["items.safetensors"] = vouched
    written = json.dumps(manifest).encode()
    (folder / "items.safetensors").write_bytes(data)
    (folder / "manifest.json").write_bytes(written)
    resealed = {"manifest_sha256": hashlib.sha256(written).hexdigest()}
    follower, count = follow([[announced(1)], [announced(published=published, fields=resealed)]])

    wait_until(lambda: count("refused", "non_finite") == 1, 10, "refused")

    assert follower.take().name == version_name(1)
    assert follower.take() is None
