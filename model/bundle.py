"""One published version in the store: put, found, loaded, every byte checked; knows no Kafka."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from model.contents import (
    FILES,
    Bundle,
    GoldenSession,
    RecentClicks,
    check_content,
    content_hash,
    decode_files,
    encode_files,
    encoder_version,
)
from model.listed import MANIFEST, Stored, entries_of, read_listed, read_manifest
from model.manifest import (
    BundleError,
    Manifest,
    bundle_of,
    decode_manifest,
    encode_manifest,
    new_version,
)
from model.store import Store

__all__ = [
    "Bundle",
    "BundleError",
    "GoldenSession",
    "Manifest",
    "Published",
    "RecentClicks",
    "content_hash",
    "encoder_version",
    "find",
    "load",
    "new_version",
    "prune",
    "publish",
]


@dataclass(frozen=True, slots=True)
class Published(Stored):
    """A stored bundle, with what its manifest says."""

    manifest: Manifest


def publish(store: Store, bundle: Bundle) -> Published:
    """Store a bundle; raises BundleError for one that the loader would refuse.

    It is read back from its bytes first, so nothing is stored that does not load. The manifest is
    stored last, with the size and sha256 of every other file.
    """
    files = encode_files(bundle)
    manifest = msgspec.structs.replace(
        bundle.manifest,
        num_items=len(bundle.catalogue),
        num_clicks=len(bundle.clicks.rows_E),
        files=entries_of(files),
    )
    written = encode_manifest(manifest)
    check_content(decode_files(decode_manifest(written), files))
    uri = store.put(manifest.name, manifest.version, files | {MANIFEST: written}, last=MANIFEST)
    return _published(uri, written, manifest)


def find(store: Store, name: str, version: str) -> Published:
    """Return where a stored version is; raises BundleError when there is none."""
    uri = store.uri(name, version)
    written = read_manifest(uri)
    return _published(uri, written, decode_manifest(written))


def load(uri: str, manifest_sha256: str, *, max_bytes: int) -> Bundle:
    """Return the bundle at `uri`, or raise BundleError for the first check that fails.

    1. The manifest is the announced one.  2. Size cap.  3. Sizes and sha256.  4. Headers, names,
    dtypes, shapes.  5. Finite.  6. No zero row, unit norms.  7. Lists and catalogue in range.
    The version order, the index and the golden sessions are the caller's.
    """
    manifest = decode_manifest(read_manifest(uri, manifest_sha256))
    bundle = decode_files(manifest, read_listed(uri, manifest.files, FILES, max_bytes=max_bytes))
    check_content(bundle)
    return bundle


def prune(store: Store, name: str, *, keep: int = 5, protect: Sequence[str] = ()) -> list[str]:
    """Remove all but the newest `keep` bundles and those in `protect`; return what was removed.

    A delta goes with its bundle.
    """
    versions = store.list(name, complete=MANIFEST)
    bundles = [version for version in versions if bundle_of(version) == version]
    kept = {*bundles[max(0, len(bundles) - keep) :], *protect}
    removed = [version for version in versions if bundle_of(version) not in kept]
    for version in removed:
        store.delete(name, version, first=MANIFEST)
    store.sweep(name)
    return removed


def _published(uri: str, written: bytes, manifest: Manifest) -> Published:
    num_bytes = manifest.num_bytes + len(written)
    return Published(uri, hashlib.sha256(written).hexdigest(), num_bytes, manifest)
