"""Headers of recommendations and of clicks."""

import json

import pytest

from stream.decoding import DecodeError
from stream.headers import (
    Provenance,
    RecommendationHeaders,
    click_body,
    parse_headers,
    provenance,
    traceparent_of,
)

STRUCTURED = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
CLICK = {"user_id": "u", "item_id": "i", "timestamp": 1}


def headers_of_batch(**changes: object) -> RecommendationHeaders:
    fields: dict[str, object] = {
        "topic": "shop.clicks", "partition": 3, "app": "shop", "generation": 7,
        "model_version": "v1", "time_ms": 1_795_000_000_012,
    }  # fmt: skip
    fields |= changes
    return RecommendationHeaders(fields.pop("topic"), fields.pop("partition"), **fields)


def test_a_recommendation_says_whence_it_came():
    headers = headers_of_batch().recommendation_headers(42, 5, 0xAB, replayed=True)

    assert provenance(headers) == Provenance(
        topic="shop.clicks", partition=3, offset=42, generation=7, model="v1", n=5, digest=0xAB,
        replayed=True,
    )  # fmt: skip


def test_a_first_answer_carries_no_replayed_and_no_trace_header():
    names = [name for name, _ in headers_of_batch().recommendation_headers(42, 5, 1)]

    assert "replayed" not in names
    assert "traceparent" not in names


def test_a_recommendation_is_a_cloud_event_in_binary_mode():
    batch = headers_of_batch()

    text = parse_headers(batch.recommendation_headers(42, 5, 1, traceparent=b"00-1-2-01"))

    assert {name: text[name] for name in text if name.startswith("ce_")} == {
        "ce_specversion": "1.0",
        "ce_id": "shop.clicks/3/42",
        "ce_source": "/nextclick/shop",
        "ce_type": "nextclick.recommendation.v1",
        "ce_time": "2026-11-18T11:06:40.012Z",
    }
    assert text["content-type"] == "application/json"
    assert text["traceparent"] == "00-1-2-01"
    assert text["src"] == batch.recommendation_id(42)


def test_headers_of_two_recommendations_do_not_share_a_list():
    batch = headers_of_batch()
    batch.recommendation_headers(1, 1, 1, replayed=True)

    assert not provenance(batch.recommendation_headers(2, 2, 2)).replayed


def test_null_binary_and_overlong_headers_are_left_out():
    headers = [("a", None), ("b", b"\xff"), ("c", b"x" * 2000), ("d", b"1"), ("d", b"2")]

    assert parse_headers(headers) == {"d": "2"}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [("src", b"clicks", "malformed"), ("n", b"x", "malformed"), ("gen", None, "missing")],
)
def test_headers_that_are_not_a_recommendations_are_refused(name, value, reason):
    headers = dict(headers_of_batch().recommendation_headers(1, 1, 1)) | {name: value}

    with pytest.raises(DecodeError) as caught:
        provenance(list(headers.items()))

    assert caught.value.reason == reason


def test_the_trace_context_is_passed_on_unread():
    assert traceparent_of([("x", b"1"), ("traceparent", b"\xff")]) == b"\xff"
    assert traceparent_of([("traceparent", None), ("traceparent", b"x" * 5000)]) is None


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", b"application/json"), ("ce_id", b"1"), ("ce_specversion", b"1.0")],
        [("content-type", None), ("other", b"\xff")],
    ],
)
def test_the_body_of_a_bare_or_binary_mode_click_is_its_value(headers):
    assert click_body(b"anything", headers) == b"anything"


def test_the_body_of_a_structured_mode_click_is_its_data():
    value = json.dumps({"specversion": "1.0", "id": "1", "type": "click", "data": CLICK}).encode()

    assert json.loads(click_body(value, STRUCTURED)) == CLICK


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "malformed"),
        (b"{", "malformed"),
        (b'{"id":"1"}', "missing"),
        (b"[]", "type"),
        (b'{"data":' + b"[" * 9000, "hostile"),
        (b"\xff\xfe{", "encoding"),
        (b" " * 16_385, "oversize"),
    ],
)
def test_a_broken_envelope_has_a_reason(value, reason):
    with pytest.raises(DecodeError) as caught:
        click_body(value, STRUCTURED)

    assert caught.value.reason == reason
