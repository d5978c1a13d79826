"""From answers to records: lists as JSON, where each record goes, sessions that come back."""

from types import SimpleNamespace

import numpy as np
import pytest

from index.features import NEAR, NEIGHBOURS, POPULAR, SESSION
from stream.changelog import MARKER_KEY, Entry, Marker, decode
from stream.dead_letters import parse
from stream.decoding import DecodeError
from stream.headers import parse_headers, provenance
from stream.messages import ClickEvent, decode_recommendation
from stream.settings import TopicSettings
from worker.intake import Dead, Judged
from worker.ledger import Ledger
from worker.newcomers import Newcomers
from worker.outputs import Writer, session_values
from worker.ranking import Lists
from worker.restore import place_session
from worker.sessions import EMPTY, EVENT_RING, RING, Sessions
from worker.settings import RankingSettings

NOW_MS = 1_790_000_000_000
NAMES = {-2: "brand new"} | {n: f"i{n}" for n in range(200)}
TOPICS = TopicSettings(clicks="c", recommendations="r", sessions="s", dead_letters="d")


@pytest.fixture
def writer():
    return Writer(TOPICS, RankingSettings(name="front page"), app="shop", app_version="1.2")


@pytest.fixture
def answered(writer, make_record, make_version):
    """Write one answer per (partition, offset, codes, popular_from); returns the sends."""

    def run(*rows, scores=(0.5,), repeat=False, headers=(), brought_by=NEAR):
        judged = [
            Judged(
                make_record(offset, partition=partition)._replace(headers=list(headers)),
                ClickEvent(user_id="u1", item_id="i5", timestamp=7, session_id="s"),
                NOW_MS,
            )
            for partition, offset, _, _ in rows
        ]
        num = len(rows)
        seated = SimpleNamespace(
            judged=judged, clicks=SimpleNamespace(repeat_B=np.full(num, repeat))
        )
        codes_BK = np.array([codes for _, _, codes, _ in rows])
        scores_BK = np.resize(np.array(scores, np.float32), codes_BK.shape)
        popular_from_B = np.array([row[3] for row in rows])
        popular_BK = np.arange(codes_BK.shape[1]) >= popular_from_B[:, None]
        sources_BK = np.where(popular_BK, POPULAR, brought_by)
        answers = SimpleNamespace(
            tried=None,
            lists=Lists(codes_BK, scores_BK, sources_BK, popular_from_B),
            sessions=SimpleNamespace(n_B=np.arange(num) + 1, digest_B=np.arange(num) + 0xAB),
        )
        return list(
            writer.recommendations(
                *(seated, answers, make_version()),
                generation=4,
                now_ms=NOW_MS + 5,
                item_name=NAMES.__getitem__,
            )
        )

    return run


@pytest.mark.parametrize(
    ("codes", "popular_from", "items", "sources", "fallback"),
    [
        ([3, 1, 2], 3, ["i3", "i1", "i2"], ["rnn", "rnn", "rnn"], None),
        ([3, -2, 2], 3, ["i3", "brand new", "i2"], ["rnn", "new", "rnn"], None),
        ([3, 1, 2], 1, ["i3", "i1", "i2"], ["rnn", "popular", "popular"], None),
        ([-2, 1, EMPTY], 1, ["brand new", "i1"], ["new", "popular"], None),
        ([3, 1, 2], 0, ["i3", "i1", "i2"], ["popular"] * 3, "cold"),
        ([3, EMPTY, EMPTY], 1, ["i3"], ["rnn"], None),
        ([EMPTY, EMPTY, EMPTY], 0, [], [], "cold"),
    ],
)
def test_each_item_says_where_it_comes_from(
    answered, codes, popular_from, items, sources, fallback
):
    (send,) = answered((0, 0, codes, popular_from))

    answer = decode_recommendation(send.value)
    assert [item.item_id for item in answer.items] == items
    assert [source for item in answer.items for source in item.sources] == sources
    assert answer.fallback == fallback


def test_an_item_that_several_channels_brought_names_all_of_them(answered):
    (send,) = answered((0, 0, [1], 1), brought_by=NEAR | NEIGHBOURS | SESSION)

    (item,) = decode_recommendation(send.value).items
    assert item.sources == ["rnn", "knn", "session"]


def test_an_answer_states_its_click_policy_and_time(answered, make_version):
    (send,) = answered((0, 0, [1], 1), scores=(0.123456,))

    answer = decode_recommendation(send.value)
    assert (answer.policy, answer.generated_at, answer.session_id) == (
        "front page",
        NOW_MS + 5,
        "s",
    )
    assert (answer.trigger.item_id, answer.trigger.timestamp) == ("i5", NOW_MS)
    assert (answer.model.name, answer.model.version) == ("default", make_version().name)
    assert answer.items[0].score == 0.1235


def test_answers_go_to_the_partitions_of_their_clicks_in_their_order(answered):
    sends = answered(*((p, 10 + n, [1], 1) for n, p in enumerate([2, 0, 2])))

    assert [(send.topic, send.partition, send.key) for send in sends] == [
        ("r", 2, b"u1"), ("r", 0, b"u1"), ("r", 2, b"u1"),
    ]  # fmt: skip
    found = [provenance(send.headers) for send in sends]
    assert [(o.topic, o.partition, o.offset) for o in found] == [
        ("c", 2, 10), ("c", 0, 11), ("c", 2, 12),
    ]  # fmt: skip
    assert [(o.n, o.digest, o.generation) for o in found] == [
        (1, 0xAB, 4), (2, 0xAC, 4), (3, 0xAD, 4),
    ]  # fmt: skip


@pytest.mark.parametrize("repeat", [False, True])
def test_only_a_repeat_is_marked_as_one(answered, repeat):
    (send,) = answered((0, 3, [1], 1), repeat=repeat)

    assert provenance(send.headers).replayed == repeat
    headers = parse_headers(send.headers)
    assert decode_recommendation(send.value).recommendation_id == headers["src"] == "c/0/3"
    assert headers["ce_id"] == headers["src"]
    assert headers["ce_source"] == "/nextclick/shop"


@pytest.mark.parametrize(
    ("headers", "passed_on"),
    [
        ([("traceparent", b"00-1-2-01")], [b"00-1-2-01"]),
        ([("traceparent", None), ("x", b"\xff")], []),
        ([("traceparent", b"t" * 2000)], []),
        ([], []),
    ],
)
def test_a_trace_is_passed_on_unless_it_is_no_trace(answered, headers, passed_on):
    (send,) = answered((0, 0, [1], 1), headers=headers)

    assert [value for name, value in send.headers if name == "traceparent"] == passed_on


def test_a_dead_letter_goes_to_the_partition_of_its_record(writer, make_record):
    error = DecodeError("range", "too large")
    dead = [
        Dead(make_record(3, partition=2, value=b"x"), "range", error),
        Dead(make_record(4, partition=1), "misrouted", None),
    ]

    sends = list(writer.dead_letters(dead))

    assert [(send.topic, send.partition) for send in sends] == [("d", 2), ("d", 1)]
    records = [make_record(0, value=s.value)._replace(headers=s.headers) for s in sends]
    letters = [parse(record) for record in records]
    assert [(x.partition, x.offset, x.reason) for x in letters] == [
        (2, 3, "range"), (1, 4, "misrouted"),
    ]  # fmt: skip
    assert (letters[0].message, letters[0].app, letters[0].version) == ("too large", "shop", "1.2")


def random_sessions(rng, num=30):
    """Slabs with sessions of every length, under version 1, but every third under another."""
    sessions = Sessions(16, max_live=1000)
    for n in range(num):
        slot = sessions.create(0, f"u{n}")
        length = int(rng.integers(0, 3 * RING))
        codes = rng.choice([-2, *range(200)], size=min(length, RING)).tolist()
        sessions.set_ring(slot, codes, length)
        sessions.offset_S[slot], sessions.n_S[slot] = rng.integers(0, 2**40, size=2) + 1
        sessions.time_S[slot] = rng.integers(0, 2**41)
        sessions.digest_S[slot] = rng.integers(0, 2**32)
        sessions.session_hash_S[slot] = rng.integers(0, 2**32)
        sessions.hidden_SH[slot] = rng.standard_normal(16)
        sessions.events_SE[slot] = rng.integers(0, 2**64, EVENT_RING, np.uint64)
        sessions.version_S[slot] = 1 if n % 3 else 7
    return sessions


@pytest.mark.parametrize("seed", range(3))
def test_a_session_record_brings_the_session_back_bit_by_bit(make_version, make_record, seed):
    sessions, version = random_sessions(np.random.default_rng(seed)), make_version()
    newcomers, restored = Newcomers(16), Sessions(16, max_live=1000)
    newcomers.code("brand new")
    slots_U = np.array([*sessions.users(0).values()])

    values = session_values(sessions, slots_U, version, 4, NAMES.__getitem__)
    for user, value in zip(sessions.users(0), values, strict=True):
        entry = decode(make_record(key=user.encode(), value=value, partition=0))
        assert (entry.record.generation, entry.record.schema) == (4, 1)
        place_session(restored, entry, version, newcomers)

    again_U = np.array([restored.find(0, user) for user in sessions.users(0)])
    for column in ("offset", "n", "digest", "session_hash", "length", "time"):
        one, other = getattr(sessions, f"{column}_S"), getattr(restored, f"{column}_S")
        np.testing.assert_array_equal(one[slots_U], other[again_U], err_msg=column)
    np.testing.assert_array_equal(sessions.events_SE[slots_U], restored.events_SE[again_U])
    np.testing.assert_array_equal(sessions.ordered(slots_U)[0], restored.ordered(again_U)[0])
    current_U = sessions.version_S[slots_U] == 1
    np.testing.assert_array_equal(restored.version_S[again_U] == 1, current_U)
    np.testing.assert_array_equal(
        restored.hidden_SH[again_U[current_U]], sessions.hidden_SH[slots_U[current_U]]
    )
    assert not restored.hidden_SH[again_U[~current_U]].any()


def test_tombstones_come_first_then_sessions_then_a_marker_per_partition(
    writer, make_version, make_record
):
    sessions = Sessions(16, max_live=1000)
    one, two, none = (sessions.create(p, u) for p, u in ((0, "a"), (1, "b"), (0, "c")))
    sessions.n_S[[one, two]] = 1
    seated = SimpleNamespace(
        evicted=[(3, "gone", 17)], owners={one: (0, "a"), two: (1, "b"), none: (0, "c")}
    )
    ledgers = {0: Ledger(next_offset=5, seen=3), 1: Ledger(next_offset=9)}

    sends = list(
        writer.changelog(
            *(seated, sessions, make_version(), ledgers), generation=4, item_name=NAMES.get
        )
    )

    assert {send.topic for send in sends} == {"s"}
    assert [(send.partition, send.key) for send in sends] == [
        (3, b"gone"), (0, b"a"), (1, b"b"), (0, MARKER_KEY), (1, MARKER_KEY),
    ]  # fmt: skip
    records = [
        make_record(key=s.key, value=b"" if s.value is None else s.value)._replace(
            value=s.value, headers=s.headers, partition=s.partition
        )
        for s in sends
    ]
    tombstone, *_, marker, _ = map(decode, records)
    assert tombstone == Entry(3, "gone", None, 17)
    assert isinstance(marker, Marker)
    assert (marker.next_offset, marker.seen, marker.generation) == (5, 3, 4)
    assert marker.version == make_version().name
