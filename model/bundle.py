"""One published version in the store: put, found, loaded, every byte checked; knows no Kafka."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

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

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Published:
    """Where a version is, and the hash that names its content."""

    uri: str
    manifest_sha256: str
    num_bytes: int
    manifest: Manifest


def publish(store: Store, bundle: Bundle) -> Published:
    """Store a bundle; raises BundleError for one that the loader would refuse.

    It is read back from its bytes first, so nothing is stored that does not load. The manifest is
    stored last, with the size and sha256 of every other file.
    """
    files = encode_files(bundle)
    entries = {
        name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()
    }
    manifest = msgspec.structs.replace(
        bundle.manifest,
        num_items=len(bundle.catalogue),
        num_clicks=len(bundle.clicks.rows_E),
        files=entries,
    )
    written = encode_manifest(manifest)
    check_content(decode_files(decode_manifest(written), files))
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
    files = {name: _read_listed(uri, name, manifest.files[name]) for name in FILES}
    bundle = decode_files(manifest, files)
    check_content(bundle)
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
    if manifest.files.keys() != set(FILES):
        raise BundleError("manifest", f"files are {sorted(manifest.files)}, not {sorted(FILES)}")
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
