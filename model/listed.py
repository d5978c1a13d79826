"""Folders of files under a manifest that lists their sizes and hashes; knows no model."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from model.manifest import MAX_MANIFEST_BYTES, BundleError, FileEntry
from model.store import read_file

MANIFEST: Final = "manifest.json"


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a version is, and the hash that names its content."""

    uri: str
    manifest_sha256: str
    num_bytes: int


def entries_of(files: Mapping[str, bytes]) -> dict[str, FileEntry]:
    """Return the size and hash of each file, for the manifest."""
    return {
        name: FileEntry(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()
    }


def read_manifest(uri: str, manifest_sha256: str | None = None) -> bytes:
    """Return the manifest; raises BundleError unless it is there and is the announced one."""
    data = _read(uri, MANIFEST, MAX_MANIFEST_BYTES)
    if manifest_sha256 is not None and hashlib.sha256(data).hexdigest() != manifest_sha256:
        raise BundleError("manifest_sha256", f"{uri}/{MANIFEST} is not the announced one")
    return data


def read_listed(
    uri: str, listed: Mapping[str, FileEntry], names: tuple[str, ...], *, max_bytes: int
) -> dict[str, bytes]:
    """Return the files `names`, each as it is listed, or raise BundleError for the first fault.

    1. Nothing else is listed.  2. Size cap.  3. Size and sha256 of each.
    """
    if listed.keys() != set(names):
        raise BundleError("manifest", f"files are {sorted(listed)}, not {sorted(names)}")
    num_bytes = sum(entry.bytes for entry in listed.values())
    if num_bytes > max_bytes:
        raise BundleError("oversize", f"{num_bytes} bytes, at most {max_bytes}")
    return {name: _read_entry(uri, name, listed[name]) for name in names}


def _read_entry(uri: str, name: str, entry: FileEntry) -> bytes:
    data = _read(uri, name, entry.bytes)
    if len(data) != entry.bytes:
        raise BundleError("size", f"{name}: {len(data)} bytes, listed {entry.bytes}")
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise BundleError("sha256", f"{name} is not the listed one")
    return data


def _read(uri: str, name: str, limit: int) -> bytes:
    try:
        data = read_file(uri, name, limit=limit)
    except (OSError, ValueError, ImportError) as error:  # the last two: a uri of no known store
        raise BundleError("missing", f"{uri}/{name}: {error}") from error
    if len(data) > limit:
        raise BundleError("size", f"{name} is larger than {limit} bytes")
    return data
