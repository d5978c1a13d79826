"""Folders of immutable files, by name and version, over fsspec; knows nothing of their content.

On the local disk a folder appears by one atomic rename; an object store has no rename, there the
last file put, the manifest, makes it count.
"""

import os
import re
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import fsspec
from fsspec.implementations.local import LocalFileSystem

Buffer = bytes | bytearray | memoryview
_LABEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")
_HIDDEN: Final = "."  # no label starts with it: leftovers are never listed


class Store:
    """Versions under `<url>/<name>/<version>/`; `url` is a path or any fsspec URL."""

    def __init__(self, url: str) -> None:
        self._fs, root = fsspec.url_to_fs(url)
        self._root = str(root).rstrip("/")

    def put(
        self,
        name: str,
        version: str,
        files: Mapping[str, Buffer],
        *,
        last: str,
        durable: bool = True,
    ) -> str:
        """Store a version's files, `last` after all others, and return its uri.

        What is not `durable` appears as a whole too, but a power cut may leave it damaged.
        Raises FileExistsError for a version that is there: versions never change.
        """
        folder = self._folder(name, version)
        if self._fs.exists(folder):
            raise FileExistsError(f"{name}/{version} is already stored")
        ordered = {key: files[key] for key in files if key != last} | {last: files[last]}
        if isinstance(self._fs, LocalFileSystem):
            _put_local(Path(folder), ordered, durable=durable)
        else:
            for key, data in ordered.items():
                self._fs.pipe_file(f"{folder}/{key}", bytes(data))
        return str(self._fs.unstrip_protocol(folder))

    def list(self, name: str, *, complete: str) -> list[str]:
        """Return the versions that hold the file `complete`, in rising order."""
        folder = f"{self._root}/{_checked(name)}"
        self._fs.invalidate_cache()
        if not self._fs.exists(folder):
            return []
        versions = (entry.rstrip("/").rpartition("/")[2] for entry in self._fs.ls(folder, False))
        return sorted(
            version
            for version in versions
            if not version.startswith(_HIDDEN) and self._fs.exists(f"{folder}/{version}/{complete}")
        )

    def has(self, name: str, version: str) -> bool:
        """Return whether there is a folder for a version."""
        return bool(self._fs.exists(self._folder(name, version)))

    def uri(self, name: str, version: str) -> str:
        """Return where a version is, or would be."""
        return str(self._fs.unstrip_protocol(self._folder(name, version)))

    def delete(self, name: str, version: str, *, first: str) -> None:
        """Remove a version, beginning with the file `first`; no error when it is not there."""
        folder = self._folder(name, version)
        if not self._fs.exists(folder):
            return
        if isinstance(self._fs, LocalFileSystem):
            doomed = Path(folder).with_name(f"{_HIDDEN}del-{version}-{uuid.uuid4().hex}")
            Path(folder).rename(doomed)
            shutil.rmtree(doomed)
            return
        if self._fs.exists(f"{folder}/{first}"):
            self._fs.rm(f"{folder}/{first}")
        self._fs.rm(folder, recursive=True)

    def sweep(self, name: str) -> None:
        """Remove what an interrupted put or delete left behind; only for the one publisher."""
        if isinstance(self._fs, LocalFileSystem):
            for leftover in Path(f"{self._root}/{_checked(name)}").glob(f"{_HIDDEN}*"):
                shutil.rmtree(leftover)

    def _folder(self, name: str, version: str) -> str:
        return f"{self._root}/{_checked(name)}/{_checked(version)}"


def read_file(uri: str, file: str, *, limit: int) -> bytes:
    """Return a file of the folder at `uri`, at most `limit` + 1 bytes; raises FileNotFoundError."""
    filesystem, folder = fsspec.url_to_fs(uri)
    with filesystem.open(f"{folder}/{file}", "rb") as stream:
        data: bytes = stream.read(limit + 1)
    return data


def _checked(label: str) -> str:
    if not _LABEL.fullmatch(label):
        raise ValueError(f"{label!r} cannot be a folder: letters, digits and '._+-' only")
    return label


def _put_local(folder: Path, files: Mapping[str, Buffer], *, durable: bool) -> None:
    """Write in numbered steps, so that a crash leaves the whole folder or none.

    1. A hidden sibling.  2. Each file, synced.  3. The sibling, synced.  4. Rename, sync parent.
    Nothing is synced unless it is to be `durable`: that is most of the time of a small folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sibling = folder.with_name(f"{_HIDDEN}put-{folder.name}-{uuid.uuid4().hex}")
    sibling.mkdir()
    try:
        for file, data in files.items():
            with (sibling / file).open("xb") as stream:
                stream.write(data)
                if durable:
                    stream.flush()
                    os.fsync(stream.fileno())
        if durable:
            _sync_folder(sibling)
        sibling.rename(folder)
    except BaseException:
        shutil.rmtree(sibling, ignore_errors=True)
        raise
    if durable:
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    handle: Any = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
