"""The ledger: each offset is counted once, in a copy until its batch is committed."""

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
    ledger = Ledger(next_offset=3, log_time=12)
    ledger.enter(3, "skipped", "duplicate")
    ledger.enter(4, "dead", "id")

    assert Ledger.restored(ledger.marker(7, "v1")) == ledger
    assert ledger.marker(7, "v1").generation == 7
    assert ledger.marker(7, "v1", "exactly_once").guarantee == "exactly_once"
