"""The stored versions of a model, and which of them comes before another."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from model.bundle import publish
from model.store import Store
from model.versions import (
    UnknownVersionError,
    find_version,
    refused_name,
    stored_versions,
    version_before,
)


class Shop:
    def __init__(self, folder, make_bundle):
        self.folder = folder
        self.store = Store(str(folder))
        self._bundle = make_bundle()

    def put(self, version, *, parent=None, refused=False):
        name = refused_name("m") if refused else "m"
        manifest = msgspec.structs.replace(
            self._bundle.manifest, name=name, version=version, parent=parent
        )
        publish(self.store, replace(self._bundle, manifest=manifest))

    def listed(self):
        return [found.manifest.version for found in stored_versions(self.store, "m")]


@pytest.fixture
def shop(tmp_path, make_bundle):
    return Shop(tmp_path, make_bundle)


def test_versions_are_listed_in_order_the_refused_ones_last(shop):
    shop.put("v1", refused=True)
    shop.put("v3")
    shop.put("v2")

    assert shop.listed() == ["v2", "v3", "v1"]


def test_a_folder_that_holds_no_version_of_ours_is_passed_over(shop):
    shop.put("v1")
    odd = Path(shop.folder) / "m" / "v2"
    odd.mkdir()
    (odd / "manifest.json").write_text("{")

    assert shop.listed() == ["v1"]


def test_deltas_are_not_listed_beside_their_bundle(shop):
    shop.put("v1")
    shop.put("v1+0001")

    assert shop.listed() == ["v1"]


def test_a_version_is_found_also_among_the_refused(shop):
    shop.put("v1")
    shop.put("v2", refused=True)

    assert find_version(shop.store, "m", "v2").manifest.name == "m.refused"
    with pytest.raises(UnknownVersionError, match=r"no version v9 .* there are: v1, v2"):
        find_version(shop.store, "m", "v9")


def test_before_a_version_was_its_parent_else_the_newest_below_it(shop):
    shop.put("v1")
    shop.put("v2", parent="v1")
    shop.put("v3", parent="v1")
    shop.put("v4", parent="gone")
    shop.put("v0", refused=True)

    before = [version_before(shop.store, "m", v).manifest.version for v in ("v3", "v4", "v5")]

    assert before == ["v1", "v3", "v4"]
    with pytest.raises(UnknownVersionError, match="before v1"):
        version_before(shop.store, "m", "v1")


def test_an_empty_store_says_so(shop):
    with pytest.raises(UnknownVersionError, match="there are: none"):
        find_version(shop.store, "m", "v1")
