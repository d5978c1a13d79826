"""The clicks and the ranker of a version: stored whole, refused where compiled code would trip."""

import msgspec
import numpy as np
import pytest

from model.bundle import RecentClicks
from model.contents import check_content, decode_files, encode_files
from model.manifest import BundleError
from model.ranker import shapes

FEATURES = ("a", "b", "c")


@pytest.fixture
def make_fused(make_bundle):
    def make(*, rows=(0, 3, 29), to_before=(0, 1, 0), scale=1.0, weight=0.5):
        clicks = RecentClicks(
            np.array(rows, np.int32), np.arange(len(rows)), np.array(to_before, np.int32)
        )
        ranker = shapes(len(FEATURES))._replace(
            scale_F=np.full(len(FEATURES), scale, np.float32),
            linear_F=np.full(len(FEATURES), weight, np.float32),
        )
        bundle = make_bundle(clicks=clicks, ranker=ranker)
        manifest = msgspec.structs.replace(
            bundle.manifest, num_items=30, num_clicks=len(rows), features=FEATURES
        )
        return make_bundle(clicks=clicks, ranker=ranker, manifest=manifest)

    return make


def refusal(bundle, **manifest):
    manifest = msgspec.structs.replace(bundle.manifest, **manifest)
    with pytest.raises(BundleError) as refused:
        check_content(decode_files(manifest, encode_files(bundle)))
    return refused.value.reason


def test_clicks_and_ranker_come_back_as_they_were(make_fused):
    bundle = make_fused()

    read = decode_files(bundle.manifest, encode_files(bundle))

    check_content(read)
    assert read.ranker is not None
    for before, after in ((bundle.clicks, read.clicks), (bundle.ranker, read.ranker)):
        assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_a_version_may_have_neither(make_bundle):
    bundle = make_bundle()
    manifest = msgspec.structs.replace(bundle.manifest, num_items=30)

    read = decode_files(manifest, encode_files(bundle))

    check_content(read)
    assert (len(read.clicks.rows_E), read.ranker) == (0, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"rows": (0, 30, 1)}, "clicks"),
        ({"rows": (0, -1, 1)}, "clicks"),
        ({"to_before": (0, -1, 0)}, "clicks"),
        ({"scale": 0.0}, "ranker"),
        ({"weight": np.nan}, "non_finite"),
    ],
)
def test_values_that_must_not_serve_are_refused(make_fused, change, reason):
    assert refusal(make_fused(**change)) == reason


@pytest.mark.parametrize("change", [{"num_clicks": 2}, {"features": ("a", "b")}])
def test_another_number_of_clicks_or_features_is_refused(make_fused, change):
    assert refusal(make_fused(), **change) == "shape"


def test_a_ranker_without_named_features_is_refused(make_fused):
    assert refusal(make_fused(), features=()) == "extra_tensor"
