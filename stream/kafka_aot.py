"""The AOT cache (JEP 514) that halves a broker's start; it does not know clusters."""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
import time
from pathlib import Path

from stream.kafka_node import KafkaNode, KafkaStartError, await_started, free_ports
from stream.kafka_properties import CONTROLLER_ID, node_properties
from stream.kafka_runtime import KafkaRuntime

QUICK_COMPILER = "-XX:TieredStopAtLevel=1"
TRAINING_SECONDS = 120.0
MAX_CACHES = 3
_CLUSTER_ID = "nextclickTrainingRun00"


def fast_start_options(runtime: KafkaRuntime) -> tuple[str, ...]:
    """Return the JVM options for a quick start, making the AOT cache the first time."""
    path = _aot_cache(runtime)
    if path is None:
        return (QUICK_COMPILER,)
    return (QUICK_COMPILER, f"-XX:AOTCache={path}", "-Xlog:aot*=error")


def _aot_cache(runtime: KafkaRuntime) -> Path | None:
    """Return the AOT cache, or None: it is only for speed, so a start never depends on it.

    None also while another process makes it, and after a failure, which is not tried again.
    """
    if not runtime.supports_aot:
        return None
    path = runtime.cache / f"{_key(runtime)}.aot"
    failed = path.with_suffix(".failed")
    if path.exists() or failed.exists():
        return path if path.exists() else None
    try:
        return _make(path, runtime)
    except (OSError, KafkaStartError) as error:
        _remember(failed, str(error))
        return None


def _make(path: Path, runtime: KafkaRuntime) -> Path | None:
    runtime.cache.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".making").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        if not path.exists():
            with tempfile.TemporaryDirectory(prefix=".aot-", dir=runtime.cache) as scratch:
                _train(runtime, Path(scratch)).replace(path)
            _prune(runtime.cache)
    return path


def _prune(cache: Path) -> None:
    """Keep only the newest caches: each Java or Kafka that was ever used leaves 66 MB."""
    newest_first = sorted(cache.glob("*.aot"), key=lambda path: -path.stat().st_mtime_ns)
    for path in newest_first[MAX_CACHES:]:
        path.unlink(missing_ok=True)


def _train(runtime: KafkaRuntime, scratch: Path) -> Path:
    """Run a broker once; the JVM writes the cache when it ends."""
    deadline = time.monotonic() + TRAINING_SECONDS
    controller_port, port = free_ports(2)
    node = KafkaNode(CONTROLLER_ID, scratch, port, runtime, (QUICK_COMPILER,))
    node.configure(
        node_properties(
            CONTROLLER_ID,
            brokers=1,
            controller_port=controller_port,
            port=port,
            directory=scratch / "data",
        )
    )
    output = scratch / "cache.aot"
    try:
        node.begin_format(_CLUSTER_ID)
        node.end_format(deadline)
        node.start(f"-XX:AOTCacheOutput={output}")
        await_started([node], deadline)
        node.terminate()
        node.wait(deadline)
    finally:
        node.kill()
    return output


def _remember(failed: Path, reason: str) -> None:
    try:
        failed.write_text(reason, encoding="utf-8")
    except OSError:
        return  # a read-only cache: the next start tries again


def _key(runtime: KafkaRuntime) -> str:
    """Name the JVM and the jars: with any other of either, the JVM would refuse the cache."""
    release = runtime.java.parent.parent / "release"
    digest = hashlib.sha256(release.read_bytes() if release.exists() else b"")
    digest.update(str(runtime.java.resolve()).encode())
    for jar in runtime.class_path:
        digest.update(f"{jar}:{jar.stat().st_size}:{jar.stat().st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]
