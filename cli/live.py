"""Shows a demo while it runs: live on a terminal, plain lines elsewhere; measures nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from cli.hit_rates import NO_RATES, Rates
from cli.scoreboard import Glimpse

_LIVE_SECONDS = 0.5
_PLAIN_SECONDS = 5.0
_HOLD_SECONDS = 4.0
_SHOWN_ITEMS = 8


@dataclass(frozen=True)
class Snapshot:
    """Everything that is shown at one moment."""

    seconds: float
    clicks: int = 0
    clicks_per_second: float = 0.0
    p50_ms: int | None = None
    p99_ms: int | None = None
    waiting: dict[int, int] = field(default_factory=dict)
    rates: Rates = NO_RATES
    version: str = ""
    version_age_seconds: float = 0.0
    num_versions: int = 0
    verdicts: str = ""
    glimpses: list[Glimpse] = field(default_factory=list)


class View(Protocol):
    """Something that can show snapshots, each `every_seconds`."""

    every_seconds: float

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End, leaving the last state on the screen."""

    def show(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""


def make_view(console: Console) -> View:
    """Return the view that suits where the text goes."""
    return LiveView(console) if console.is_terminal else PlainView(console)


class LiveView:
    """Redraws two tables twice a second; users stay long enough to be read."""

    def __init__(self, console: Console) -> None:
        self.every_seconds = _LIVE_SECONDS
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._glimpses: list[Glimpse] = []
        self._changed_at = -_HOLD_SECONDS

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, snapshot: Snapshot) -> None:
        """Redraw."""
        if snapshot.seconds - self._changed_at >= _HOLD_SECONDS and snapshot.glimpses:
            self._glimpses, self._changed_at = snapshot.glimpses, snapshot.seconds
        self._live.update(_drawn(snapshot, self._glimpses), refresh=True)


class PlainView:
    """Prints a line every few seconds."""

    def __init__(self, console: Console) -> None:
        self.every_seconds = _PLAIN_SECONDS
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, snapshot: Snapshot) -> None:
        """Print the line."""
        self._console.print(_line(snapshot), highlight=False, markup=False, soft_wrap=True)


def _line(now: Snapshot) -> str:
    model, popularity, best = (_percent(rate) for rate in now.rates)
    parts = [
        f"{now.seconds:5.0f} s",
        f"{now.clicks:,} clicks",
        f"{now.clicks_per_second:.0f}/s",
        f"p50 {_ms(now.p50_ms)} p99 {_ms(now.p99_ms)}",
        f"lag {sum(now.waiting.values())}",
        f"hit rate {model} (popularity {popularity}, best reachable {best})",
        f"version {now.num_versions}, {now.version_age_seconds:.0f} s old",
    ]
    return " | ".join(parts)


def _drawn(now: Snapshot, glimpses: Iterable[Glimpse]) -> RenderableType:
    return Panel(
        Group(_figures(now), Text(), _users(glimpses)),
        title="nextclick demo",
        subtitle=f"{now.seconds:.0f} s, Ctrl-C ends it",
        padding=(1, 2),
    )


def _figures(now: Snapshot) -> Table:
    model, popularity, best = (_percent(rate) for rate in now.rates)
    lags = " ".join(str(lag) for lag in now.waiting.values())
    table = Table.grid(padding=(0, 3))
    table.add_column(style="dim")
    table.add_column(style="bold")
    table.add_column(style="dim")
    table.add_row("clicks", f"{now.clicks_per_second:,.0f} /s", f"{now.clicks:,} so far")
    table.add_row("latency", f"p50 {_ms(now.p50_ms)}", f"p99 {_ms(now.p99_ms)}, append to append")
    table.add_row("lag", f"{sum(now.waiting.values())} clicks", f"by partition: {lags}")
    table.add_row(
        "next-click hit rate@20", model, f"best reachable {best}, popularity {popularity}"
    )
    table.add_row(
        "model", now.version, f"{now.version_age_seconds:.0f} s old, {now.num_versions} served"
    )
    table.add_row("trainer's gate", now.verdicts or "-", "")
    return table


def _users(glimpses: Iterable[Glimpse]) -> Table:
    table = Table("user", "last clicks", "next, best first", box=None, padding=(0, 3, 0, 0))
    for glimpse in glimpses:
        shown = " ".join(glimpse.recommended[:_SHOWN_ITEMS])
        more = len(glimpse.recommended) - _SHOWN_ITEMS
        tail = f" and {more} more" if more > 0 else ""
        table.add_row(Text(glimpse.user_id), Text(" ".join(glimpse.clicked)), Text(shown + tail))
    return table


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f} %"


def _ms(latency_ms: int | None) -> str:
    return "-" if latency_ms is None else f"{latency_ms} ms"
