"""The background Kafka's record: found while it runs, never mistaken for another process."""

import os
from pathlib import Path

import msgspec
import pytest

from stream.background_kafka import (
    STATE_FILE,
    AlreadyUpError,
    BackgroundKafka,
    BackgroundNode,
    bring_up,
    running_bootstrap_servers,
    state_directory,
    take_down,
)
from stream.local_kafka import LocalKafka


def record(state: Path, node: BackgroundNode) -> None:
    kafka = BackgroundKafka("127.0.0.1:1", str(state), 1, (node,))
    (state / STATE_FILE).write_bytes(msgspec.json.encode(kafka))


def this_process() -> BackgroundNode:
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    return BackgroundNode(node_id=1, pid=os.getpid(), started=int(stat[19]))


def test_a_running_process_is_found_by_its_record(tmp_path: Path) -> None:
    record(tmp_path, this_process())

    assert running_bootstrap_servers(tmp_path) == "127.0.0.1:1"


def test_a_process_that_only_has_the_same_id_is_neither_found_nor_stopped(tmp_path: Path) -> None:
    reused = msgspec.structs.replace(this_process(), started=this_process().started - 1)
    record(tmp_path, reused)

    assert running_bootstrap_servers(tmp_path) is None
    assert take_down(tmp_path) is None


def test_without_a_readable_record_nothing_runs(tmp_path: Path) -> None:
    assert running_bootstrap_servers(tmp_path) is None
    (tmp_path / STATE_FILE).write_bytes(b"{")
    assert running_bootstrap_servers(tmp_path) is None


def test_a_second_cluster_is_refused_while_one_runs(tmp_path: Path) -> None:
    record(tmp_path, this_process())

    with pytest.raises(AlreadyUpError, match="already up"):
        bring_up(LocalKafka(tmp_path / "data"), tmp_path)


def test_the_record_is_kept_under_the_users_state_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))

    assert state_directory() == tmp_path / "nextclick" / "kafka"
