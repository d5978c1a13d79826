"""Planted violations of order, copies and guarantee are found: on topics in memory."""

import msgspec
import pytest

from stream.changelog import MARKER_KEY, decode, encode_marker


@pytest.fixture
def served(make_world):
    """A world with answered clicks of three users and two dead letters."""
    world = make_world()
    for n in range(12):
        world.click(f"u{n % 3}", f"i{n}")
    for _ in range(2):
        world.append("clicks", b"u0", b"{", [])
    world.finish()
    return world


@pytest.fixture
def exact(served):
    """The same, committed exactly once."""
    mark(served, guarantee="exactly_once", exact_from=0)
    return served


def mark(world, **changes):
    """Append the last marker once more, changed."""
    last = [r for r in world.logs["sessions"] if r.key == MARKER_KEY][-1]
    marker = msgspec.structs.replace(decode(last), **changes)
    world.append("sessions", MARKER_KEY, encode_marker(marker), [])


def repeat(world, offset, **changes):
    """Append an answer once more, with other headers."""
    record = world.logs["recommendations"][offset]
    headers = [(key, changes.get(key, value)) for key, value in record.headers]
    headers += [("replayed", b"1")] if changes.get("replayed") else []
    world.append("recommendations", record.key, record.value, headers)


def test_what_was_committed_exactly_once_has_no_violation(exact):
    report = exact.verify(exactly_once=True)

    assert report.violations == []
    assert report.guarantees == {"exactly_once": 1}
    assert (report.lost, report.repeated, report.stale_generations) == (0, 0, 0)


def test_a_second_copy_is_a_violation_only_where_every_outcome_must_be_there_once(exact):
    repeat(exact, 3)

    assert "clicks/0/3: recommended 2 times, must be once" in exact.verify().violations

    mark(exact, exact_from=4)
    report = exact.verify()
    assert (report.violations, report.repeated) == ([], 1)


def test_a_second_dead_letter_is_found(exact):
    letter = exact.logs["clicks.dlq"][1]
    exact.append("clicks.dlq", letter.key, letter.value, letter.headers)

    assert exact.verify().violations == ["clicks/0/13: dead 2 times, must be once"]


def test_an_answer_that_is_marked_as_a_repeat_is_found(exact):
    record = exact.logs["recommendations"][2]
    exact.replace("recommendations", 2, headers=[*record.headers, ("replayed", b"1")])

    assert "clicks/0/2: answered as a repeat, must be answered once" in exact.verify().violations


def test_an_outcome_beyond_the_committed_offset_is_found(exact):
    exact.committed = 11
    mark(exact, next_offset=11, seen=11, recommended=11, dead=0)
    exact.logs["sessions"] = exact.logs["sessions"][-1:] + exact.logs["sessions"][:-1]

    assert "clicks/0/11: has an outcome, but only 11 is committed" in exact.verify().violations


@pytest.mark.parametrize(("committed", "word"), [(13, "above"), (15, "below")])
def test_a_transactions_marker_beside_the_committed_offset_is_found(exact, committed, word):
    exact.committed = committed

    assert (
        f"marker of partition 0: 14 is {word} the commit {committed}" in exact.verify().violations
    )


def test_at_least_once_the_marker_may_be_ahead(served):
    served.committed = 13

    assert served.verify().violations == []


def test_a_generation_that_falls_is_counted_and_found_in_transactions(served):
    record = served.logs["recommendations"][0]
    headers = [(key, b"9" if key == "gen" else value) for key, value in record.headers]
    served.replace("recommendations", 0, headers=headers)

    report = served.verify()
    assert (report.violations, report.stale_generations) == ([], 11)

    mark(served, guarantee="exactly_once", exact_from=1)
    assert served.verify().violations == []
    mark(served, guarantee="exactly_once", exact_from=0)
    assert "clicks/0/11: answered in generation 2 after 9" in served.verify().violations


def test_an_outcome_that_a_reader_of_first_copies_would_drop_is_found(served):
    log = served.logs["recommendations"]
    log[4], log[5] = (log[b]._replace(offset=log[a].offset) for a, b in ((4, 5), (5, 4)))

    assert served.verify().violations == [
        "clicks/0/4: first of its recommendations after that of 5: a reader that drops repeats "
        "loses it"
    ]


def test_a_dead_letter_that_a_reader_of_first_copies_would_drop_is_found(served):
    log = served.logs["clicks.dlq"]
    log[0], log[1] = (log[b]._replace(offset=log[a].offset) for a, b in ((0, 1), (1, 0)))

    (violation,) = served.verify().violations
    assert violation.startswith("clicks/0/12: first of its dead letters after that of 13")


def test_a_user_whose_clicks_do_not_count_up_one_by_one_is_found(exact):
    record = exact.logs["recommendations"][7]
    headers = [(key, b"7" if key == "n" else value) for key, value in record.headers]
    exact.replace("recommendations", 7, headers=headers)

    violations = exact.verify().violations

    assert "clicks/0/7: click 7 of its user, answered after click 2" in violations
    assert "clicks/0/10: click 4 of its user, answered after click 7" in violations


def test_an_answer_to_a_click_of_another_partition_is_found(served):
    repeat(served, 3, src=b"clicks/1/3")

    assert served.verify().violations == ["recommendations/0: 1 name clicks from elsewhere"]


@pytest.mark.parametrize(
    "changes", [{"guarantee": "at_least_once"}, {"guarantee": "exactly_once", "exact_from": 3}]
)
def test_less_than_exactly_once_from_the_first_click_on_is_found_when_it_is_required(
    exact, changes
):
    mark(exact, **changes)

    assert exact.verify().violations == []
    (violation,) = exact.verify(exactly_once=True).violations
    assert violation.endswith("on, must be exactly_once from 0 on")


def test_clicks_before_the_group_began_are_not_lost(make_world):
    world = make_world()
    for n in range(5):
        world.click("u", f"i{n}")
    world.committed = 5
    world.ledgers[0] = type(world.ledgers[0]).begun_at(5)
    world.click("u", "i7")
    world.finish()

    report = world.verify(start_from="latest")

    assert (report.violations, report.before_start, report.clicks) == ([], 5, 1)
    assert world.verify().violations == [
        "marker of partition 0: counts begin at 5, there are clicks from 0 on"
    ]


def test_clicks_that_were_passed_over_are_lost_and_must_be_on_record(make_world):
    world = make_world()
    for n in range(9):
        world.click(f"u{n % 2}", f"i{n}")
    world.batch(3)
    world.committed = 6
    world.ledgers[0].resume(6)
    world.finish()

    report = world.verify()
    assert report.violations == [f"clicks/0/{n}: lost, it has no outcome" for n in (3, 4, 5)]
    assert (report.lost, report.sessions) == (3, 2)

    mark(world, lost=2)
    assert any("and 2 lost, a replay gives 9" in v for v in world.verify().violations)


def test_a_rebuild_that_did_not_end_is_found(served):
    mark(served, next_offset=-1, rebuilt={"number": 1, "next_offset": 14, "version": "v"})

    assert any("rebuild of the sessions was not finished" in v for v in served.verify().violations)
