"""Draws a report as PNG and SVG; the only place that knows matplotlib, which is optional."""

from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_FORMATS: Final = ("png", "svg")
_RECALL, _MRR = "#1f5fa8", "#c2571a"


def draw(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write recall over time and recall by slice into a folder; returns the files."""
    # Text stays text in an SVG; with a salt of its own equal figures are equal files.
    with mpl.rc_context({"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "nextclick"}):
        figures = {"recall_over_time": _over_time(report), "recall_by_slice": _by_slice(report)}
        files = []
        for name, figure in figures.items():
            for kind in _FORMATS:
                file = folder / f"{name}.{kind}"
                metadata = {"Date": None} if kind == "svg" else {}
                figure.savefig(file, dpi=150, metadata=metadata)
                files.append(file)
    return files


def _over_time(report: dict[str, Any]) -> Figure:
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = _plain(figure.subplots())
    parts, k = report["over_time"], report["settings"]["k"]
    times = [part["from_ms"] for part in parts] + [parts[-1]["to_ms"]]
    moments = np.array(times, "datetime64[ms]")
    for name, colour in ((f"recall@{k}", _RECALL), (f"mrr@{k}", _MRR)):
        values = [part[name] for part in parts]
        axes.step(moments, [*values, values[-1]], where="post", color=colour, label=name)
        axes.axhline(report[name], color=colour, linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("time of the click (UTC); dotted: over all")
    axes.legend(frameon=False, loc="best")
    axes.set_title(_title(report), loc="left")
    figure.autofmt_xdate()
    return figure


def _by_slice(report: dict[str, Any]) -> Figure:
    names = {
        "popularity": "item popularity, tenths by clicks before the split",
        "item_age": "time since the item's first click",
        "session_position": "earlier clicks in the session",
    }
    figure = Figure(figsize=(11, 4.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for axes, (name, label) in zip(panels, names.items(), strict=True):
        _bars(_plain(axes), report["slices"][name], f"recall@{report['settings']['k']}")
        axes.set_xlabel(label)
    figure.axes[0].set_ylabel(f"recall@{report['settings']['k']}")
    figure.suptitle(_title(report), x=0.01, ha="left")
    return figure


def _bars(axes: Axes, parts: list[dict[str, Any]], figure_name: str) -> None:
    """Draw a bar for each slice, as dark as its share of the predictions is large."""
    most = max(part["predictions"] for part in parts)
    for place, part in enumerate(parts):
        alpha = 0.25 + 0.75 * part["predictions"] / most
        axes.bar(place, part[figure_name], color=_RECALL, alpha=alpha)
        axes.annotate(
            f"{part['predictions']:,}",
            (place, part[figure_name]),
            *((0, 2), "data", "offset points"),
            ha="center",
            fontsize=6,
        )
    axes.set_xticks(range(len(parts)), [part["slice"] for part in parts], rotation=45, ha="right")
    axes.grid(axis="x", visible=False)


def _plain(axes: Axes) -> Axes:
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    axes.grid(color="0.9")
    return axes


def _title(report: dict[str, Any]) -> str:
    return f"{report['log']['name']}, {report['protocol']}, {report['predictions']:,} predictions"
