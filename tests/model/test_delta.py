"""Shapes: M changed rows, X new ones, D dimensions, E clicks."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from model.bundle import Bundle, BundleError, RecentClicks, find, publish
from model.contents import check_content
from model.delta import Delta, join, load_delta, publish_delta
from model.listed import Stored
from model.manifest import bundle_of, delta_version
from model.store import Store

MIB = 1 << 20
Put = Callable[..., Stored]


def unit_rows(num_rows: int, dim: int = 8, seed: int = 5) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((num_rows, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def clicks_on(*rows: int, before: int = 0) -> RecentClicks:
    rows_E = np.array(rows, np.int32)
    return RecentClicks(rows_E, 1_000 + np.arange(len(rows)), np.full(len(rows), before, np.int32))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


@pytest.fixture
def put(store: Store, make_delta) -> Put:
    """Store a delta of a bundle."""
    return lambda bundle, **changes: publish_delta(
        store, make_delta(bundle, **changes), num_items=len(bundle.catalogue)
    )


@pytest.fixture
def bundle(make_bundle) -> Bundle:
    return make_bundle(clicks=clicks_on(1, 2))


def reload(stored: Stored, bundle: Bundle, max_bytes: int = MIB) -> Delta:
    return load_delta(
        stored.uri, bundle, max_bytes=max_bytes, manifest_sha256=stored.manifest_sha256
    )


def refusal(stored: Stored, bundle: Bundle, max_bytes: int = MIB) -> str:
    with pytest.raises(BundleError) as refused:
        join(bundle, reload(stored, bundle, max_bytes))
    return refused.value.reason


def test_a_published_delta_loads_as_it_was(put: Put, bundle: Bundle, make_delta) -> None:
    made = make_delta(bundle)

    stored = put(bundle)
    loaded = reload(stored, bundle)

    for name in ("rows_M", "vectors_MD", "new_vectors_XD"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(made, name))
    for mine, theirs in zip(loaded.clicks, made.clicks, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert loaded.new_ids == ["new-0", "new-1"]
    facts = loaded.manifest
    assert (facts.num_changed, facts.num_new, facts.num_clicks) == (2, 2, 3)
    assert facts.trained_through == {0: 20}
    folder = Path(stored.uri.removeprefix("file://"))
    assert stored.num_bytes == sum(file.stat().st_size for file in folder.iterdir())


def test_a_delta_may_hold_clicks_alone(put: Put, bundle: Bundle) -> None:
    nothing = np.zeros((0, 8), np.float32)
    stored = put(
        bundle,
        rows_M=np.zeros(0, np.int32),
        vectors_MD=nothing,
        new_ids=[],
        new_vectors_XD=nothing,
        clicks=clicks_on(29),
    )

    joined = join(bundle, reload(stored, bundle))

    np.testing.assert_array_equal(joined.vectors_ND, bundle.vectors_ND)
    assert joined.clicks.rows_E.tolist() == [1, 2, 29]


def test_a_joined_version_is_the_bundle_with_other_rows_more_items_and_clicks(
    bundle: Bundle, make_delta
) -> None:
    delta = make_delta(bundle)

    joined = join(bundle, delta)

    assert joined.manifest.version == delta.manifest.version == bundle.manifest.version + "+0001"
    assert joined.manifest.version > bundle.manifest.version
    assert bundle_of(joined.manifest.version) == bundle.manifest.version
    assert joined.catalogue.extends(bundle.catalogue)
    assert joined.catalogue.rows(["new-0", "new-1"]).tolist() == [30, 31]
    np.testing.assert_array_equal(joined.vectors_ND[[3, 0]], delta.vectors_MD)
    np.testing.assert_array_equal(joined.vectors_ND[30:], delta.new_vectors_XD)
    same = [row for row in range(30) if row not in (0, 3)]
    np.testing.assert_array_equal(joined.vectors_ND[same], bundle.vectors_ND[same])
    assert joined.popularity_N.tolist() == [*range(30), 0, 0]
    assert joined.clicks.rows_E.tolist() == [1, 2, 0, 31, 4]
    assert joined.encoder is bundle.encoder
    assert joined.manifest.encoder_version == bundle.manifest.encoder_version
    check_content(joined)


def test_joining_leaves_the_bundle_as_it_was(bundle: Bundle, make_delta) -> None:
    vectors_ND, ids = bundle.vectors_ND.copy(), list(bundle.catalogue.ids)

    join(bundle, make_delta(bundle))

    np.testing.assert_array_equal(bundle.vectors_ND, vectors_ND)
    assert list(bundle.catalogue.ids) == ids


def broken(values: np.ndarray, value: float) -> np.ndarray:
    values = values.copy()
    values[1] = value
    return values


@pytest.mark.matrix("F41")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"vectors_MD": broken(unit_rows(2), np.nan)}, "non_finite"),
        ({"new_vectors_XD": broken(unit_rows(2), np.inf)}, "non_finite"),
        ({"vectors_MD": broken(unit_rows(2), 0.0)}, "zero_row"),
        ({"new_vectors_XD": unit_rows(2) * 1.01}, "norm"),
        ({"rows_M": np.array([3, 30], np.int32)}, "rows"),
        ({"rows_M": np.array([3, -1], np.int32)}, "rows"),
        ({"rows_M": np.array([3, 3], np.int32)}, "rows"),
        ({"clicks": clicks_on(0, 32)}, "clicks"),
        ({"clicks": clicks_on(-1)}, "clicks"),
        ({"clicks": clicks_on(1, before=-1)}, "clicks"),
    ],
)
def test_values_that_must_not_serve_are_neither_stored_nor_loaded(
    store: Store, put: Put, bundle: Bundle, monkeypatch, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(BundleError) as refused:
        put(bundle, **changes)
    assert refused.value.reason == reason
    assert store.list("default", complete="manifest.json") == []

    with monkeypatch.context() as unchecked:
        unchecked.setattr("model.delta.check_delta", lambda delta, num_items: None)
        stored = put(bundle, **changes)
    assert refusal(stored, bundle) == reason


@pytest.mark.parametrize("ids", [["item-3", "new-1"], ["new-0", "new-0"], ["new-0", ""]])
def test_ids_that_are_not_new_are_refused(put: Put, bundle: Bundle, ids: list[str]) -> None:
    assert refusal(put(bundle, new_ids=ids), bundle) == "catalogue"


def test_a_delta_of_another_bundle_is_refused(put: Put, bundle: Bundle, make_bundle) -> None:
    stored = put(bundle)

    assert refusal(stored, make_bundle(number=2)) == "parent"
    joined = join(bundle, reload(stored, bundle))
    assert refusal(stored, joined) == "parent"
    other = msgspec.structs.replace(bundle.manifest, encoder_version="other")
    assert refusal(stored, replace(bundle, manifest=other)) == "parent"


def test_a_delta_above_the_cap_is_refused(put: Put, bundle: Bundle) -> None:
    assert refusal(put(bundle), bundle, max_bytes=100) == "oversize"


def folder_of(stored: Stored) -> Path:
    return Path(stored.uri.removeprefix("file://"))


@pytest.mark.parametrize("file", ["delta.safetensors", "catalogue.json", "manifest.json"])
def test_a_missing_or_altered_file_is_refused(put: Put, bundle: Bundle, file: str) -> None:
    stored = put(bundle)
    path = folder_of(stored) / file
    data = path.read_bytes()

    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert refusal(stored, bundle) == ("manifest_sha256" if "manifest" in file else "sha256")
    path.unlink()
    assert refusal(stored, bundle) == "missing"


def forged(stored: Stored, **files: bytes) -> Stored:
    """Write other files and vouch for them in the manifest."""
    folder = folder_of(stored)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    for name, data in files.items():
        file = {"tensors": "delta.safetensors", "ids": "catalogue.json"}[name]
        (folder / file).write_bytes(data)
        entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        manifest["files"][file] = entry
    written = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(written)
    return Stored(stored.uri, hashlib.sha256(written).hexdigest(), stored.num_bytes)


def other_tensors(stored: Stored, **changes: np.ndarray | None) -> bytes:
    tensors = load_tensors((folder_of(stored) / "delta.safetensors").read_bytes()) | changes
    return save_tensors({name: array for name, array in tensors.items() if array is not None})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vectors": unit_rows(3)}, "shape"),
        ({"vectors": unit_rows(2, dim=4)}, "shape"),
        ({"new_vectors": unit_rows(2).astype(np.float64)}, "dtype"),
        ({"rows": None}, "missing_tensor"),
        ({"temperature": np.ones(1, np.float32)}, "extra_tensor"),
    ],
)
def test_other_tensors_are_refused(
    put: Put, bundle: Bundle, change: dict[str, np.ndarray | None], reason: str
) -> None:
    stored = put(bundle)

    assert refusal(forged(stored, tensors=other_tensors(stored, **change)), bundle) == reason


@pytest.mark.parametrize("ids", [b'["new-0"]', b'{"a": 1}', b"[1, 2]", b"[", b'["a", "b", "c"]'])
def test_a_catalogue_that_does_not_fit_is_refused(put: Put, bundle: Bundle, ids: bytes) -> None:
    assert refusal(forged(put(bundle), ids=ids), bundle) == "catalogue"


def test_a_bundle_is_no_delta_and_a_delta_no_bundle(
    store: Store, put: Put, bundle: Bundle, make_bundle
) -> None:
    published = publish(store, bundle)
    with pytest.raises(BundleError, match="manifest"):
        reload(published, bundle)

    put(bundle)
    with pytest.raises(BundleError, match="manifest"):
        find(store, "default", delta_version(bundle.manifest.version, 1))
