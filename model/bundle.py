"""One published version as files, out and in: every check of the loader; knows no Kafka, no index.

Shapes: N items, D dimensions, C index lists.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray

from model.catalogue import Catalogue
from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig, SessionEncoder
from model.manifest import (
    MAX_MANIFEST_BYTES,
    BundleError,
    FileEntry,
    Manifest,
    decode_manifest,
    encode_manifest,
    new_version,
)
from model.store import Store, read_file
from model.tensors import Array, read_tensors, write_tensors

__all__ = [
    "Bundle",
    "BundleError",
    "GoldenSession",
    "Manifest",
    "Published",
    "content_hash",
    "encoder_version",
    "find",
    "load",
    "new_version",
    "prune",
    "publish",
]

MANIFEST: Final = "manifest.json"
ENCODER: Final = "encoder.safetensors"
ITEMS: Final = "items.safetensors"
CATALOGUE: Final = "catalogue.json"
GOLDEN: Final = "golden.json"
_FILES: Final = (ENCODER, ITEMS, CATALOGUE, GOLDEN)
_NORM_TOLERANCE: Final = 1e-3

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


class GoldenSession(Struct, frozen=True):
    """A session with the best items and their scores that this version must give it."""

    rows: list[int]
    top_rows: list[int]
    scores: list[float]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bundle:
    """One version in memory: encoder in eval mode, unit vectors, everything row by row."""

    manifest: Manifest
    encoder: SessionEncoder
    catalogue: Catalogue
    vectors_ND: Float32
    popularity_N: Float32
    centroids_CD: Float32 | None = None
    list_numbers_N: Int32 | None = None
    golden: Sequence[GoldenSession] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """Where a version is, and the hash that names its content."""

    uri: str
    manifest_sha256: str
    num_bytes: int
    manifest: Manifest


def encoder_version(encoder: SessionEncoder) -> str:
    """Return a name for the encoder's configuration and weights: equal states, equal name."""
    digest = hashlib.sha256(msgspec.json.encode(encoder.config))
    digest.update(write_tensors(_weights(encoder)))
    return digest.hexdigest()[:16]


def content_hash(encoder: SessionEncoder, vectors_ND: Float32, catalogue: Catalogue) -> str:
    """Return a hash of what a version recommends by, for its name."""
    digest = hashlib.sha256(encoder_version(encoder).encode())
    digest.update(np.ascontiguousarray(vectors_ND).data)
    digest.update(catalogue.digest.encode())
    return digest.hexdigest()


def publish(store: Store, bundle: Bundle) -> Published:
    """Store a bundle; raises BundleError for one that the loader would refuse.

    It is read back from its bytes first, so nothing is stored that does not load. The manifest is
    stored last, with the size and sha256 of every other file.
    """
    files: dict[str, bytes] = {
        ENCODER: write_tensors(_weights(bundle.encoder)),
        ITEMS: write_tensors(_item_tensors(bundle)),
        CATALOGUE: bundle.catalogue.to_json(),
        GOLDEN: msgspec.json.encode(list(bundle.golden)),
    }
    entries = {
        name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()
    }
    manifest = msgspec.structs.replace(
        bundle.manifest, num_items=len(bundle.catalogue), files=entries
    )
    written = encode_manifest(manifest)
    _check_content(_decode(decode_manifest(written), files))
    uri = store.put(manifest.name, manifest.version, files | {MANIFEST: written}, last=MANIFEST)
    return _published(uri, written, manifest)


def find(store: Store, name: str, version: str) -> Published:
    """Return where a stored version is; raises BundleError when there is none."""
    uri = store.uri(name, version)
    written = _read(uri, MANIFEST, MAX_MANIFEST_BYTES)
    return _published(uri, written, decode_manifest(written))


def load(uri: str, manifest_sha256: str, *, max_bytes: int) -> Bundle:
    """Return the bundle at `uri`, or raise BundleError for the first check that fails.

    1. The manifest is the announced one.  2. Size cap.  3. Sizes and sha256.  4. Headers, names,
    dtypes, shapes.  5. Finite.  6. No zero row, unit norms.  7. Lists and catalogue in range.
    The version order, the index and the golden sessions are the caller's.
    """
    manifest = _read_manifest(uri, manifest_sha256)
    if manifest.num_bytes > max_bytes:
        raise BundleError("oversize", f"{manifest.num_bytes} bytes, at most {max_bytes}")
    files = {name: _read_listed(uri, name, manifest.files[name]) for name in _FILES}
    bundle = _decode(manifest, files)
    _check_content(bundle)
    return bundle


def prune(store: Store, name: str, *, keep: int = 5, protect: Sequence[str] = ()) -> list[str]:
    """Remove all but the newest `keep` versions and those in `protect`; return the removed."""
    versions = store.list(name, complete=MANIFEST)
    old = versions[: max(0, len(versions) - keep)]
    removed = [version for version in old if version not in protect]
    for version in removed:
        store.delete(name, version, first=MANIFEST)
    store.sweep(name)
    return removed


def _published(uri: str, written: bytes, manifest: Manifest) -> Published:
    num_bytes = manifest.num_bytes + len(written)
    return Published(uri, hashlib.sha256(written).hexdigest(), num_bytes, manifest)


def _read_manifest(uri: str, manifest_sha256: str) -> Manifest:
    data = _read(uri, MANIFEST, MAX_MANIFEST_BYTES)
    if hashlib.sha256(data).hexdigest() != manifest_sha256:
        raise BundleError("manifest_sha256", f"{uri}/{MANIFEST} is not the announced one")
    manifest = decode_manifest(data)
    if manifest.files.keys() != set(_FILES):
        raise BundleError("manifest", f"files are {sorted(manifest.files)}, not {sorted(_FILES)}")
    return manifest


def _read(uri: str, name: str, limit: int) -> bytes:
    try:
        data = read_file(uri, name, limit=limit)
    except (OSError, ValueError, ImportError) as error:  # the last two: a uri of no known store
        raise BundleError("missing", f"{uri}/{name}: {error}") from error
    if len(data) > limit:
        raise BundleError("size", f"{name} is larger than {limit} bytes")
    return data


def _read_listed(uri: str, name: str, entry: FileEntry) -> bytes:
    data = _read(uri, name, entry.bytes)
    if len(data) != entry.bytes:
        raise BundleError("size", f"{name}: {len(data)} bytes, listed {entry.bytes}")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError("sha256", f"{name} is not the listed one")
    return data


def _decode(manifest: Manifest, files: dict[str, bytes]) -> Bundle:
    encoder = _encoder(manifest.encoder, files[ENCODER])
    num_items, dim, num_lists = manifest.num_items, manifest.encoder.dim, manifest.index.num_lists
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {
        "vectors": ("F32", (num_items, dim)),
        "popularity": ("F32", (num_items,)),
    }
    if num_lists:
        shapes |= {"centroids": ("F32", (num_lists, dim)), "list_numbers": ("I32", (num_items,))}
    items = read_tensors(files[ITEMS], shapes)
    try:
        catalogue = Catalogue.from_json(files[CATALOGUE])
    except ValueError as error:
        raise BundleError("catalogue", str(error)) from error
    try:
        golden = msgspec.json.decode(files[GOLDEN], type=list[GoldenSession])
    except ValueError as error:
        raise BundleError("golden", str(error)) from error
    return Bundle(
        manifest=manifest,
        encoder=encoder,
        catalogue=catalogue,
        vectors_ND=items["vectors"],
        popularity_N=items["popularity"],
        centroids_CD=items.get("centroids"),
        list_numbers_N=items.get("list_numbers"),
        golden=golden,
    )


def _encoder(config: EncoderConfig, data: bytes) -> SessionEncoder:
    try:
        encoder = build_encoder(config)
    except ValueError as error:
        raise BundleError("manifest", str(error)) from error
    expected = encoder.state_dict()
    weights = read_tensors(data, {n: ("F32", tuple(t.shape)) for n, t in expected.items()})
    encoder.load_state_dict({name: torch.from_numpy(array) for name, array in weights.items()})
    return encoder.eval().requires_grad_(False)


def _weights(encoder: SessionEncoder) -> dict[str, Array]:
    return {name: tensor.detach().numpy() for name, tensor in encoder.state_dict().items()}


def _item_tensors(bundle: Bundle) -> dict[str, Array]:
    tensors: dict[str, Array] = {"vectors": bundle.vectors_ND, "popularity": bundle.popularity_N}
    if bundle.centroids_CD is not None and bundle.list_numbers_N is not None:
        tensors |= {"centroids": bundle.centroids_CD, "list_numbers": bundle.list_numbers_N}
    return tensors


def _check_content(bundle: Bundle) -> None:
    """Raise BundleError for values that must not serve."""
    tensors = _weights(bundle.encoder) | _item_tensors(bundle)
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise BundleError("non_finite", f"{name} holds NaN or infinity")
    norms_N = np.linalg.norm(bundle.vectors_ND, axis=1)
    if (norms_N == 0).any():
        raise BundleError("zero_row", f"item row {int(np.argmin(norms_N))} is zero")
    if (np.abs(norms_N - 1) > _NORM_TOLERANCE).any():
        raise BundleError("norm", f"item norms {norms_N.min():.4f} to {norms_N.max():.4f}, not 1")
    if (bundle.popularity_N < 0).any():
        raise BundleError("popularity", "a count is negative")
    lists_N, num_lists = bundle.list_numbers_N, bundle.manifest.index.num_lists
    if lists_N is not None and ((lists_N < 0) | (lists_N >= num_lists)).any():
        raise BundleError("lists", f"a list number is not in 0..{num_lists - 1}")
    if len(bundle.catalogue) != len(bundle.vectors_ND):
        raise BundleError(
            "catalogue", f"{len(bundle.catalogue)} ids for {len(bundle.vectors_ND)} vectors"
        )
