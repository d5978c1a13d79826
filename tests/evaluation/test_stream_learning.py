import time
from itertools import pairwise

import numpy as np
import pytest

from evaluation.recorded import Cut
from evaluation.stream_learning import RecordedFeed, StreamLearning, ticks
from evaluation.workshop import Workshop
from model.manifest import bundle_of
from trainer.publish import announcement
from trainer.settings import TrainerSettings

HOUR = 3_600_000


def test_ticks_are_a_grid_up_to_the_last_click():
    assert list(ticks(np.array([12, 31]), 10, 5, 31)) == [15, 20, 25, 30]
    assert list(ticks(np.array([100]), 0, 50, 99)) == [50]


def test_a_long_silence_is_skipped_to_the_tick_after_its_end():
    known = np.array([1_000, 100 * HOUR + 1])

    found = list(ticks(known, 0, HOUR, 100 * HOUR + 1))

    assert found == [HOUR * n for n in range(1, 7)]
    assert list(ticks(known, 0, HOUR, 102 * HOUR))[-2:] == [101 * HOUR, 102 * HOUR]


def test_the_feed_gives_the_clicks_that_were_offered_at_most_so_many_at_once(make_recorded):
    recorded = make_recorded([("s", f"i{n}", n) for n in range(10)], Cut(share=0.6))
    feed = RecordedFeed(recorded, max_poll=2)

    assert list(feed.poll(timeout_ms=0)) == []
    feed.offer(7)
    first, second = feed.poll(timeout_ms=0), feed.poll(timeout_ms=0)

    assert [reading.click.item_id for reading in first] == ["i4", "i5"]
    assert [reading.time_ms for reading in second] == [recorded.time_F[6]]
    assert feed.waiting == 0
    feed.start({}, start_from="earliest")
    assert feed.waiting == 3
    feed.start({0: 6}, start_from="earliest")
    assert feed.lag() == {0: 1}


@pytest.fixture
def learn(make_recorded, ring_rows, tmp_path):
    """Learn a short stream; returns the log, the learning and the reigns."""

    def run(delay_ms=0, **settings):
        recorded = make_recorded(ring_rows(1_500), Cut(share=0.25))
        values = {"publish_seconds": 300.0, "gate": {"min_clicks": 20}, **settings}
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        workshop = Workshop(folder, recorded, TrainerSettings.model_validate(values), 20)
        trained = workshop.first(recorded, lambda advance: None)
        first = workshop.load(announcement(trained.published))
        learning = StreamLearning(
            *(recorded, workshop, first), delay_ms=delay_ms, cpu_seconds=time.process_time
        )
        return recorded, learning, list(learning.reigns())

    return run


def is_bundle(reign):
    name = reign.version.name
    return bundle_of(name) == name


def test_versions_answer_the_whole_test_period_each_having_learnt_only_what_came_before(learn):
    recorded, learning, reigns = learn()

    assert reigns[0].start == recorded.first_test
    assert reigns[-1].stop == len(recorded)
    assert all(a.stop == b.start for a, b in pairwise(reigns))
    assert all(reign.start < reign.stop for reign in reigns)
    assert len(reigns) >= 5
    learnt = [reign.version.bundle.manifest.trained_through[0] for reign in reigns[1:]]
    assert all(through <= reign.start for through, reign in zip(learnt, reigns[1:], strict=True))
    assert learnt == sorted(set(learnt))
    assert len({reign.version.number for reign in reigns}) == len(reigns)
    assert learning.num_learnt > 0.9 * (len(recorded) - recorded.first_test)
    bundles = [reign for reign in reigns[1:] if is_bundle(reign)]
    assert 5 <= len(bundles) <= learning.verdicts["accepted"]
    assert learning.spent_seconds > 0


def test_a_delayed_click_is_in_no_version_before_it_is_old_enough(learn):
    delay_ms = 400_000

    recorded, learning, reigns = learn(delay_ms)

    assert len(reigns) > 2
    for reign in reigns[1:]:
        newest = recorded.time_F[reign.version.bundle.manifest.trained_through[0] - 1]
        assert newest + delay_ms < recorded.time_F[reign.start]
    assert learning.num_learnt < len(recorded) - recorded.first_test


def test_the_cadence_is_the_trainers_own(learn):
    _, _, often = learn(publish_seconds=1_000.0, delta_seconds=60.0)
    _, _, seldom = learn(publish_seconds=1_000.0, delta_seconds=10_000.0)

    assert [is_bundle(reign) for reign in seldom] == [True] * 3
    deltas = [reign.version for reign in often if not is_bundle(reign)]
    assert len(deltas) > 10
    assert {bundle_of(version.name) for version in deltas} == {
        reign.version.name for reign in often if is_bundle(reign)
    }
    assert all(len(version.bundle.clicks.rows_E) > 375 for version in deltas)


def test_a_delay_longer_than_the_test_period_leaves_the_first_version(learn):
    recorded, learning, reigns = learn(10**9)

    assert [(reign.start, reign.stop) for reign in reigns] == [(recorded.first_test, len(recorded))]
    assert learning.num_learnt == 0
