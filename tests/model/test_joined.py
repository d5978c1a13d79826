"""Names of versions, and stored versions by their names."""

import pytest

from model.bundle import Bundle, BundleError, prune, publish
from model.delta import publish_delta
from model.joined import StoredVersions
from model.manifest import DeltaManifest, delta_version
from model.store import Store

MIB = 1 << 20


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def publish_both(store: Store, make_bundle, make_delta):
    """Publish a bundle and a delta of it."""

    def make(number: int = 1) -> Bundle:
        bundle = make_bundle(number=number)
        publish(store, bundle)
        publish_delta(store, make_delta(bundle), num_items=len(bundle.catalogue))
        return bundle

    return make


@pytest.mark.parametrize("number", [0, 10_000])
def test_a_bundle_has_so_many_deltas_that_their_names_order(number: int) -> None:
    with pytest.raises(ValueError, match="1 to 9999"):
        delta_version("v", number)


def test_a_version_named_after_another_bundle_is_no_delta_of_this_one() -> None:
    with pytest.raises(ValueError, match="no name for a delta"):
        DeltaManifest(
            name="default", version="v1+0001", parent="v2", created_at=1, encoder_version="e"
        )


def test_pruning_removes_deltas_with_their_bundle(store: Store, publish_both) -> None:
    names = [publish_both(number).manifest.version for number in range(3)]

    removed = prune(store, "default", keep=2)

    assert removed == [names[0], names[0] + "+0001"]
    expected = [version for name in names[1:] for version in (name, name + "+0001")]
    assert store.list("default", complete="manifest.json") == expected


def test_stored_versions_are_loaded_by_name_deltas_joined(store: Store, publish_both) -> None:
    versions = StoredVersions(store, "default", max_bytes=MIB)
    name = publish_both().manifest.version

    joined = versions.load(name + "+0001")

    assert joined.manifest.version == name + "+0001"
    assert len(joined.catalogue) == 32
    assert len(versions.load(name).catalogue) == 30
    with pytest.raises(BundleError, match="missing"):
        versions.load(name + "+0002")
    with pytest.raises(BundleError, match="missing"):
        versions.load("20200101T000000000Z-00000000+0001")
    with pytest.raises(ValueError, match="cannot be a folder"):
        versions.load("../../etc")
