"""A version in memory, its files as bytes, and what their values must be; knows no store.

Shapes: N items, D dimensions, C index lists, E recent clicks, F features of the ranker.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import msgspec
import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray

from model.catalogue import Catalogue
from model.encoders.families import build_encoder
from model.encoders.session_encoder import EncoderConfig, SessionEncoder
from model.manifest import BundleError, Manifest
from model.ranker import RankerWeights, shapes
from model.tensors import Array, read_tensors, write_tensors

ENCODER: Final = "encoder.safetensors"
ITEMS: Final = "items.safetensors"
CATALOGUE: Final = "catalogue.json"
GOLDEN: Final = "golden.json"
CLICKS: Final = "clicks.safetensors"
RANKER: Final = "ranker.safetensors"
FILES: Final = (ENCODER, ITEMS, CATALOGUE, GOLDEN, CLICKS, RANKER)
_NORM_TOLERANCE: Final = 1e-3

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]


class RecentClicks(NamedTuple):
    """The latest clicks in log order: rows, unix ms, distance to the one before in the session."""

    rows_E: Int32
    times_E: Int64
    to_before_E: Int32

    def since(self, number: int) -> "RecentClicks":
        """Return the clicks from `number` on, counted from 0."""
        rows_E, times_E, to_before_E = self
        return RecentClicks(rows_E[number:], times_E[number:], to_before_E[number:])

    def followed_by(self, later: "RecentClicks") -> "RecentClicks":
        """Return these clicks and then the later ones."""
        return RecentClicks(
            np.concatenate([self.rows_E, later.rows_E]),
            np.concatenate([self.times_E, later.times_E]),
            np.concatenate([self.to_before_E, later.to_before_E]),
        )


def no_clicks() -> RecentClicks:
    """Return no clicks."""
    return RecentClicks(np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int32))


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
    clicks: RecentClicks = field(default_factory=no_clicks)
    ranker: RankerWeights | None = None


def encoder_version(encoder: SessionEncoder) -> str:
    """Return a name for the encoder's configuration and weights: equal states, equal name."""
    digest = hashlib.sha256(msgspec.json.encode(encoder.config))
    digest.update(write_tensors(_weights(encoder)))
    return digest.hexdigest()[:16]


def content_hash(encoder: SessionEncoder, vectors_ND: Float32, catalogue: Catalogue) -> str:
    """Return a hash of encoder, vectors and catalogue, for a version's name."""
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
        CLICKS: write_tensors(bundle.clicks._asdict()),
        RANKER: write_tensors(bundle.ranker._asdict() if bundle.ranker else {}),
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
        clicks=_clicks(manifest, files[CLICKS]),
        ranker=_ranker(manifest, files[RANKER]),
    )


def _clicks(manifest: Manifest, data: bytes) -> RecentClicks:
    size = (manifest.num_clicks,)
    tensors = read_tensors(
        data, {"rows_E": ("I32", size), "times_E": ("I64", size), "to_before_E": ("I32", size)}
    )
    return RecentClicks(**tensors)


def _ranker(manifest: Manifest, data: bytes) -> RankerWeights | None:
    if not manifest.features:
        read_tensors(data, {})
        return None
    expected = shapes(len(manifest.features))._asdict()
    return RankerWeights(**read_tensors(data, {n: ("F32", a.shape) for n, a in expected.items()}))


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
    tensors |= bundle.ranker._asdict() if bundle.ranker else {}
    for name, array in tensors.items():
        if not np.isfinite(array).all():
            raise BundleError("non_finite", f"{name} holds NaN or infinity")
    check_unit_rows(bundle.vectors_ND)
    if (bundle.popularity_N < 0).any():
        raise BundleError("popularity", "a count is negative")
    lists_N, num_lists = bundle.list_numbers_N, bundle.manifest.index.num_lists
    if lists_N is not None and ((lists_N < 0) | (lists_N >= num_lists)).any():
        raise BundleError("lists", f"a list number is not in 0..{num_lists - 1}")
    if len(bundle.catalogue) != len(bundle.vectors_ND):
        raise BundleError(
            "catalogue", f"{len(bundle.catalogue)} ids for {len(bundle.vectors_ND)} vectors"
        )
    check_clicks(bundle.clicks, len(bundle.vectors_ND))
    if bundle.ranker is not None and (bundle.ranker.scale_F <= 0).any():
        raise BundleError("ranker", "the scale of a feature is not above 0")


def check_unit_rows(vectors_ND: Float32) -> None:
    """Raise BundleError unless every item row is finite and of length one."""
    norms_N = np.sqrt(np.einsum("nd,nd->n", vectors_ND, vectors_ND))
    if not np.isfinite(norms_N).all():
        raise BundleError("non_finite", "an item row holds NaN or infinity")
    if (norms_N == 0).any():
        raise BundleError("zero_row", f"item row {int(np.argmin(norms_N))} is zero")
    if (np.abs(norms_N - 1) > _NORM_TOLERANCE).any():
        raise BundleError("norm", f"item norms {norms_N.min():.4f} to {norms_N.max():.4f}, not 1")


def check_clicks(clicks: RecentClicks, num_items: int) -> None:
    """Raise BundleError for clicks that compiled code must not follow: it checks nothing."""
    if ((clicks.rows_E < 0) | (clicks.rows_E >= num_items)).any():
        raise BundleError("clicks", "a click is on an item that is not in the catalogue")
    if (clicks.to_before_E < 0).any():
        raise BundleError("clicks", "a click comes before the one that its session had before it")
