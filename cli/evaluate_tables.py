"""What `nextclick evaluate` prints: one JSON object, or tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

_SPEEDS = (
    ("train_clicks_per_second", "clicks/s trained (before the split, CPU time)"),
    ("learn_clicks_per_second", "clicks/s learnt from the stream (CPU time)"),
    ("predictions_per_second", "predictions/s (CPU time)"),
    ("versions", "versions that served"),
)


def print_report(report: dict[str, Any], *, as_json: bool) -> None:
    """Print a report: JSON in one line, or its figures, channels and slices as tables."""
    import msgspec

    from cli.tables import print_table

    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
        return
    log, k = report["log"], report["settings"]["k"]
    print_table((f"{log['name']}, {report['protocol']}", ""), _figures(report, k))
    columns = ("predictions", f"recall@{k}", f"mrr@{k}")
    channels = report["channels"] | {"lists": report}
    print_table(
        ("channel", *columns[1:]),
        [(name, *_cells(part, columns[1:])) for name, part in channels.items()],
    )
    for name, parts in report["slices"].items():
        title = name.replace("_", " ")
        print_table((title, *columns), [(p["slice"], *_cells(p, columns)) for p in parts])


def _figures(report: dict[str, Any], k: int) -> Iterator[tuple[str, str]]:
    log = report["log"]
    yield "clicks, items, sessions", f"{log['clicks']:,}, {log['items']:,}, {log['sessions']:,}"
    yield "predictions", f"{report['predictions']:,}"
    for name in (f"recall@{k}", f"mrr@{k}"):
        low, high = report["intervals"][name]
        yield name, f"{report[name]:.4f}  (95 %: {low:.4f} to {high:.4f})"
    for name in (f"ndcg@{k}", f"precision@{k}", f"recall_warm@{k}", "cold_targets"):
        yield name, f"{report[name]:.4f}"
    for name in (f"coverage@{k}", "gini", "intra_list_distance", "novelty", "short_lists"):
        yield name, f"{report[name]:.4f}"
    for name, title in _SPEEDS:
        if name in report:
            yield title, f"{report[name]:,}"
    if "gate_verdicts" in report:
        verdicts = (f"{count} {name}" for name, count in report["gate_verdicts"].items())
        yield "gate", ", ".join(verdicts) or "nothing to judge"
    yield "seconds", f"{report['seconds']:.1f}"


def _cells(part: dict[str, Any], names: tuple[str, ...]) -> list[str]:
    return [
        f"{part[name]:,}" if isinstance(part[name], int) else f"{part[name]:.4f}" for name in names
    ]
