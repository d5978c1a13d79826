"""Shapes: N items, D dimensions."""

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from model.bundle import (
    Bundle,
    BundleError,
    Published,
    content_hash,
    encoder_version,
    find,
    load,
    prune,
    publish,
)
from model.catalogue import Catalogue
from model.golden import check_golden
from model.manifest import IndexFacts
from model.store import Store

MakeBundle = Callable[..., Bundle]
MIB = 1 << 20


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def folder(published: Published) -> Path:
    return Path(published.uri.removeprefix("file://"))


def reload(published: Published, max_bytes: int = MIB) -> Bundle:
    return load(published.uri, published.manifest_sha256, max_bytes=max_bytes)


def refusal(published: Published, **options: int) -> str:
    with pytest.raises(BundleError) as refused:
        reload(published, **options)
    return refused.value.reason


def resealed(published: Published, changes: dict[str, bytes], **manifest: object) -> Published:
    """Put other bytes into a stored bundle and make its manifest vouch for them."""
    place = folder(published)
    fields = json.loads((place / "manifest.json").read_bytes())
    for name, data in changes.items():
        (place / name).write_bytes(data)
        fields["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    written = json.dumps(fields | manifest).encode()
    (place / "manifest.json").write_bytes(written)
    sha256 = hashlib.sha256(written).hexdigest()
    return Published(published.uri, sha256, published.num_bytes, published.manifest)


def items(published: Published, **changes: np.ndarray | None) -> dict[str, bytes]:
    tensors = load_tensors((folder(published) / "items.safetensors").read_bytes()) | changes
    kept = {name: array for name, array in tensors.items() if array is not None}
    return {"items.safetensors": save_tensors(kept)}


@pytest.mark.parametrize("kind", ["path", "file", "memory"])
def test_a_published_bundle_loads_as_it_was(
    make_bundle: MakeBundle, tmp_path: Path, kind: str
) -> None:
    url = {
        "path": str(tmp_path),
        "file": f"file://{tmp_path}",
        "memory": f"memory://{uuid.uuid4()}",
    }
    bundle = make_bundle()

    published = publish(Store(url[kind]), bundle)
    loaded = reload(published)

    assert loaded.catalogue == bundle.catalogue
    for name in ("vectors_ND", "popularity_N", "centroids_CD", "list_numbers_N"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(bundle, name))
    assert loaded.vectors_ND.flags.c_contiguous
    assert loaded.list_numbers_N is not None
    assert loaded.list_numbers_N.dtype == np.int32
    assert list(loaded.golden) == list(bundle.golden)
    assert loaded.manifest == published.manifest
    assert loaded.manifest.num_items == 30
    assert loaded.manifest.trained_through == {0: 17, 3: 4}
    check_golden(loaded)


def test_a_loaded_encoder_serves_the_same_and_cannot_learn(
    make_bundle: MakeBundle, store: Store
) -> None:
    bundle = make_bundle()

    loaded = reload(publish(store, bundle))

    x_BTD = torch.from_numpy(bundle.vectors_ND[:12].reshape(3, 4, -1))
    lengths_B = torch.full((3,), 4)
    assert torch.equal(loaded.encoder(x_BTD, lengths_B), bundle.encoder(x_BTD, lengths_B))
    assert not loaded.encoder.training
    assert not any(weight.requires_grad for weight in loaded.encoder.parameters())
    assert encoder_version(loaded.encoder) == bundle.manifest.encoder_version


def test_a_bundle_for_exact_search_needs_no_lists(make_bundle: MakeBundle, store: Store) -> None:
    bundle = make_bundle(centroids_CD=None, list_numbers_N=None)
    manifest = msgspec.structs.replace(bundle.manifest, index=IndexFacts())

    loaded = reload(
        publish(store, make_bundle(manifest=manifest, centroids_CD=None, list_numbers_N=None))
    )

    assert loaded.centroids_CD is None
    assert loaded.list_numbers_N is None


def test_a_stored_version_is_found_as_it_was_published(
    make_bundle: MakeBundle, store: Store
) -> None:
    published = publish(store, make_bundle())

    assert find(store, "default", published.manifest.version) == published
    with pytest.raises(BundleError, match="missing"):
        find(store, "default", "never")


def test_hashes_follow_weights_vectors_and_catalogue(make_bundle: MakeBundle) -> None:
    one, other = make_bundle(number=1), make_bundle(number=2)
    moved_ND = np.roll(one.vectors_ND, 1, axis=0)
    ids = Catalogue([f"x{row}" for row in range(30)])

    hashes = {
        content_hash(one.encoder, one.vectors_ND, one.catalogue),
        content_hash(other.encoder, one.vectors_ND, one.catalogue),
        content_hash(one.encoder, moved_ND, one.catalogue),
        content_hash(one.encoder, one.vectors_ND, ids),
    }

    assert len(hashes) == 4
    assert encoder_version(one.encoder) == encoder_version(make_bundle(number=1).encoder)


# Every refusal of the loader, in its order.


@pytest.mark.matrix("F41")
@pytest.mark.parametrize("file", ["manifest.json", "items.safetensors", "golden.json"])
def test_a_missing_file_is_refused(make_bundle: MakeBundle, store: Store, file: str) -> None:
    published = publish(store, make_bundle())

    (folder(published) / file).unlink()

    assert refusal(published) == "missing"


@pytest.mark.parametrize("uri", ["/nowhere/v1", "file:///nowhere", "unheard-of://x/y", ""])
def test_a_uri_that_leads_nowhere_is_refused(uri: str) -> None:
    with pytest.raises(BundleError) as refused:
        load(uri, "0" * 64, max_bytes=MIB)

    assert refused.value.reason == "missing"


@pytest.mark.matrix("F41")
def test_a_manifest_that_is_not_the_announced_one_is_refused(
    make_bundle: MakeBundle, store: Store
) -> None:
    published = publish(store, make_bundle())

    with (folder(published) / "manifest.json").open("ab") as stream:
        stream.write(b" ")

    assert refusal(published) == "manifest_sha256"


@pytest.mark.parametrize("files", [{}, {"../x": {"bytes": 1, "sha256": "0" * 64}}])
def test_a_manifest_of_other_files_is_refused(
    make_bundle: MakeBundle, store: Store, files: dict[str, object]
) -> None:
    published = publish(store, make_bundle())

    assert refusal(resealed(published, {}, files=files)) == "manifest"


def test_an_unknown_family_is_refused(make_bundle: MakeBundle, store: Store) -> None:
    published = publish(store, make_bundle())

    assert refusal(resealed(published, {}, encoder={"family": "abacus", "dim": 8})) == "manifest"


def test_a_bundle_above_the_cap_is_refused_unread(make_bundle: MakeBundle, store: Store) -> None:
    published = publish(store, make_bundle())

    (folder(published) / "items.safetensors").unlink()

    assert refusal(published, max_bytes=published.manifest.num_bytes - 1) == "oversize"


@pytest.mark.matrix("F41")
@pytest.mark.parametrize("change", [b"", b"more"])
def test_a_file_of_another_size_is_refused(
    make_bundle: MakeBundle, store: Store, change: bytes
) -> None:
    published = publish(store, make_bundle())
    path = folder(published) / "items.safetensors"

    path.write_bytes(path.read_bytes() + change if change else path.read_bytes()[:-1])

    assert refusal(published) == "size"


@pytest.mark.matrix("F41")
def test_one_flipped_bit_is_refused(make_bundle: MakeBundle, store: Store) -> None:
    published = publish(store, make_bundle())
    path = folder(published) / "encoder.safetensors"
    data = bytearray(path.read_bytes())

    data[-1] ^= 1
    path.write_bytes(data)

    assert refusal(published) == "sha256"


@pytest.mark.matrix("F41")
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        (2 * MIB).to_bytes(8, "little") + b" " * 3 * MIB,
        (4).to_bytes(8, "little") + b"nope",
        (2).to_bytes(8, "little") + b"[]",
        (7).to_bytes(8, "little") + b'{"a":1}',
        b"\x80\x04\x95\x0f\x00\x00\x00\x00\x00\x00\x00]\x94(K\x01K\x02K\x03e.",  # a pickle
        b"PK\x03\x04\x14\x00\x00\x00\x00\x00archive/data.pkl" + b"\x00" * 64,  # torch's format
    ],
)
def test_a_header_that_cannot_be_trusted_is_refused(
    make_bundle: MakeBundle, store: Store, data: bytes
) -> None:
    published = publish(store, make_bundle())

    assert refusal(resealed(published, {"items.safetensors": data}), max_bytes=9 * MIB) == "header"


def test_tensors_that_overlap_are_refused(make_bundle: MakeBundle, store: Store) -> None:
    published = publish(store, make_bundle())
    data = items(published)["items.safetensors"]
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["popularity"]["data_offsets"] = [0, 120]
    written = json.dumps(header).encode()

    forged = len(written).to_bytes(8, "little") + written + data[8 + length :]

    assert refusal(resealed(published, {"items.safetensors": forged})) == "header"


@pytest.mark.matrix("F41")
def test_a_bundle_with_other_tensors_is_refused(make_bundle: MakeBundle, store: Store) -> None:
    published = publish(store, make_bundle())
    spare = items(published, spare=np.zeros(1, np.float32))

    assert refusal(resealed(published, items(published, popularity=None))) == "missing_tensor"
    assert refusal(resealed(published, spare)) == "extra_tensor"


@pytest.mark.matrix("F41")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vectors": np.zeros((30, 8), np.float64)}, "dtype"),
        ({"list_numbers": np.zeros(30, np.int64)}, "dtype"),
        ({"vectors": np.ones((30, 9), np.float32)}, "shape"),
        ({"vectors": np.ones((31, 8), np.float32)}, "shape"),
        ({"popularity": np.zeros(29, np.float32)}, "shape"),
        ({"popularity": np.full(30, np.nan, np.float32)}, "non_finite"),
        ({"centroids": np.full((3, 8), np.inf, np.float32)}, "non_finite"),
        ({"vectors": np.zeros((30, 8), np.float32)}, "zero_row"),
        ({"vectors": np.ones((30, 8), np.float32)}, "norm"),
        ({"popularity": np.full(30, -1, np.float32)}, "popularity"),
        ({"list_numbers": np.full(30, 3, np.int32)}, "lists"),
        ({"list_numbers": np.full(30, -1, np.int32)}, "lists"),
    ],
)
def test_values_that_must_not_serve_are_refused(
    make_bundle: MakeBundle, store: Store, change: dict[str, np.ndarray], reason: str
) -> None:
    published = publish(store, make_bundle())

    assert refusal(resealed(published, items(published, **change))) == reason


@pytest.mark.matrix("F41")
@pytest.mark.parametrize(("value", "reason"), [(np.nan, "non_finite"), (None, "shape")])
def test_weights_that_must_not_serve_are_refused(
    make_bundle: MakeBundle, store: Store, value: float | None, reason: str
) -> None:
    published = publish(store, make_bundle())
    weights = load_tensors((folder(published) / "encoder.safetensors").read_bytes())

    weights["last.weight"] = (
        weights["last.weight"][1:] if value is None else weights["last.weight"] * np.float32(value)
    )

    changed = {"encoder.safetensors": save_tensors(weights)}
    assert refusal(resealed(published, changed)) == reason


@pytest.mark.matrix("F41")
@pytest.mark.parametrize("data", [b"", b"{}", b'["a","a"]', b'["only one"]', b"[1]"])
def test_a_catalogue_that_does_not_fit_is_refused(
    make_bundle: MakeBundle, store: Store, data: bytes
) -> None:
    published = publish(store, make_bundle())

    assert refusal(resealed(published, {"catalogue.json": data})) == "catalogue"


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'[{"rows":["a"]}]'])
def test_golden_sessions_that_are_none_are_refused(
    make_bundle: MakeBundle, store: Store, data: bytes
) -> None:
    published = publish(store, make_bundle())

    assert refusal(resealed(published, {"golden.json": data})) == "golden"


# Publishing.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vectors_ND": np.zeros((30, 8), np.float32)}, "zero_row"),
        ({"vectors_ND": np.full((30, 8), np.nan, np.float32)}, "non_finite"),
        ({"popularity_N": np.zeros(30)}, "dtype"),
        ({"catalogue": Catalogue(["a"])}, "shape"),
        ({"centroids_CD": None}, "missing_tensor"),
    ],
)
def test_nothing_is_stored_that_would_not_load(
    make_bundle: MakeBundle, store: Store, change: dict[str, object], reason: str
) -> None:
    with pytest.raises(BundleError) as refused:
        publish(store, make_bundle(**change))

    assert refused.value.reason == reason
    assert store.list("default", complete="manifest.json") == []


def test_a_version_is_published_once(make_bundle: MakeBundle, store: Store) -> None:
    publish(store, make_bundle())

    with pytest.raises(FileExistsError):
        publish(store, make_bundle())


def test_pruning_keeps_the_newest_and_the_protected(make_bundle: MakeBundle, store: Store) -> None:
    published = [publish(store, make_bundle(number=number)) for number in range(6)]
    versions = [each.manifest.version for each in published]

    removed = prune(store, "default", keep=2, protect=[versions[1]])

    assert removed == [versions[0], versions[2], versions[3]]
    assert store.list("default", complete="manifest.json") == [versions[1], *versions[4:]]
    assert prune(store, "default", keep=5) == []
    assert refusal(published[0]) == "missing"
    reload(published[1])
