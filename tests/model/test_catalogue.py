import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.catalogue import Catalogue

IDS = st.lists(st.text("abcdé0", min_size=1, max_size=4), unique=True, max_size=20)


def test_rows_are_positions_and_unknown_items_have_minus_one() -> None:
    catalogue = Catalogue(["a", "b", "c"])

    rows = catalogue.rows(iter(["c", "x", "a"]))

    assert rows.dtype == np.int64
    assert rows.tolist() == [2, -1, 0]
    assert (catalogue.row("b"), catalogue.row("x"), len(catalogue)) == (1, -1, 3)


def test_extending_keeps_every_row_and_leaves_the_original_alone() -> None:
    small = Catalogue(["a", "b"])

    large = small.extended(["c"])

    assert list(large.ids) == ["a", "b", "c"]
    assert large.row("c") == 2
    assert large.extends(small)
    assert not small.extends(large)
    assert small.row("c") == -1
    assert large == Catalogue(["a", "b", "c"])


def test_a_catalogue_with_exchanged_rows_is_no_extension() -> None:
    assert not Catalogue(["b", "a", "c"]).extends(Catalogue(["a", "b"]))


def test_the_digest_names_ids_and_their_order() -> None:
    assert Catalogue(["a", "b"]).digest == Catalogue(["a"]).extended(["b"]).digest
    assert Catalogue(["a", "b"]).digest != Catalogue(["b", "a"]).digest
    assert Catalogue(["ab"]).digest != Catalogue(["a", "b"]).digest


@pytest.mark.parametrize(
    "bad", ["", "x" * 129, "é" * 65, "line\nfeed", "\ud800", "e\u0301", "zero\u200bwidth"]
)
def test_an_id_that_no_click_can_carry_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not a valid item id"):
        Catalogue(["fine", bad])
    with pytest.raises(ValueError, match="not a valid item id"):
        Catalogue(["fine"]).extended([bad])


def test_an_id_that_comes_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Catalogue(["a", "a"])
    with pytest.raises(ValueError, match="twice"):
        Catalogue(["a"]).extended(["a"])


@given(IDS)
def test_json_gives_the_same_catalogue_back(ids: list[str]) -> None:
    catalogue = Catalogue(ids)

    again = Catalogue.from_json(catalogue.to_json())

    assert again == catalogue
    assert again.digest == catalogue.digest


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'["a","a"]', b'["\\ud800"]', b"\xff"])
def test_json_that_holds_no_catalogue_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        Catalogue.from_json(data)
