"""The worker's settings: bounds, no unknown names, a description for each."""

import pytest
from pydantic import BaseModel, ValidationError

from worker.breaker import BreakerSettings
from worker.settings import (
    BatchSettings,
    RankingSettings,
    SessionSettings,
    WorkerSettings,
)

SECTIONS = [WorkerSettings, BatchSettings, SessionSettings, RankingSettings, BreakerSettings]


def fields(section):
    """Every setting that is not a section of its own."""
    return {
        name: field
        for name, field in section.model_fields.items()
        if not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel))
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_has_a_default_and_a_description(section):
    assert section() == section()
    for name, field in fields(section).items():
        assert field.description, name


@pytest.mark.parametrize("section", SECTIONS)
def test_a_setting_cannot_change_nor_be_misspelt(section):
    with pytest.raises(ValidationError, match="frozen"):
        setattr(section(), next(iter(fields(section))), 1)
    with pytest.raises(ValidationError, match="modle"):
        section(modle=1)


@pytest.mark.parametrize(
    ("section", "name", "good", "bad"),
    [
        (BatchSettings, "max_clicks", [1, 10_000], [0, 10_001, "many"]),
        (BatchSettings, "max_wait_ms", [1, 5_000], [0, 5_001]),
        (SessionSettings, "idle_gap_minutes", [0.1, 10_080], [0, -1, 10_081, float("nan")]),
        (SessionSettings, "ttl_days", [0.5, 3_650], [0, 3_651]),
        (SessionSettings, "max_live", [1_000, 10**9], [999]),
        (RankingSettings, "k", [1, 200], [0, 201, 2.5]),
        (RankingSettings, "exclude", ["none", "current", "session"], ["all", "", None]),
        (RankingSettings, "diversity", [0, 0.99], [-0.1, 1, float("nan")]),
        (RankingSettings, "exploration", [0, 1], [-0.1, 1.1, float("nan")]),
        (RankingSettings, "name", ["x"], [""]),
        (BreakerSettings, "max_dead_share", [0.01, 1], [0, 1.1]),
        (BreakerSettings, "window_seconds", [1, 3_600], [0, 3_601]),
        (BreakerSettings, "min_clicks", [1, 1_000_000], [0, 1_000_001]),
        (WorkerSettings, "model", ["x"], [""]),
        (WorkerSettings, "start_from", ["earliest", "latest"], ["middle"]),
        (WorkerSettings, "on_gap", ["halt", "continue"], ["ignore"]),
        (WorkerSettings, "on_mismatch", ["halt", "accept", "rebuild"], ["ignore"]),
        (WorkerSettings, "stall_seconds", [1, 3_600], [0.5, 3_601]),
        (WorkerSettings, "max_bundle_mib", [1], [0]),
        (WorkerSettings, "recall_sample", [0, 1], [-0.1, 1.1]),
    ],
)
def test_each_setting_has_its_bounds(section, name, good, bad):
    for value in good:
        assert getattr(section(**{name: value}), name) == value
    for value in bad:
        with pytest.raises(ValidationError):
            section(**{name: value})


def test_every_setting_is_in_the_table_of_bounds():
    (mark,) = test_each_setting_has_its_bounds.pytestmark
    tested = {(section, name) for section, name, *_ in mark.args[1]}

    assert tested == {(section, name) for section in SECTIONS for name in fields(section)}
