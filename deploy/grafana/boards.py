"""Emits the Grafana boards from one table; knows metric names, not how they are measured.

    python deploy/grafana/boards.py

writes `boards/<name>.json` beside this file; a test fails when those are not up to date.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

BOARDS_DIR: Final = Path(__file__).parent / "boards"
DATASOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
COLUMNS: Final = 24
GRAPH_SIZE: Final = (8, 7)
STAT_SIZE: Final = (4, 4)
WORKER: Final = 'job="worker"'
WINDOW: Final = "[1m]"


class Panel(NamedTuple):
    """One panel: `kind` is stat or timeseries, queries are pairs of expression and legend."""

    title: str
    kind: str
    unit: str
    queries: list[tuple[str, str]]


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Return the summed per-second rate of a counter."""
    group = f" by ({by})" if by else ""
    return f"sum{group} (rate(nextclick_{metric}{{{where}}}{WINDOW}))"


def quantile(share: float, histogram: str, by: str = "") -> str:
    """Return a quantile of a histogram, over all processes."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', labels)})"


def share(part: str, whole: str) -> str:
    """Return the ratio of two rates; nothing where nothing happens."""
    return f"{part} / ({whole} > 0)"


LATENCY: Final = "recommendation_latency_seconds"
OVERVIEW: Final = [
    Panel("Clicks", "stat", "cps", [(rate("clicks_total", where=WORKER), "clicks/s")]),
    Panel("Latency p99", "stat", "s", [(quantile(0.99, LATENCY), "p99")]),
    Panel(
        "Next-click hit rate",
        "stat",
        "percentunit",
        [(share(rate("next_click_hits_total"), rate("next_click_evaluated_total")), "hit rate")],
    ),
    Panel(
        "Model age",
        "stat",
        "s",
        [(f"time() - max(nextclick_model_created_timestamp_seconds{{{WORKER}}})", "age")],
    ),
    Panel("Lag", "stat", "short", [(f"sum(nextclick_consumer_lag_records{{{WORKER}}})", "clicks")]),
    Panel("Live sessions", "stat", "short", [("sum(nextclick_sessions)", "users")]),
    Panel(
        "Outcomes of clicks",
        "timeseries",
        "cps",
        [
            (rate("recommendations_total", "source"), "recommended: {{source}}"),
            (rate("recommendations_repeated_total"), "repeated"),
            (rate("clicks_skipped_total", "reason", WORKER), "skipped: {{reason}}"),
            (rate("dead_letters_total", "reason"), "dead letter: {{reason}}"),
        ],
    ),
    Panel(
        "Latency, click append to commit",
        "timeseries",
        "s",
        [(quantile(0.5, LATENCY), "p50"), (quantile(0.99, LATENCY), "p99")],
    ),
    Panel(
        "Time per stage and second",
        "timeseries",
        "percentunit",
        [(rate("stage_duration_seconds_sum", "stage"), "{{stage}}")],
    ),
    Panel(
        "Next-click hit rate",
        "timeseries",
        "percentunit",
        [
            (
                share(
                    rate("next_click_hits_total", "arm"), rate("next_click_evaluated_total", "arm")
                ),
                "live: {{arm}}",
            ),
            ("max by (metric) (nextclick_trainer_prequential_ratio)", "trainer: {{metric}}"),
        ],
    ),
    Panel(
        "Lag per partition",
        "timeseries",
        "short",
        [("sum by (job, partition) (nextclick_consumer_lag_records)", "{{job}} {{partition}}")],
    ),
    Panel(
        "Model versions",
        "timeseries",
        "short",
        [
            ("count by (job, version) (nextclick_model_info)", "{{job}} {{version}}"),
            (rate("model_loads_total", "outcome, reason"), "load: {{outcome}} {{reason}}"),
            (rate("model_rollbacks_total", "outcome"), "rollback: {{outcome}}"),
        ],
    ),
    Panel(
        "Gate verdicts per second",
        "timeseries",
        "short",
        [
            (rate("trainer_gate_verdicts_total", "verdict, reason"), "{{verdict}} {{reason}}"),
            (rate("trainer_deltas_refused_total", "reason"), "delta refused: {{reason}}"),
        ],
    ),
    Panel(
        "Index",
        "timeseries",
        "short",
        [
            ("max by (part) (nextclick_index_items)", "items: {{part}}"),
            ("min(nextclick_index_recall_ratio)", "recall against exact search"),
        ],
    ),
    Panel(
        "Trouble",
        "timeseries",
        "short",
        [
            (rate("rebalances_total", "kind"), "rebalance: {{kind}}"),
            (rate("commit_failures_total", "reason"), "commit failed: {{reason}}"),
            (rate("fallbacks_total", "step"), "fallback: {{step}}"),
            ("max(nextclick_worker_breaker_open)", "stopped: too many dead letters"),
            (
                "max by (partition) (nextclick_partition_stalled_seconds)",
                "seconds not fetched: {{partition}}",
            ),
        ],
    ),
]
BOARDS: Final = {"overview": ("nextclick overview", OVERVIEW)}


def board(name: str) -> dict[str, Any]:
    """Return the board as Grafana reads it."""
    title, panels = BOARDS[name]
    return {
        "uid": f"nextclick-{name}",
        "title": title,
        "schemaVersion": 39,
        "tags": ["nextclick"],
        "time": {"from": "now-15m", "to": "now"},
        "refresh": "5s",
        "panels": _laid_out(panels),
    }


def _laid_out(panels: list[Panel]) -> list[dict[str, Any]]:
    """Place the panels from left to right, a row at a time."""
    result, left, top, row_height = [], 0, 0, 0
    for number, panel in enumerate(panels, start=1):
        width, height = STAT_SIZE if panel.kind == "stat" else GRAPH_SIZE
        if left + width > COLUMNS:
            left, top, row_height = 0, top + row_height, 0
        result.append(_panel(number, panel, {"x": left, "y": top, "w": width, "h": height}))
        left, row_height = left + width, max(row_height, height)
    return result


def _panel(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + index), "expr": expression, "legendFormat": legend}
        for index, (expression, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number,
        "title": panel.title,
        "type": panel.kind,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def text(name: str) -> str:
    """Return the text of the board's file."""
    return json.dumps(board(name), indent=2) + "\n"


if __name__ == "__main__":
    for board_name in BOARDS:
        (BOARDS_DIR / f"{board_name}.json").write_text(text(board_name))
