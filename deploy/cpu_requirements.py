"""Rewrites a hash-pinned lock for a machine without GPU; knows nothing of indexes or Docker.

    python cpu_requirements.py requirements.lock <sha256 of the CPU wheel of torch>[,<sha256>…]

The lock pins the default torch, which brings several gigabytes of CUDA. Printed is the same lock
with torch's CPU build instead, pinned by the given hash, and without the packages that only CUDA
needs.
"""

import re
import sys
from pathlib import Path

CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton\b|torch\b)")
SHA256 = re.compile(r"^[0-9a-f]{64}$")


def cpu_requirements(lock: str, hashes: list[str]) -> str:
    """Return the lock for CPU; raises ValueError for a malformed hash or a lock without torch."""
    if not all(SHA256.match(digest) for digest in hashes):
        raise ValueError(f"not a sha256 in hexadecimal: {','.join(hashes)}")
    version = re.search(r"^torch==([^\s+;\\]+)", lock, re.MULTILINE)
    if version is None:
        raise ValueError("the lock does not pin torch")
    kept = [block for block in _blocks(lock) if not CUDA_ONLY.match(block)]
    pins = "".join(f" \\\n    --hash=sha256:{digest}" for digest in hashes)
    return "".join(kept) + f"torch=={version[1]}+cpu{pins}\n"


def _blocks(lock: str) -> list[str]:
    """Split the lock into one block per package, its hashes and comments included."""
    return re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)


if __name__ == "__main__":
    sys.stdout.write(cpu_requirements(Path(sys.argv[1]).read_text(), sys.argv[2].split(",")))
