"""What a demo ends with: its figures as one JSON object or a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from cli.scoreboard import Scoreboard
    from worker.report import Report

_LAST_THIRD = 1 / 3
_SHOWN_VIOLATIONS = 20


def summarise(
    report: Report, board: Scoreboard, *, cpu_seconds: float, seconds: float
) -> dict[str, Any]:
    """Return the figures: outcomes from the ledger, the rest as seen by a consumer.

    The three hit rates are over the same clicks, the last third of the stream.
    """
    rates = board.hit_rates.last(_LAST_THIRD)
    latencies = board.latencies
    return {
        "clicks": report.clicks,
        "recommendations": report.recommendations,
        "dead_letters": report.dead_letters,
        "skipped": dict(report.skipped),
        "repeated": report.repeated,
        "model_versions": report.model_versions,
        "latency_ms": {
            "p50": latencies.percentile(0.5),
            "p99": latencies.percentile(0.99),
            "max": latencies.percentile(1.0),
        },
        "cpu_us_per_click": round(cpu_seconds * 1e6 / max(report.clicks, 1), 1),
        "next_click_hit_rate": {
            "last_third": _rounded(rates.model),
            "popularity": _rounded(rates.popularity),
            "best_reachable": _rounded(rates.best_reachable),
        },
        "violations": report.violations,
        "seconds": round(seconds, 1),
    }


def print_summary(summary: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures: JSON in one line, or a table."""
    import msgspec

    from cli.tables import print_table

    if as_json:
        typer.echo(msgspec.json.encode(summary).decode())
        return
    latency, rates = summary["latency_ms"], summary["next_click_hit_rate"]
    skipped = ", ".join(f"{count} {reason}" for reason, count in summary["skipped"].items())
    rows = [
        ("clicks", f"{summary['clicks']:,} in {summary['seconds']:.0f} s"),
        ("recommendations", f"{summary['recommendations']:,}"),
        ("dead letters, skipped", f"{summary['dead_letters']}, {skipped or 0}"),
        ("model versions that served", str(len(summary["model_versions"]))),
        ("latency", f"p50 {latency['p50']} ms, p99 {latency['p99']} ms"),
        ("worker", f"{summary['cpu_us_per_click']:.0f} µs of CPU per click"),
        ("next-click hit rate@20, last third", _percent(rates["last_third"])),
        ("  of the 20 most popular items", _percent(rates["popularity"])),
        ("  best reachable", _percent(rates["best_reachable"])),
        ("violations", str(len(summary["violations"]))),
    ]
    print_table(("nextclick demo", ""), rows)
    for violation in summary["violations"][:_SHOWN_VIOLATIONS]:
        typer.echo(violation)


def _rounded(rate: float | None) -> float | None:
    return None if rate is None else round(rate, 4)


def _percent(rate: float | None) -> str:
    return "unknown" if rate is None else f"{100 * rate:.1f} %"
