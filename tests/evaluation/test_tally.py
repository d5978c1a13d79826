import numpy as np

from evaluation.recorded import Cut
from evaluation.tally import Tally


def test_ranks_come_in_log_order_however_they_were_added(make_recorded):
    rows = [("s", "a", 0), ("s", "b", 50), ("s", "c", 60), ("s", "a", 70)]
    tally = Tally(make_recorded(rows, Cut(share=0.5)))
    none = np.full(1, np.nan)

    tally.add(np.array([3]), np.array([[2, 0]]), none, {"rnn": np.array([[0, -1]])})
    tally.add(np.array([1]), np.array([[1, 0]]), none, {"rnn": np.array([[2, 0]])})

    points, ranks = tally.ranks()
    assert points.tolist() == [1, 3]
    assert ranks.tolist() == [1, 2]
    assert sorted(tally.channel_ranks()["rnn"].tolist()) == [0, 1]
    assert tally.exposure.shown_I.tolist() == [2, 1, 1]
    assert len(tally) == 2


def test_an_empty_tally_has_no_ranks(make_recorded):
    points, ranks = Tally(make_recorded([("s", "a", 0), ("s", "b", 50)])).ranks()

    assert len(points) == len(ranks) == 0
