"""Two results, figure by figure."""

import json
import sys

import pytest

from benchmarks import compare

BEFORE = {
    "cpu_us_per_click": 100.0,
    "stages_us": {"poll": 10.0, "rank": 0.0},
    "clicks_per_second": 1000,
    "index_recall": 0.99,
    "rows": [{"due_to_read_ms": {"p50": 5.0}}],
    "items": 100_000,
    "commit": "abc",
    "recall_sample": None,
}


def run(monkeypatch, tmp_path, now, *options):
    paths = [tmp_path / "before.json", tmp_path / "now.json"]
    for path, result in zip(paths, (BEFORE, now), strict=True):
        path.write_text(json.dumps(result))
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, paths), *options])
    return compare.main()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({}, 0),
        ({"cpu_us_per_click": 105.0}, 0),
        ({"cpu_us_per_click": 120.0}, 1),
        ({"cpu_us_per_click": 50.0}, 0),
        ({"stages_us": {"poll": 20.0}}, 1),
        ({"stages_us": {"rank": 20.0}}, 0),
        ({"clicks_per_second": 800}, 1),
        ({"clicks_per_second": 2000}, 0),
        ({"index_recall": 0.8}, 1),
        ({"rows": [{"due_to_read_ms": {"p50": 9.0}}]}, 1),
        ({"items": 10}, 0),
        ({"cpu_us_per_click": None}, 0),
    ],
)
def test_what_is_clearly_worse_makes_it_fail(monkeypatch, tmp_path, change, code):
    assert run(monkeypatch, tmp_path, BEFORE | change) == code


def test_the_tolerance_can_be_chosen(monkeypatch, tmp_path):
    now = BEFORE | {"cpu_us_per_click": 120.0}

    assert run(monkeypatch, tmp_path, now, "--tolerance", "0.25") == 0


def test_what_was_measured_otherwise_is_said_first(monkeypatch, tmp_path, capsys):
    run(monkeypatch, tmp_path, BEFORE | {"items": 10, "commit": "def"})

    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["differs: commit: abc -> def", "differs: items: 100000 -> 10"]
    assert lines[2].split() == ["cpu_us_per_click", "100", "100", "+0.0%"]
