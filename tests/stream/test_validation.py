"""The verdict on a click and the place where it must lie."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.messages import ClickEvent
from stream.validation import judge, partition_of, routed

LOG_TIME = 1_795_000_000_000
MINUTE = 60_000
TTL = 30 * 24 * 60 * MINUTE


def click(timestamp: int = LOG_TIME, **changes: object) -> ClickEvent:
    return ClickEvent(user_id="u", item_id="i", timestamp=timestamp, **changes)


@pytest.mark.parametrize(
    ("timestamp", "verdict"),
    [
        (LOG_TIME, LOG_TIME),
        (LOG_TIME - TTL, LOG_TIME - TTL),
        (LOG_TIME - TTL - 1, "ancient"),
        (LOG_TIME + 5 * MINUTE, LOG_TIME + 5 * MINUTE),
        (LOG_TIME + 5 * MINUTE + 1, LOG_TIME),
        (LOG_TIME // 1000, LOG_TIME),
        (LOG_TIME * 1000 + 7, LOG_TIME),
        (0, "ancient"),
        (-1, "ancient"),
        (-(2**63), "ancient"),
        (2**63 - 1, LOG_TIME),
    ],
)
def test_the_time_of_a_click_is_in_milliseconds_and_near_the_log(timestamp, verdict):
    assert judge(click(timestamp), LOG_TIME, ttl_ms=TTL) == verdict


def test_how_far_ahead_a_click_may_be_can_be_set():
    assert judge(click(LOG_TIME + 2), LOG_TIME, ttl_ms=TTL, future_ms=1) == LOG_TIME


@pytest.mark.parametrize("changes", [{"schema": 2}, {"type": "purchase"}, {"type": ""}])
def test_newer_schemas_and_unknown_actions_are_unsupported(changes):
    assert judge(click(**changes), LOG_TIME, ttl_ms=TTL) == "unsupported"


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**53), st.integers(0, 2**53))
def test_the_verdict_is_total_deterministic_and_never_ahead_of_the_log(timestamp, log_time, ttl):
    verdict = judge(click(timestamp), log_time, ttl_ms=ttl)

    assert verdict == judge(click(timestamp), log_time, ttl_ms=ttl)
    assert verdict == "ancient" or log_time - ttl <= verdict <= log_time + 5 * MINUTE


# From org.apache.kafka.common.utils.UtilsTest.testMurmur2.
JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize(("key", "murmur2"), JAVA.items())
def test_partitions_are_those_of_the_java_client(key, murmur2):
    assert partition_of(key, 12) == (murmur2 & 0x7FFFFFFF) % 12


def test_a_click_is_routed_when_it_lies_where_its_user_belongs():
    partition = partition_of("Zoë".encode(), 4)

    assert routed("Zoë", "Zoë".encode(), partition, 4)
    assert routed("Zoë", None, partition, 4)


def test_a_click_with_another_key_or_in_another_partition_is_misrouted():
    partition = partition_of(b"u", 4)

    assert not routed("u", b"v", partition, 4)
    assert not routed("u", b"", partition, 4)
    assert not routed("u", b"u", (partition + 1) % 4, 4)
    assert not routed("u", None, (partition + 1) % 4, 4)
