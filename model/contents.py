"""A version in memory, its four files as bytes, and what their values must be; knows no store.

Shapes: N items, D dimensions, C index lists.
"""

import hashlib
from collections.abc import Mapping, Sequence
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
from model.manifest import BundleError, Manifest
from model.tensors import Array, read_tensors, write_tensors

ENCODER: Final = "encoder.safetensors"
ITEMS: Final = "items.safetensors"
CATALOGUE: Final = "catalogue.json"
GOLDEN: Final = "golden.json"
FILES: Final = (ENCODER, ITEMS, CATALOGUE, GOLDEN)
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


def encode_files(bundle: Bundle) -> dict[str, bytes]:
    """Return the bytes of every file but the manifest."""
    return {
        ENCODER: write_tensors(_weights(bundle.encoder)),
        ITEMS: write_tensors(_item_tensors(bundle)),
        CATALOGUE: bundle.catalogue.to_json(),
        GOLDEN: msgspec.json.encode(list(bundle.golden)),
    }


def decode_files(manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Return the bundle in `files`; raises BundleError for a form that the manifest excludes.

    Its values are for `check_content`.
    """
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


def check_content(bundle: Bundle) -> None:
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
