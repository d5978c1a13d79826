"""Items that no catalogue names yet: codes, vectors, admission."""

import numpy as np
import pytest

from worker import newcomers as module
from worker.newcomers import Newcomers


@pytest.fixture
def newcomers():
    return Newcomers(2)


def test_each_item_keeps_its_code_below_minus_one(newcomers):
    assert [newcomers.code(item) for item in ("a", "b", "a")] == [-2, -3, -2]
    assert newcomers.item_id(-3) == "b"
    assert len(newcomers) == 2


def test_a_vector_is_the_mean_of_its_queries_at_the_height_of_the_middle(newcomers):
    code = newcomers.code("a")

    newcomers.learn(code, np.array([1.0, 0.0], np.float32), 0.5)
    vector_D = newcomers.learn(code, np.array([0.0, 1.0], np.float32), 0.3)

    assert vector_D.tolist() == pytest.approx([0.25, 0.15])


def test_admitted_items_are_given_up(newcomers):
    for item in ("a", "b"):
        newcomers.code(item)

    assert newcomers.admit(lambda item: {"b": 7}.get(item, -1)) == {-3: 7}

    assert len(newcomers) == 1
    with pytest.raises(KeyError):
        newcomers.item_id(-3)
    assert newcomers.code("b") == -4


def test_codes_that_no_session_holds_are_freed_once_there_are_many(newcomers, monkeypatch):
    monkeypatch.setattr(module, "_MANY", 2)
    codes = [newcomers.code(item) for item in "abc"]

    newcomers.renew(4, lambda: {codes[1]})

    assert len(newcomers) == 1
    assert newcomers.item_id(codes[1]) == "b"


def test_a_newcomer_enters_the_lists_of_its_session_half_way_down(make_version):
    version, newcomers = make_version(), Newcomers(16)
    query_D = np.full(16, 0.25, np.float32)
    scores_BK, _ = version.index.search(query_D[None], 20)
    code = newcomers.code("a")

    version.index.add(code, newcomers.learn(code, query_D, float(scores_BK[0, 10])))

    _, codes_BK = version.index.search(query_D[None], 20)
    assert codes_BK[0].tolist().index(code) in (10, 11)


def test_another_versions_vectors_are_forgotten_but_not_the_codes(newcomers):
    code = newcomers.code("a")
    newcomers.learn(code, np.ones(2, np.float32), 1.0)

    newcomers.renew(3, set)

    assert newcomers.learn(code, np.ones(3, np.float32), 0.5).tolist() == [0.5] * 3
    assert newcomers.item_id(code) == "a"


def test_codes_with_a_vector_stay_and_rings_are_read_again_when_there_are_twice_as_many(
    newcomers, monkeypatch
):
    monkeypatch.setattr(module, "_MANY", 2)
    newcomers.learn(newcomers.code("learned"), np.ones(2, np.float32), 1.0)
    held = {newcomers.code(item) for item in "abc"}
    reads = []

    def codes_in_use():
        reads.append(len(newcomers))
        return held

    for n in range(9):
        newcomers.code(f"passing {n}")
        newcomers.trim(codes_in_use)

    assert reads == [5, 9]
    assert len(newcomers) == 4 + 3
    assert {newcomers.item_id(code) for code in (-2, *held)} == {"learned", "a", "b", "c"}


def test_an_item_whose_vector_is_given_up_learns_anew(newcomers):
    code = newcomers.code("a")
    newcomers.learn(code, np.ones(2, np.float32), 1.0)

    newcomers.unlearn(code)
    newcomers.unlearn(code)

    assert newcomers.learn(code, np.ones(2, np.float32), 0.5).tolist() == [0.5, 0.5]
