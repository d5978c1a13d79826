"""Checkpoints on disk: named tensors and documents in one atomically renamed directory.

Knows nothing of what they mean. safetensors and JSON only, each file with its sha256; the last two
checkpoints are kept, so that a damaged one costs the clicks since the one before it.
"""

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import safetensors.torch
import structlog
from safetensors import SafetensorError
from torch import Tensor

log = structlog.get_logger(__name__)

_KEPT = 2
_MANIFEST = "manifest.json"
_TENSORS = ".safetensors"
_FORMAT = 3
_UNFINISHED = ".unfinished-"


class CheckpointError(RuntimeError):
    """There are checkpoints, and none can be read."""


class _Manifest(msgspec.Struct):
    format: int
    sha256: dict[str, str]


@dataclass(frozen=True)
class Content:
    """What a checkpoint holds: groups of tensors and JSON documents, by name."""

    tensors: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    documents: dict[str, bytes] = field(default_factory=dict)


def write(directory: Path, content: Content) -> Path:
    """Write a checkpoint in numbered steps; a crash leaves the earlier ones as they were.

    1. Write and sync every file in a temporary directory.  2. Write the manifest last.
    3. Rename the directory.  4. Remove all but the last two.
    """
    directory.mkdir(parents=True, exist_ok=True)
    numbers = _numbers(directory)
    number = numbers[-1] + 1 if numbers else 1
    temporary = directory / f"{_UNFINISHED}{number:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    sha256 = {name: _write_file(temporary / name, body) for name, body in _files(content).items()}
    _write_file(temporary / _MANIFEST, msgspec.json.encode(_Manifest(_FORMAT, sha256)))
    _sync(temporary)
    final = directory / f"{number:08d}"
    temporary.rename(final)
    _sync(directory)
    for old in [*numbers, number][:-_KEPT]:
        shutil.rmtree(directory / f"{old:08d}")
    return final


def read_latest(directory: Path) -> Content | None:
    """Return the newest readable checkpoint, None where there is none.

    Raises CheckpointError when there are some and all are damaged: starting anew would forget
    everything learnt, which is for an operator to decide.
    """
    numbers = _numbers(directory)
    damage = []
    for number in reversed(numbers):
        path = directory / f"{number:08d}"
        try:
            return _read(path)
        except (OSError, ValueError, SafetensorError, msgspec.DecodeError) as error:
            log.error("checkpoint is damaged", path=str(path), error=str(error))
            damage.append(f"{path}: {error}")
    if damage:
        raise CheckpointError(
            "no checkpoint can be read; restore one, or move the folder away to start anew: "
            + "; ".join(damage)
        )
    return None


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors of a group whose names begin so, named by the rest."""
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _files(content: Content) -> dict[str, bytes]:
    files = {name + _TENSORS: _pack(tensors) for name, tensors in content.tensors.items()}
    return files | {f"{name}.json": body for name, body in content.documents.items()}


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    return safetensors.torch.save({name: part.contiguous() for name, part in tensors.items()})


def _read(path: Path) -> Content:
    manifest = msgspec.json.decode((path / _MANIFEST).read_bytes(), type=_Manifest)
    if manifest.format != _FORMAT:
        raise ValueError(f"format {manifest.format}, this version reads {_FORMAT}")
    content = Content()
    for name, sha256 in manifest.sha256.items():
        if Path(name).name != name:
            raise ValueError(f"{name!r} is not a file name")
        body = (path / name).read_bytes()
        if hashlib.sha256(body).hexdigest() != sha256:
            raise ValueError(f"{name} does not have the sha256 of the manifest")
        if name.endswith(_TENSORS):
            content.tensors[name.removesuffix(_TENSORS)] = safetensors.torch.load(body)
        else:
            content.documents[name.removesuffix(".json")] = body
    return content


def _numbers(directory: Path) -> list[int]:
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def _write_file(path: Path, body: bytes) -> str:
    with path.open("wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
    return hashlib.sha256(body).hexdigest()


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
