"""The worker's metrics: counts that add up, one series per model, none for what is gone."""

from collections import Counter

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from worker.metrics import STAGES, StageClock, WorkerMetrics

BOUNDED = {
    *("version", "python", "name", "encoder", "source", "reason", "step", "stage", "arm"),
    *("topic", "partition", "kind", "outcome", "part"),
}


@pytest.fixture
def registry():
    return CollectorRegistry()


@pytest.fixture
def metrics(registry):
    return WorkerMetrics(registry)


@pytest.fixture
def value(registry):
    return lambda name, **labels: registry.get_sample_value(f"nextclick_{name}", labels)


@pytest.mark.parametrize(
    ("outcomes", "num_records"),
    [
        ({}, 0),
        ({}, 4),
        ({("recommended", "model"): 3}, 3),
        ({("recommended", "model"): 3, ("recommended", "popular"): 1}, 6),
        ({("dead", "range"): 2, ("dead", "id"): 1, ("skipped", "ancient"): 5}, 9),
    ],
)
def test_clicks_are_recommendations_dead_letters_and_skips(
    metrics, registry, outcomes, num_records
):
    for _ in range(2):
        metrics.count(Counter(outcomes), num_records=num_records)

    samples = [sample for family in registry.collect() for sample in family.samples]
    totals = Counter()
    for sample in samples:
        totals[sample.name.removeprefix("nextclick_")] += sample.value
    parts = ("recommendations_total", "dead_letters_total", "clicks_skipped_total")
    assert totals["clicks_total"] == sum(totals[part] for part in parts)
    assert totals["clicks_total"] == 2 * sum(outcomes.values())
    assert totals["recommendations_repeated_total"] == 2 * (num_records - sum(outcomes.values()))


def test_outcomes_are_told_apart_by_their_reasons(metrics, value):
    metrics.count(
        Counter({("dead", "range"): 2, ("skipped", "ancient"): 5, ("recommended", "popular"): 1}),
        num_records=8,
    )

    assert value("dead_letters_total", reason="range") == 2
    assert value("clicks_skipped_total", reason="ancient") == 5
    assert value("recommendations_total", source="popular") == 1


def test_a_swap_leaves_one_model(metrics, registry, value, make_version):
    metrics.swapped(make_version(1, version="v1"), 0.01)

    metrics.swapped(make_version(2, version="v2", ids=("a", "b")), 0.02)

    series = [
        sample.labels
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "nextclick_model_info"
    ]
    assert series == [{"name": "default", "version": "v2", "encoder": "v2"}]
    assert value("index_items", part="main") == 2
    assert value("model_created_timestamp_seconds") == 1_790_000_000
    assert value("model_swap_pause_seconds_count") == 2
    assert value("model_swap_pause_seconds_sum") == pytest.approx(0.03)


def test_a_partition_that_moved_away_has_no_lag(metrics, value):
    for partition in (0, 1):
        metrics.lag.labels("clicks", partition).set(5)
        metrics.lag_seconds.labels("clicks", partition).set(1)

    metrics.forget_partition("clicks", 1)
    metrics.forget_partition("clicks", 7)

    assert value("consumer_lag_records", topic="clicks", partition="0") == 5
    assert value("consumer_lag_records", topic="clicks", partition="1") is None
    assert value("consumer_lag_seconds", topic="clicks", partition="1") is None


def test_every_metric_is_ours_described_and_of_bounded_labels(metrics, registry):
    names = [family.name for family in registry.collect()]

    assert all(name.startswith("nextclick_") for name in names)
    assert all(family.documentation for family in registry.collect())
    labels = {label for m in vars(metrics).values() for label in getattr(m, "_labelnames", ())}
    assert labels <= BOUNDED
    assert b"nextclick_build_info{" in generate_latest(registry)


def test_two_processes_in_one_share_nothing(metrics, value):
    other = WorkerMetrics(CollectorRegistry())

    other.count(Counter({("dead", "id"): 1}), num_records=1)

    assert value("clicks_total") == 0


def test_a_batch_is_timed_stage_by_stage_without_the_pause_between(metrics, value):
    ticks = iter([0.0, *(n * 1.0 for n in range(1, 2 * len(STAGES) + 4))])
    clock = StageClock(metrics, now=lambda: next(ticks))

    for _ in range(2):
        clock.start()
        for stage in STAGES:
            clock.lap(stage)

    assert {value("stage_duration_seconds_sum", stage=stage) for stage in STAGES} == {2.0}
    assert {value("stage_duration_seconds_count", stage=stage) for stage in STAGES} == {2}
    with pytest.raises(KeyError):
        clock.lap("lunch")
