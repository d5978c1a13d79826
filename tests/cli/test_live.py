"""What a demo shows while it runs."""

import io

import pytest
from rich.console import Console

from cli.hit_rates import Rates
from cli.live import LiveView, PlainView, Snapshot, make_view
from cli.scoreboard import Glimpse


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=120, color_system=None)


def snapshot(**more) -> Snapshot:
    fields = {
        "seconds": 12.0,
        "clicks": 3_600,
        "clicks_per_second": 300.4,
        "p50_ms": 12,
        "p99_ms": 61,
        "waiting": {0: 2, 1: 0},
        "rates": Rates(0.412, 0.109, 0.703),
        "version": "20261123T070332929Z-9a5daf05",
        "version_age_seconds": 7.0,
        "num_versions": 3,
        "verdicts": "accepted 3",
        "glimpses": [Glimpse("u7", ("i1", "i2"), [f"i{n}" for n in range(20)])],
    }
    return Snapshot(**fields | more)


def text_of(console: Console) -> str:
    return console.file.getvalue()


def test_elsewhere_than_on_a_terminal_each_state_is_a_line():
    console = Console(file=io.StringIO(), width=40)

    with make_view(console) as view:
        view.show(snapshot())
        view.show(Snapshot(seconds=0.0))

    first, second = text_of(console).splitlines()
    assert first.strip() == (
        "12 s | 3,600 clicks | 300/s | p50 12 ms p99 61 ms | lag 2 | hit rate 41.2 % "
        "(popularity 10.9 %, best reachable 70.3 %) | version 3, 7 s old"
    )
    assert "hit rate -" in second
    assert isinstance(view, PlainView)


def test_a_terminal_shows_figures_model_gate_and_users(terminal: Console):
    with make_view(terminal) as view:
        view.show(snapshot())

    text = text_of(terminal)
    assert isinstance(view, LiveView)
    for part in ("300 /s", "p50 12 ms", "by partition: 2 0", "41.2 %", "best reachable 70.3 %"):
        assert part in text
    for part in ("20261123T070332929Z-9a5daf05", "7 s old", "accepted 3", "u7", "i1 i2"):
        assert part in text
    assert "i0 i1 i2 i3 i4 i5 i6 i7 and 12 more" in text


def test_users_stay_long_enough_to_be_read(terminal: Console):
    later = [Glimpse("u8", ("i9",), ["i1"])]

    with make_view(terminal) as view:
        view.show(snapshot())
        view.show(snapshot(seconds=13.0, glimpses=later))
        assert "u8" not in text_of(terminal)
        view.show(snapshot(seconds=17.0, glimpses=later))

    assert "u8" in text_of(terminal)


def test_ids_are_shown_as_they_are(terminal: Console):
    odd = [Glimpse("[bold]u", ("[red]",), ["[/]"])]

    with make_view(terminal) as view:
        view.show(snapshot(glimpses=odd))

    for id_ in ("[bold]u", "[red]", "[/]"):
        assert id_ in text_of(terminal)
