"""Tensors of a safetensors file that nobody vouches for, checked; knows no model."""

import json
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from model.manifest import BundleError

MAX_HEADER_BYTES: Final = 1 << 20
_LENGTH_BYTES: Final = 8

Array = NDArray[Any]
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]


def write_tensors(tensors: Mapping[str, Array]) -> bytes:
    """Return a safetensors file."""
    return save({name: np.ascontiguousarray(array) for name, array in tensors.items()})


def read_tensors(data: bytes, expected: Shapes) -> dict[str, Array]:
    """Return exactly the `expected` tensors, {name: (dtype, shape)}.

    Raises BundleError `header`, `missing_tensor`, `extra_tensor`, `dtype`, `shape`; that offsets
    touch each other and sum to the file is checked by safetensors itself (`header`).
    """
    described = _header(data)
    if missing := expected.keys() - described.keys():
        raise BundleError("missing_tensor", ", ".join(sorted(missing)))
    if extra := described.keys() - expected.keys():
        raise BundleError("extra_tensor", ", ".join(sorted(map(repr, extra)))[:200])
    for name, (dtype, shape) in expected.items():
        if described[name].get("dtype") != dtype:
            raise BundleError("dtype", f"{name}: {described[name].get('dtype')!r}, not {dtype}")
        if described[name].get("shape") != list(shape):
            raise BundleError("shape", f"{name}: {described[name].get('shape')!r}, not {shape}")
    try:
        return load(data)
    except SafetensorError as error:
        raise BundleError("header", str(error)) from error


def _header(data: bytes) -> dict[str, dict[str, Any]]:
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    if len(data) < _LENGTH_BYTES or length > MAX_HEADER_BYTES:
        raise BundleError("header", f"header of {length} bytes, at most {MAX_HEADER_BYTES}")
    try:
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
    except (ValueError, RecursionError) as error:
        raise BundleError("header", "header is not JSON") from error
    if not isinstance(header, dict) or not all(isinstance(v, dict) for v in header.values()):
        raise BundleError("header", "header is not a table of tensors")
    header.pop("__metadata__", None)
    return header
