import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.encoders.session_encoder import EncoderConfig
from model.manifest import (
    CHANNELS,
    BundleError,
    FileEntry,
    Manifest,
    decode_manifest,
    encode_manifest,
    new_version,
    version_time_ms,
)

MANIFEST = Manifest(
    name="default",
    version="20261123T055644123Z-1a2b3c4d",
    created_at=1,
    encoder_version="abc",
    encoder=EncoderConfig(dim=8),
    trained_through={10: 3, 2: 1},
    files={"b": FileEntry(1, "0" * 64), "a": FileEntry(2, "1" * 64)},
)
NOW_MS = st.integers(0, 4_000_000_000_000)


def test_a_version_is_its_time_and_its_content() -> None:
    version = new_version(1_795_413_404_123, "1a2b3c4d5e6f")

    assert version == "20261123T055644123Z-1a2b3c4d"
    assert version_time_ms(version) == 1_795_413_404_123


@given(first=NOW_MS, second=NOW_MS, hashes=st.tuples(st.sampled_from("09af"), st.just("5")))
def test_a_version_is_greater_than_the_one_before_whatever_the_clock_says(
    first: int, second: int, hashes: tuple[str, str]
) -> None:
    older = new_version(first, hashes[0] * 8)

    newer = new_version(second, hashes[1] * 8, after=older)

    assert newer > older


@given(NOW_MS, NOW_MS)
def test_versions_order_as_their_times(first: int, second: int) -> None:
    older, newer = sorted([first, second])

    assert new_version(older, "ffffffff")[:20] <= new_version(newer, "00000000")[:20]


@pytest.mark.parametrize("version", ["", "v1", "20261123T055644Z-ab", "20261123T055644123Z-"])
def test_a_name_of_another_form_has_no_time(version: str) -> None:
    with pytest.raises(ValueError, match="no version"):
        version_time_ms(version)


def test_a_manifest_is_read_back_and_its_json_is_canonical() -> None:
    data = encode_manifest(MANIFEST)

    again = decode_manifest(data)

    assert again == MANIFEST
    assert encode_manifest(again) == data
    assert data.index(b'"a"') < data.index(b'"b"')
    assert MANIFEST.num_bytes == 3


def test_fields_of_a_later_release_are_passed_over() -> None:
    fields = msgspec.json.decode(encode_manifest(MANIFEST))

    assert decode_manifest(msgspec.json.encode(fields | {"fusion": [1, 2]})) == MANIFEST


@pytest.mark.parametrize(
    "change",
    [
        {"version": "../../etc"},
        {"name": "a/b"},
        {"name": "a\n"},
        {"files": {"a": {"bytes": -1, "sha256": "0" * 64}}},
        {"files": {"a": {"bytes": 1, "sha256": "zz"}}},
        {"temperature": 0},
        {"temperature": None},
        {"dtype": "object"},
        {"num_items": -1},
        {"encoder": {"dim": 10**9}},
        {"encoder": {"window": 0}},
        {"index": {"recall": 2}},
        {"metrics": {"mrr": None}},
        {"channels": []},
        {"channels": ["rnn", "telepathy"]},
    ],
)
def test_a_manifest_out_of_bounds_is_refused(change: dict[str, object]) -> None:
    fields = msgspec.json.decode(encode_manifest(MANIFEST))

    with pytest.raises(BundleError) as refused:
        decode_manifest(msgspec.json.encode(fields | change))

    assert refused.value.reason == "manifest"


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b"\xff", b'{"x":' * 100_000])
def test_bytes_that_are_no_manifest_are_refused(data: bytes) -> None:
    with pytest.raises(BundleError) as refused:
        decode_manifest(data)

    assert refused.value.reason == "manifest"


def test_a_manifest_of_a_later_schema_is_refused_as_such() -> None:
    data = encode_manifest(msgspec.structs.replace(MANIFEST, schema=2))

    with pytest.raises(BundleError, match="this release reads 1") as refused:
        decode_manifest(data)

    assert refused.value.reason == "schema"


def test_numbers_that_are_not_finite_never_get_into_a_manifest() -> None:
    with pytest.raises(ValueError, match="finite"):
        msgspec.structs.replace(MANIFEST, metrics={"mrr": float("nan")})


def test_a_manifest_of_before_the_channels_means_all_of_them() -> None:
    fields = msgspec.json.decode(encode_manifest(MANIFEST))
    del fields["channels"]

    assert decode_manifest(msgspec.json.encode(fields)).channels == CHANNELS
