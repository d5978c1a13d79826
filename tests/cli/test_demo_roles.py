"""The worker and the trainer as processes of a demo."""

from pathlib import Path

import pytest

from cli.demo_roles import RoleError, RoleProcess, Roles
from stream.kafka_node import free_ports


def children() -> set[str]:
    """The processes that this one has started and that have not ended."""
    threads = Path("/proc/self/task").glob("*/children")
    return {pid for thread in threads for pid in thread.read_text().split()}


@pytest.fixture
def role(tmp_path: Path) -> RoleProcess:
    config = tmp_path / "nextclick.toml"
    config.write_text("worker.batch.max_clicks = 0\n")
    return RoleProcess("worker", config, tmp_path / "worker.log", free_ports(1)[0])


def test_a_role_that_ends_is_an_error_with_the_end_of_its_log(role: RoleProcess):
    with pytest.raises(RoleError, match=r"exit code 78(.|\n)*max_clicks = 0"), Roles(role) as roles:
        roles.start(60)


def test_a_role_that_is_not_ready_in_time_is_an_error_and_does_not_survive(role: RoleProcess):
    before = children()

    with pytest.raises(RoleError, match="not ready after 0 s"), Roles(role) as roles:
        roles.start(0)

    assert children() == before


def test_metrics_of_a_role_that_does_not_answer_are_empty(role: RoleProcess):
    assert role.samples("process_cpu_seconds_total") == {}
    with pytest.raises(RoleError, match="does not answer"):
        role.cpu_seconds()
