"""The ledger: each offset is counted once, in a copy until its batch is committed."""

from stream.changelog import AT_LEAST_ONCE, EXACTLY_ONCE, Rebuilt
from worker.ledger import Ledger


def test_an_offset_is_counted_once():
    ledger = Ledger(next_offset=5)

    assert ledger.enter(5, "recommended", "model")
    assert ledger.enter(7, "skipped", "ancient")
    assert ledger.enter(8, "dead", "range")
    assert not ledger.enter(7, "skipped", "ancient")

    assert (ledger.seen, ledger.recommended, ledger.dead) == (3, 1, 1)
    assert ledger.skipped == {"ancient": 1}
    assert ledger.next_offset == 9
    assert ledger.is_repeat(6)
    assert not ledger.is_repeat(9)


def test_a_copy_is_independent():
    ledger = Ledger()
    ledger.enter(0, "skipped", "ancient")

    copy = ledger.copy()
    copy.enter(1, "skipped", "ancient")
    copy.log_time = 9

    assert (ledger.seen, ledger.skipped["ancient"], ledger.log_time) == (1, 1, 0)


def test_a_marker_brings_everything_back():
    ledger = Ledger.begun_at(3, Rebuilt(2, 3, "v0"))
    ledger.log_time = 12
    ledger.enter(3, "skipped", "duplicate")
    ledger.enter(4, "dead", "id")
    ledger.resume(7)

    marker = ledger.marker(7, "v1", EXACTLY_ONCE)

    assert Ledger.restored(marker) == ledger
    assert (marker.generation, marker.guarantee) == (7, EXACTLY_ONCE)
    assert (marker.start, marker.seen, marker.lost, marker.next_offset) == (3, 2, 2, 7)


def test_clicks_between_the_marker_and_a_later_offset_are_lost():
    ledger = Ledger.restored(Ledger(next_offset=5).marker(1, "v"))

    assert ledger.resume(9) == 4

    assert (ledger.next_offset, ledger.lost, ledger.behind, ledger.on_record) == (
        9,
        4,
        False,
        False,
    )


def test_while_clicks_are_answered_again_a_marker_promises_no_more_than_at_least_once():
    ledger = Ledger.restored(Ledger(next_offset=5).marker(1, "v", EXACTLY_ONCE))

    assert ledger.resume(2) == 0
    for offset in (2, 3):
        ledger.enter(offset, "recommended", "model")
    amid = ledger.marker(1, "v", EXACTLY_ONCE)
    ledger.enter(4, "recommended", "model")
    through = ledger.marker(1, "v", EXACTLY_ONCE)

    assert (amid.next_offset, amid.guarantee, amid.agrees_with(4)) == (5, AT_LEAST_ONCE, True)
    assert (through.guarantee, through.exact_from, through.seen) == (EXACTLY_ONCE, 5, 0)


def test_outcomes_are_exactly_once_from_where_the_guarantee_changed():
    ledger = Ledger.begun_at(0)
    ledger.enter(0, "dead", "id")

    switched = Ledger.restored(ledger.marker(1, "v"))
    switched.enter(1, "dead", "id")
    again = Ledger.restored(switched.marker(1, "v", EXACTLY_ONCE))
    again.enter(2, "dead", "id")

    assert ledger.marker(1, "v").exact_from == 1
    assert again.marker(1, "v", EXACTLY_ONCE).exact_from == 1
    assert again.marker(1, "v").exact_from == 3
