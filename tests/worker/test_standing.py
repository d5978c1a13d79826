"""What a session went on from is found after any crash: no violation on topics in memory."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SHARE = st.sampled_from([0.0, 0.3, 0.6, 1.0])
STEP = st.one_of(
    st.tuples(
        st.just("click"),
        st.sampled_from(["u1", "u2", "u3", "u4"]),
        st.sampled_from(["i1", "i2", "i3", "i39", "new0", "new1", "other"]),
        st.sampled_from([None, "s1", "s2"]),
        st.sampled_from([None, None, "e1", "e2", "e3"]),
        st.sampled_from([True, True, True, False]),
    ),
    st.tuples(st.just("batch"), st.integers(1, 8)),
    st.tuples(st.just("crash"), st.integers(1, 8), SHARE, SHARE),
    st.tuples(st.just("fail"), st.integers(1, 8), SHARE, SHARE),
    st.tuples(st.just("swap")),
)


LIMITS = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def run(world, steps):
    for step in steps:
        match step:
            case ("click", user, item, session, event, consent):
                # An evicted user's event ids are forgotten, which no replay of clicks can know.
                event = event if world.max_live > 10 else None
                fields = {"session_id": session, "event_id": event, "consent": consent}
                world.click(user, item, **fields)
            case ("batch", size):
                world.batch(size)
            case ("crash", size, *lost):
                world.crash_in_batch(size, lost)
            case ("fail", size, *lost):
                world.fail_in_batch(size, lost)
            case ("swap",):
                world.swap()
            case ("restart", guarantee):
                world.guarantee = guarantee
                world.start()
    world.finish()


@LIMITS
@given(steps=st.lists(STEP, max_size=40), max_live=st.sampled_from([2, 1000]))
def test_nothing_is_violated_by_any_sequence_of_crashes_failures_and_swaps(
    make_world, steps, max_live
):
    world = make_world(max_live=max_live)

    run(world, steps)

    report = world.verify()
    assert (report.violations, report.pending) == ([], 0)
    assert report.clicks == len(world.logs["clicks"])


@LIMITS
@given(steps=st.lists(STEP, max_size=40), max_live=st.sampled_from([2, 1000]))
def test_transactions_leave_every_outcome_once(make_world, steps, max_live):
    world = make_world(max_live=max_live, guarantee="exactly_once")

    run(world, steps)

    report = world.verify(exactly_once=bool(world.logs["clicks"]))
    assert (report.violations, report.repeated, report.stale_generations) == ([], 0, 0)


RESTART = st.tuples(st.just("restart"), st.sampled_from(["at_least_once", "exactly_once"]))


@LIMITS
@given(steps=st.lists(st.one_of(STEP, STEP, RESTART), max_size=40))
def test_the_guarantee_can_be_switched_at_any_restart_without_a_migration(make_world, steps):
    world = make_world()

    run(world, steps)

    assert world.verify().violations == []
