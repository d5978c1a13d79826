from dataclasses import replace
from itertools import pairwise
from unittest.mock import create_autospec

import numpy as np
import pytest

from evaluation import playback
from evaluation.playback import Playback
from evaluation.recorded import Cut
from evaluation.tally import Tally
from worker.fusion import Fusion
from worker.recommender import Clicks, advance, recommend
from worker.sessions import Sessions
from worker.settings import RankingSettings

K = 5
ITEMS = [f"i{n}" for n in range(40)]
NONE, SESSION = RankingSettings(k=K), RankingSettings(k=K, exclude="session")


class Lists(Tally):
    """A tally that keeps the lists, by the click that they predict."""

    def __init__(self, recorded):
        super().__init__(recorded)
        self.by_point = {}

    def add(self, points_B, lists_BK, distances_B, channels):
        super().add(points_B, lists_BK, distances_B, channels)
        self.by_point.update(zip(points_B.tolist(), lists_BK.tolist(), strict=True))


@pytest.fixture
def recorded(make_recorded):
    """Return interleaved sessions of one to sixty clicks, some on items that no version knows."""
    rng = np.random.default_rng(1)
    rows = []
    for number in range(900):
        session = int(rng.integers(number // 40 + 6)) if number % 3 else 0
        item = "new" if rng.random() < 0.1 else f"i{int(rng.integers(40))}"
        rows.append((session, item, number))
    return make_recorded(rows, Cut(share=0.5))


def play(recorded, versions, ranking=NONE, points=None):
    """Play the test period, its stretches under one version each."""
    points = recorded.predictions() if points is None else points
    lists = Lists(recorded)
    player = Playback(recorded, points, ranking, lists)
    edges = np.linspace(recorded.first_test, len(recorded), len(versions) + 1).astype(int)
    for number, (start, stop) in enumerate(pairwise(edges.tolist())):
        player.serve(versions[number])
        if not number:
            player.catch_up(recorded.first_test)
        player.play(start, stop, lambda done: None)
    return lists, player


def answered_alone(recorded, point, version, ranking=NONE):
    """Answer one click's session from nothing: its earlier clicks one by one, the last again."""
    sessions = Sessions(version.bundle.encoder.state_dim, max_live=10)
    slot = np.array([sessions.create(0, "alone")])
    before = np.flatnonzero(recorded.session_F[:point] == recorded.session_F[point])

    def click(position, repeat):
        item_id = recorded.item_ids[recorded.item_F[position]]
        row = version.bundle.catalogue.row(item_id)
        return Clicks(
            slot_B=slot,
            code_B=np.array([row if row >= 0 else -2], np.int32),
            time_B=recorded.time_F[[position]],
            offset_B=np.array([position]),
            session_hash_B=np.zeros(1, np.uint32),
            repeat_B=np.array([repeat]),
            item_ids=[item_id],
        )

    for position in before:
        advance(click(position, False), sessions, version, 2**62)
    last = click(before[-1], True)
    answers = recommend(
        last, sessions, version, ranking=ranking, idle_gap_ms=2**62, lap=lambda stage: None
    )
    ids = version.bundle.catalogue.ids
    number = {item_id: place for place, item_id in enumerate(recorded.item_ids)}
    return [number.get(ids[code], -1) for code in answers.lists.codes_BK[0] if code >= 0]


@pytest.mark.parametrize("size", [7, 64, 4_096])
@pytest.mark.parametrize("ranking", [NONE, SESSION])
def test_every_list_is_what_the_session_alone_would_get(
    recorded, make_version, monkeypatch, size, ranking
):
    monkeypatch.setattr(playback, "_STRETCH_CLICKS", size)
    version = make_version(ITEMS)

    lists, _ = play(recorded, [version], ranking)

    points = recorded.predictions().tolist()
    assert sorted(lists.by_point) == points
    for point in points[::11]:
        assert lists.by_point[point] == answered_alone(recorded, point, version, ranking)


def test_a_click_is_predicted_under_the_version_that_serves_at_its_time(recorded, make_version):
    versions = [make_version(ITEMS, seed=1), make_version(ITEMS, number=2, dim=12, seed=2)]

    lists, _ = play(recorded, versions)

    middle = (recorded.first_test + len(recorded)) // 2
    points = [p for p in recorded.predictions().tolist() if recorded.position_F[p] < 19]
    for point in (points[0], points[10], points[-10], points[-1]):
        version = versions[int(point >= middle)]
        assert lists.by_point[point] == answered_alone(recorded, point, version)


def test_an_item_that_a_version_brings_along_counts_in_sessions_that_clicked_it_before(
    recorded, make_version
):
    versions = [make_version(ITEMS), make_version([*ITEMS, "new"], number=2, seed=5)]

    lists, _ = play(recorded, versions)

    new, middle = recorded.item_ids.index("new"), (recorded.first_test + len(recorded)) // 2
    after_new = [
        p
        for p in recorded.predictions().tolist()
        if p >= middle
        and recorded.previous_F[p] < middle
        and recorded.item_F[recorded.previous_F[p]] == new
        and recorded.position_F[p] < 19
    ]
    assert after_new
    for point in after_new:
        assert lists.by_point[point] == answered_alone(recorded, point, versions[1])


def test_a_version_with_other_rows_is_refused(recorded, make_version):
    _, player = play(recorded, [make_version(ITEMS)])

    with pytest.raises(ValueError, match="other rows"):
        player.serve(make_version(ITEMS[::-1], number=2))


def test_items_of_the_session_are_recommended_unless_they_are_left_out(recorded, make_version):
    free, _ = play(recorded, [make_version(ITEMS)], NONE)
    strict, _ = play(recorded, [make_version(ITEMS)], SESSION)

    def seen(lists):
        count = 0
        for point, shown in lists.by_point.items():
            if recorded.position_F[point] <= 20:
                session = recorded.session_F[:point] == recorded.session_F[point]
                count += len(set(recorded.item_F[:point][session].tolist()) & set(shown))
        return count

    assert seen(free) > 0
    assert seen(strict) == 0


def test_only_the_chosen_clicks_are_predicted_and_all_are_applied(recorded, make_version):
    points = recorded.predictions(40, seed=3)
    version = make_version(ITEMS)

    some, _ = play(recorded, [version], points=points)
    everything, _ = play(recorded, [version])

    assert sorted(some.by_point) == points.tolist()
    assert all(some.by_point[p] == everything.by_point[p] for p in points.tolist())


def test_no_session_is_left_when_all_is_played(recorded, make_version):
    _, player = play(recorded, [make_version(ITEMS)])

    assert len(player._sessions) == 0
    assert (player._slot_S == -1).all()


def test_the_rnn_channel_is_ranked_on_its_own(recorded, make_version):
    lists, _ = play(recorded, [make_version(ITEMS)], SESSION)

    ranks = lists.channel_ranks()["rnn"]
    assert len(ranks) == len(lists)
    assert (ranks > 0).any()


def test_every_version_enters_before_it_answers(recorded, make_version):
    fusions = [create_autospec(Fusion, instance=True, spec_set=True) for _ in range(2)]
    first, second = (
        replace(make_version(ITEMS, number=n), fusion=fusion) for n, fusion in enumerate(fusions)
    )
    player = Playback(recorded, recorded.predictions(), NONE, Lists(recorded))

    player.serve(first)
    assert [fusion.enter.call_count for fusion in fusions] == [1, 0]
    player.serve(second)
    assert [fusion.enter.call_count for fusion in fusions] == [1, 1]
