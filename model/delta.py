"""What changed since a bundle: moved rows, new rows, fresh clicks; knows no session and no index.

A delta holds everything since the bundle that it names as its parent, so the newest one replaces
those before it. Encoder, ranker, temperature and index stay the bundle's
(docs/decisions/0010-deltas.md). Shapes: N items of the bundle, M changed rows, X new ones, D
dimensions, E clicks.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import msgspec
import numpy as np

from model.contents import (
    CATALOGUE,
    Bundle,
    Float32,
    Int32,
    RecentClicks,
    check_clicks,
    check_unit_rows,
)
from model.listed import MANIFEST, Stored, entries_of, read_listed, read_manifest
from model.manifest import (
    BundleError,
    DeltaManifest,
    IndexFacts,
    decode_delta_manifest,
    encode_manifest,
)
from model.store import Store
from model.tensors import read_tensors, write_tensors

DELTA: Final = "delta.safetensors"
DELTA_FILES: Final = (DELTA, CATALOGUE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delta:
    """One delta in memory; `new_ids` and `new_vectors_XD` are the rows after the bundle's last."""

    manifest: DeltaManifest
    rows_M: Int32
    vectors_MD: Float32
    new_ids: Sequence[str]
    new_vectors_XD: Float32
    clicks: RecentClicks


def publish_delta(store: Store, delta: Delta, *, num_items: int) -> Stored:
    """Store a delta of a bundle of `num_items`; raises BundleError for values that must not serve.

    The manifest is stored last, with the size and sha256 of every other file.
    """
    check_delta(delta, num_items)
    files = _encode(delta)
    manifest = msgspec.structs.replace(
        delta.manifest,
        num_changed=len(delta.rows_M),
        num_new=len(delta.new_ids),
        num_clicks=len(delta.clicks.rows_E),
        files=entries_of(files),
    )
    written = encode_manifest(manifest)
    # Not synced: one that a power cut damages is refused by its hash, the next one holds all of it.
    uri = store.put(
        *(manifest.name, manifest.version, files | {MANIFEST: written}),
        last=MANIFEST,
        durable=False,
    )
    num_bytes = sum(map(len, files.values())) + len(written)
    return Stored(uri, hashlib.sha256(written).hexdigest(), num_bytes)


def load_delta(
    uri: str, parent: Bundle, *, max_bytes: int, manifest_sha256: str | None = None
) -> Delta:
    """Return the delta of `parent` at `uri`, or raise BundleError for the first check that fails.

    1. The manifest is the announced one, if it was announced.  2. It names this parent.  3. Size
    cap, sizes and sha256.  4. Header, names, dtypes, shapes.  5. What `check_delta` asks.
    """
    manifest = decode_delta_manifest(read_manifest(uri, manifest_sha256))
    _check_parent(manifest, parent)
    files = read_listed(uri, manifest.files, DELTA_FILES, max_bytes=max_bytes)
    delta = _decode(manifest, files, dim=parent.vectors_ND.shape[1])
    check_delta(delta, len(parent.catalogue))
    return delta


def check_delta(delta: Delta, num_items: int) -> None:
    """Raise BundleError for values that a bundle of `num_items` must not be joined with."""
    check_unit_rows(delta.vectors_MD)
    check_unit_rows(delta.new_vectors_XD)
    rows_M = delta.rows_M
    if ((rows_M < 0) | (rows_M >= num_items)).any():
        raise BundleError("rows", f"a changed row is not in 0..{num_items - 1}")
    if len(np.unique(rows_M)) != len(rows_M):
        raise BundleError("rows", "a row changes twice")
    check_clicks(delta.clicks, num_items + len(delta.new_ids))


def join(parent: Bundle, delta: Delta) -> Bundle:
    """Return the version that a delta makes of its bundle; raises BundleError `catalogue`.

    It has no lists and no golden sessions: both describe the bundle's own vectors.
    """
    manifest = delta.manifest
    _check_parent(manifest, parent)
    try:
        catalogue = parent.catalogue.extended(delta.new_ids)
    except ValueError as error:
        raise BundleError("catalogue", str(error)) from error
    vectors_ND = np.concatenate([parent.vectors_ND, delta.new_vectors_XD])
    vectors_ND[delta.rows_M] = delta.vectors_MD
    no_counts = np.zeros(len(delta.new_ids), np.float32)
    clicks = parent.clicks.followed_by(delta.clicks)
    return replace(
        parent,
        manifest=msgspec.structs.replace(
            parent.manifest,
            version=manifest.version,
            parent=manifest.parent,
            created_at=manifest.created_at,
            trained_through=manifest.trained_through,
            index=IndexFacts(),
            num_items=len(catalogue),
            num_clicks=len(clicks.rows_E),
            files={},
        ),
        catalogue=catalogue,
        vectors_ND=vectors_ND,
        popularity_N=np.concatenate([parent.popularity_N, no_counts]),
        centroids_CD=None,
        list_numbers_N=None,
        golden=(),
        clicks=clicks,
    )


def _check_parent(manifest: DeltaManifest, parent: Bundle) -> None:
    named = (manifest.name, manifest.parent, manifest.encoder_version)
    actual = (parent.manifest.name, parent.manifest.version, parent.manifest.encoder_version)
    if named != actual:
        raise BundleError("parent", f"it changes {named}, not {actual}")


def _encode(delta: Delta) -> dict[str, bytes]:
    tensors = {
        "rows": delta.rows_M,
        "vectors": delta.vectors_MD,
        "new_vectors": delta.new_vectors_XD,
        **delta.clicks._asdict(),
    }
    return {DELTA: write_tensors(tensors), CATALOGUE: msgspec.json.encode(list(delta.new_ids))}


def _decode(manifest: DeltaManifest, files: Mapping[str, bytes], *, dim: int) -> Delta:
    changed, new, clicks = manifest.num_changed, manifest.num_new, manifest.num_clicks
    tensors = read_tensors(
        files[DELTA],
        {
            "rows": ("I32", (changed,)),
            "vectors": ("F32", (changed, dim)),
            "new_vectors": ("F32", (new, dim)),
            "rows_E": ("I32", (clicks,)),
            "times_E": ("I64", (clicks,)),
            "to_before_E": ("I32", (clicks,)),
        },
    )
    try:
        ids = msgspec.json.decode(files[CATALOGUE], type=list[str])
    except ValueError as error:
        raise BundleError("catalogue", str(error)) from error
    if len(ids) != new:
        raise BundleError("catalogue", f"{len(ids)} new ids for {new} vectors")
    return Delta(
        manifest=manifest,
        rows_M=tensors["rows"],
        vectors_MD=tensors["vectors"],
        new_ids=ids,
        new_vectors_XD=tensors["new_vectors"],
        clicks=RecentClicks(*(tensors[name] for name in RecentClicks._fields)),
    )
