"""Workers that are killed at every named point of the protocol, under both guarantees."""

import pytest

from benchmarks.chaos import crashing
from benchmarks.chaos.lives import run_seed
from benchmarks.chaos.versions import Versions
from benchmarks.under_load import NUM_ITEMS, Stage

pytestmark = [pytest.mark.kafka, pytest.mark.faults]
NUM_VERSIONS = 12
SEEDS = range(1, 1 + len(crashing.NAMES))  # in these, each fail-point has its turn twice
MAX_RECOVERY_SECONDS = 20.0  # other tests may share the machine


@pytest.fixture
def versions(tmp_path):
    """Stored versions, oldest first."""
    source = Versions(str(tmp_path / "models"), num_items=NUM_ITEMS, seed=0)
    return [source.publish() for _ in range(NUM_VERSIONS)]


@pytest.fixture
def stage(kafka, nursery, tmp_path, versions):
    """What a seed needs: brokers, a stored version, a source of worker processes."""
    return Stage(
        bootstrap_servers=kafka.bootstrap_servers,
        store_url=str(tmp_path / "models"),
        published=versions[0],
        nursery=nursery,
        directory=tmp_path / "workers",
    )


@pytest.mark.matrix("F1", "F2")
@pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])
@pytest.mark.parametrize("seed", SEEDS)
def test_kills_at_two_points_and_at_a_random_time_lose_nothing_and_apply_nothing_twice(
    seed, guarantee, stage, versions
):
    outcome = run_seed(
        seed, guarantee, stage, versions=versions[1:], max_recovery_seconds=MAX_RECOVERY_SECONDS
    )

    assert outcome.findings.violations == []
    assert outcome.missed == []
    assert outcome.kills == 3
    assert outcome.findings.clicks > 0
    assert (outcome.findings.lost, outcome.findings.applied_twice) == (0, 0)
    if guarantee == "exactly_once":
        assert outcome.findings.repeated == 0
