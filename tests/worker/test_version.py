"""A version as it serves: its names, and popular items by falling share."""

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from index.item_index import IndexPlan, ItemIndex
from model.catalogue import Catalogue
from worker.version import delta_version, serving_version


@pytest.fixture
def serve(make_bundle):
    """Make a version of items with the given click counts."""

    def make(counts, num_popular):
        popularity_N = np.array(counts, np.float32)
        bundle = make_bundle(ids=tuple(f"i{n}" for n in range(len(counts))), version="v7")
        bundle = replace(bundle, popularity_N=popularity_N)
        index = ItemIndex.build(bundle.vectors_ND, IndexPlan())
        return serving_version(bundle, index, 3, num_popular)

    return make


@pytest.mark.parametrize(
    ("counts", "num_popular", "rows", "shares"),
    [
        ([1, 5, 4], 2, [1, 2], [0.5, 0.4]),
        ([1, 5, 4], 9, [1, 2, 0], [0.5, 0.4, 0.1]),
        ([2, 3, 2, 3], 4, [1, 3, 0, 2], [0.3, 0.3, 0.2, 0.2]),
        ([0, 0, 0], 2, [0, 1], [0, 0]),
        ([0.25, 0.25], 2, [0, 1], [0.25, 0.25]),
    ],
)
def test_popular_items_come_by_falling_share_and_ties_by_row(
    serve, counts, num_popular, rows, shares
):
    version = serve(counts, num_popular)

    assert version.popular_rows_P.tolist() == rows
    assert version.popular_scores_P.tolist() == pytest.approx(shares)


def test_a_version_is_named_by_its_manifest_and_never_changes(serve):
    version = serve([1, 2], 1)

    assert (version.number, version.name, version.encoder_version) == (3, "v7", "v7")
    with pytest.raises(FrozenInstanceError):
        version.number = 4


def test_a_deltas_version_has_its_own_name_number_and_vectors(serve, make_delta):
    parent = serve([1, 5, 4], 2)
    delta = make_delta(parent.bundle, num_changed=1, new_ids=["new"])

    version = delta_version(parent, delta, 9)

    assert (version.name, version.number) == ("v7+0001", 9)
    assert version.encoder_version == parent.encoder_version
    assert version.bundle.catalogue.row("new") == 3
    rows_B = version.index.search(version.bundle.vectors_ND, 1)[1][:, 0]
    assert rows_B.tolist() == [0, 1, 2, 3]
    assert version.popular_rows_P.tolist() == [1, 2]
    assert parent.index.search(version.bundle.vectors_ND[3:], 1)[1][0, 0] != 3


def test_what_was_shown_counts_on_in_the_next_version_unless_its_rows_mean_other_items(
    make_fused, make_delta
):
    def served(bundle, number):
        index = ItemIndex.build(bundle.vectors_ND, IndexPlan())
        return serving_version(bundle, index, number, 9)

    first, second = served(make_fused(), 1), served(make_fused(), 2)
    delta = delta_version(first, make_delta(first.bundle, new_ids=["new"]), 3)
    other = make_fused()
    other = served(replace(other, catalogue=Catalogue(list(other.catalogue.ids)[::-1])), 4)
    new_item = np.array([len(first.bundle.catalogue)])

    first.enter()
    first.fusion.shown.add(np.array([7, 7]))
    delta.enter(first)
    delta.fusion.shown.add(new_item)
    second.enter(delta)
    other.enter(second)

    assert delta.fusion.shown.of(np.append(new_item, 7)).tolist() == [1, 2]
    assert second.fusion.shown.of(np.array([7])).tolist() == [0], "it does not know the new item"
    assert other.fusion.shown.of(np.array([7])).tolist() == [0]
