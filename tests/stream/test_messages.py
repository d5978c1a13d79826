"""Contracts: what decodes, what does not and why."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.decoding import DecodeError
from stream.messages import (
    MAX_CLICK_BYTES,
    ClickEvent,
    Gate,
    ModelAnnouncement,
    ModelName,
    Recommendation,
    RecommendedItem,
    Trigger,
    decode_announcement,
    decode_click,
    decode_recommendation,
    encode,
)

PLAIN = {"user_id": "u", "item_id": "i", "timestamp": 1_795_000_000_000}


def click_bytes(**changes: object) -> bytes:
    return json.dumps(PLAIN | changes, ensure_ascii=False).encode()


def with_raw(field: str, raw: bytes) -> bytes:
    """A click with one field whose JSON is written by hand, in place or as an unknown field."""
    fields = {name: json.dumps(value).encode() for name, value in PLAIN.items()} | {field: raw}
    return b"{" + b",".join(b'"%s":%s' % (k.encode(), v) for k, v in fields.items()) + b"}"


def announcement(**changes: object) -> ModelAnnouncement:
    fields: dict[str, object] = {
        "name": "default", "version": "v1", "kind": "bundle", "uri": "file:///m/v1",
        "manifest_sha256": "0" * 64, "bytes": 1, "created_at": 1, "encoder_version": "e",
        "trained_through": {0: 5}, "metrics": {"mrr": 0.2}, "gate": Gate(verdict="accepted"),
    }  # fmt: skip
    return ModelAnnouncement(**(fields | changes))


def recommendation() -> Recommendation:
    return Recommendation(
        recommendation_id="clicks/0/1",
        user_id="u",
        trigger=Trigger(item_id="i", timestamp=1),
        model=ModelName(name="default", version="v1"),
        policy="default",
        generated_at=2,
        items=[RecommendedItem(item_id="j", score=0.5, sources=["rnn"])],
    )


TAXONOMY = [
    # B1
    ("not JSON", b"click!", "malformed"),
    ("truncated", b'{"user_id": "u", "item', "malformed"),
    ("empty", b"", "malformed"),
    ("no value", None, "malformed"),
    ("null", b"null", "malformed"),
    ("trailing bytes", click_bytes() + b"x", "malformed"),
    ("not an object", b"[1]", "type"),
    # B2
    ("nested brackets", b"[" * 10_000, "hostile"),
    ("nested brackets in an unknown field", with_raw("x", b"[" * 10_000), "hostile"),
    # B3
    ("5000 digits", with_raw("timestamp", b"9" * 5_000), "range"),
    ("20 digits", with_raw("timestamp", b"9" * 20), "range"),
    ("just beyond 64 bits", with_raw("timestamp", b"9223372036854775808"), "range"),
    ("20 digits in context", with_raw("context", b'{"a":99999999999999999999}'), "range"),
    ("negative position", click_bytes(position=-1), "range"),
    ("17 context entries", click_bytes(context={str(n): n for n in range(17)}), "range"),
    # B4
    ("NaN", with_raw("timestamp", b"NaN"), "hostile"),
    ("NaN in an unknown field", with_raw("x", b"NaN"), "hostile"),
    ("Infinity", with_raw("context", b'{"a":-Infinity}'), "hostile"),
    ("1e999", with_raw("context", b'{"a":1e999}'), "hostile"),
    # B6
    ("lone surrogate", with_raw("user_id", rb'"\ud800"'), "malformed"),
    # B7
    ("UTF-16 with a mark", click_bytes().decode().encode("utf-16"), "encoding"),
    ("UTF-16 without a mark", click_bytes().decode().encode("utf-16-le"), "encoding"),
    ("byte order mark", b"\xef\xbb\xbf" + click_bytes(), "encoding"),
    ("invalid UTF-8", with_raw("user_id", b'"\xff"'), "encoding"),
    ("surrogate as UTF-8", with_raw("user_id", b'"\xed\xa0\x80"'), "encoding"),
    # B8
    ("true as time", click_bytes(timestamp=True), "type"),
    ("1.0 as time", click_bytes(timestamp=1.0), "type"),
    ("time without a zone", click_bytes(timestamp="2026-11-18T11:06:40"), "type"),
    ("month 13", click_bytes(timestamp="2026-13-18T11:06:40Z"), "type"),
    ("number as user", click_bytes(user_id=7), "type"),
    # missing
    ("no item", b'{"user_id": "u", "timestamp": 1}', "missing"),
    ("dated and no item", b'{"timestamp": "2026-11-18T11:06:40Z", "user_id": "u"}', "missing"),
    # B9
    ("empty id", click_bytes(user_id=""), "id"),
    ("NUL", with_raw("user_id", rb'"a\u0000"'), "id"),
    ("zero-width", click_bytes(user_id="a\u200bb"), "id"),
    ("bidi", click_bytes(item_id="a\u202eb"), "id"),
    ("not NFC", click_bytes(item_id="e\u0301"), "id"),
    ("129 bytes", click_bytes(user_id="a" * 129), "id"),
    ("65 characters of two bytes", click_bytes(user_id="é" * 65), "id"),
    ("bad session id", click_bytes(session_id="a\n"), "id"),
    ("empty event id", click_bytes(event_id=""), "id"),
    ("bad recommendation id", click_bytes(recommendation_id="a" * 129), "id"),
    # B10
    ("oversize", click_bytes(x="a" * MAX_CLICK_BYTES), "oversize"),
]


@pytest.mark.parametrize(
    ("value", "reason"), [case[1:] for case in TAXONOMY], ids=[case[0] for case in TAXONOMY]
)
def test_a_click_that_cannot_be_used_has_the_reason_of_the_taxonomy(value, reason):
    with pytest.raises(DecodeError) as caught:
        decode_click(value)

    assert caught.value.reason == reason
    assert caught.value.value == value


TWO_FAULTS = [
    ({"user_id": "7", "x": "NaN"}, "hostile"),
    ({"user_id": "7", "x": "1e999"}, "hostile"),
    ({"user_id": "7", "x": r'"\ud800'}, "malformed"),
    ({"user_id": "7", "x": "[" * 9_000}, "hostile"),
]


@pytest.mark.parametrize(("fields", "reason"), TWO_FAULTS, ids=lambda case: str(case)[:40])
def test_of_a_wrong_type_and_broken_syntax_the_syntax_is_named_in_any_order(fields, reason):
    for order in (list(fields.items()), list(fields.items())[::-1]):
        value = "{" + ",".join(f'"{name}":{raw}' for name, raw in order) + "}"
        with pytest.raises(DecodeError) as caught:
            decode_click(value.encode())

        assert caught.value.reason == reason


def test_only_user_item_and_time_are_required():
    assert decode_click(click_bytes()) == ClickEvent(**PLAIN)


def test_unknown_fields_are_ignored_and_a_repeated_key_takes_its_last_value():
    value = b'{"item_id":"x","new":{"a":[1]},"user_id":"u","timestamp":1,"item_id":"i"}'

    assert decode_click(value).item_id == "i"


@pytest.mark.parametrize("user_id", ["a b", "Zoë", "用户", "🙂", "a" * 128, "é" * 64])
def test_printable_ids_in_normal_form_up_to_128_bytes_are_accepted(user_id):
    assert decode_click(click_bytes(user_id=user_id)).user_id == user_id


@pytest.mark.parametrize(
    ("written", "milliseconds"),
    [
        ("2026-11-18T11:06:40Z", 1_795_000_000_000),
        ("2026-11-18T12:06:40.0129+01:00", 1_795_000_000_012),
        ("1970-01-02T00:00:00Z", 0),
        ("0001-01-01T00:00:00+14:00", 0),
    ],
)
def test_a_written_time_becomes_milliseconds(written, milliseconds):
    click = decode_click(click_bytes(timestamp=written, session_id="s"))

    assert click == ClickEvent(**(PLAIN | {"timestamp": milliseconds}), session_id="s")
    assert type(click) is ClickEvent


@pytest.mark.parametrize("timestamp", [-1, 0, 2**63 - 1, -(2**63)])
def test_any_64_bit_time_decodes_and_is_left_to_the_verdict(timestamp):
    assert decode_click(click_bytes(timestamp=timestamp)).timestamp == timestamp


@given(st.binary(max_size=400))
def test_no_bytes_raise_anything_but_a_decode_error(value):
    for decode in (decode_click, decode_recommendation, decode_announcement):
        with pytest.raises(DecodeError):
            decode(value)


ids = st.text(st.characters(categories=["L", "Nd", "P"], codec="ascii"), min_size=1, max_size=128)
clicks = st.builds(
    ClickEvent,
    user_id=ids,
    item_id=ids,
    timestamp=st.integers(-(2**63), 2**63 - 1),
    event_id=st.none() | ids,
    session_id=st.none() | ids,
    context=st.dictionaries(
        st.text(max_size=5),
        st.text(max_size=5)
        | st.booleans()
        | st.integers(-(2**63), 2**63 - 1)
        | st.floats(allow_nan=False, allow_infinity=False),
        max_size=16,
    ),
    consent=st.booleans(),
)


@given(clicks)
def test_a_click_survives_the_round_trip(click):
    assert decode_click(encode(click)) == click


def test_a_recommendation_survives_the_round_trip_and_leaves_absent_item_fields_out():
    value = encode(recommendation())

    assert decode_recommendation(value) == recommendation()
    assert json.loads(value)["items"] == [{"item_id": "j", "score": 0.5, "sources": ["rnn"]}]


def test_the_schema_number_is_always_written():
    for message in (ClickEvent(**PLAIN), recommendation(), announcement()):
        assert json.loads(encode(message))["schema"] == 1


def test_an_announcement_survives_the_round_trip():
    assert decode_announcement(encode(announcement())) == announcement()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"metrics": {"mrr": float("nan")}}, "finite"),
        ({"kind": "delta"}, "parent"),
    ],
)
def test_an_announcement_that_makes_no_sense_cannot_be_made(changes, text):
    with pytest.raises(ValueError, match=text):
        announcement(**changes)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("kind", "rumour", "type"),
        ("manifest_sha256", "xyz", "type"),
        ("share", 1.5, "range"),
        ("name", "a\u200b", "id"),
        ("uri", "", "range"),
    ],
)
def test_an_announcement_with_a_wrong_field_is_refused(field, value, reason):
    wrong = json.loads(encode(announcement())) | {field: value}

    with pytest.raises(DecodeError) as caught:
        decode_announcement(json.dumps(wrong).encode())

    assert caught.value.reason == reason


def test_an_announcement_over_64_kib_is_refused_before_parsing():
    with pytest.raises(DecodeError, match="oversize"):
        decode_announcement(b" " * (64 * 1024 + 1))
