"""A batch from records to sends: who is remembered, what is sent, what a roll-back leaves."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from index.item_index import IndexPlan, ItemIndex
from stream.changelog import MARKER_KEY, Marker, decode
from stream.headers import parse_headers, provenance
from stream.messages import decode_recommendation
from stream.settings import TopicSettings
from worker import newcomers
from worker.answering import Answering
from worker.ledger import Ledger
from worker.metrics import WorkerMetrics
from worker.outputs import Writer
from worker.sessions import EMPTY
from worker.settings import WorkerSettings
from worker.version import delta_version, serving_version

TOPICS = TopicSettings(partitions=1)


class Bench:
    """An answering without Kafka: the test hands it records and looks at sends and sessions."""

    def __init__(self, settings):
        self.registry = CollectorRegistry()
        metrics = WorkerMetrics(self.registry)
        writer = Writer(TOPICS, settings.ranking, app="app", app_version="1")
        rng = np.random.default_rng(0)
        self.answering = Answering(settings, writer, metrics, num_partitions=1, rng=rng)
        self.ledgers = {0: Ledger()}

    def answer(self, *records, kept=True):
        batch = self.answering.answer(list(records), self.ledgers, 3)
        if kept:
            self.answering.keep(batch, list(records), records[-1].timestamp / 1000 + 1)
            self.ledgers.update(batch.ledgers)
        else:
            self.answering.roll_back(batch)
        return batch

    def lists(self, batch):
        return [decode_recommendation(s.value) for s in self.sent(batch, "recommendations")]

    def sent(self, batch, topic):
        return [send for send in batch.sends if send.topic == topic]

    def value(self, name, /, **labels):
        return self.registry.get_sample_value(f"nextclick_{name}", labels) or 0

    @property
    def sessions(self):
        return self.answering.sessions


@pytest.fixture
def make_bench(make_version):
    def make(version=None, **settings):
        bench = Bench(WorkerSettings(recall_sample=1, **settings))
        bench.answering.swap(version or make_version())
        return bench

    return make


@pytest.fixture
def bench(make_bench):
    return make_bench()


def test_an_answer_names_its_click_and_its_version(bench, make_record):
    batch = bench.answer(make_record(7, item="i3", session_id="s", event_id="e"))

    (answer,), (send,) = bench.lists(batch), bench.sent(batch, "recommendations")
    assert answer.recommendation_id == "clicks/0/7"
    assert (answer.user_id, answer.session_id, answer.fallback) == ("u1", "s", None)
    assert (answer.trigger.item_id, answer.trigger.event_id) == ("i3", "e")
    assert answer.model.version == bench.answering.version.name
    origin = provenance(send.headers)
    assert (origin.offset, origin.generation, origin.n, origin.replayed) == (7, 3, 1, False)
    assert (send.partition, send.key) == (0, b"u1")
    assert parse_headers(send.headers)["ce_id"] == "clicks/0/7"
    scores = [item.score for item in answer.items]
    assert scores == sorted(scores, reverse=True)
    assert {source for item in answer.items for source in item.sources} == {"rnn"}


def test_a_trace_is_passed_on(bench, make_record):
    record = make_record(0)._replace(headers=[("traceparent", b"00-1-2-01"), ("x", None)])

    batch = bench.answer(record)

    headers = bench.sent(batch, "recommendations")[0].headers
    assert ("traceparent", b"00-1-2-01") in headers


def test_the_changelog_has_one_record_per_user_and_the_marker_last(bench, make_record):
    batch = bench.answer(*(make_record(n, user=f"u{n % 2}", item=f"i{n}") for n in range(5)))

    sends = bench.sent(batch, "sessions")
    assert [send.key for send in sends] == [b"u0", b"u1", MARKER_KEY]
    record = make_record(0, key=sends[0].key, value=sends[0].value, partition=0)
    entry = decode(record)
    assert (entry.record.items, entry.record.n, entry.last_offset) == (["i0", "i2", "i4"], 3, 4)
    marker = decode(make_record(0, key=MARKER_KEY, value=sends[2].value))
    assert isinstance(marker, Marker)
    assert (marker.next_offset, marker.seen, marker.recommended, marker.generation) == (5, 5, 5, 3)


def test_without_consent_a_click_is_answered_and_leaves_no_trace(bench, make_record):
    batch = bench.answer(make_record(0, user="secret", consent=False, event_id="e"))

    assert len(bench.lists(batch)[0].items) == 20
    assert [send.key for send in bench.sent(batch, "sessions")] == [MARKER_KEY]
    assert len(bench.sessions) == 0
    assert not any(b"secret" in (s.value or b"") for s in bench.sent(batch, "sessions"))
    again = bench.answer(make_record(1, user="secret", consent=False, event_id="e"))
    assert provenance(bench.sent(again, "recommendations")[0].headers).n == 1
    assert bench.value("clicks_skipped_total", reason="duplicate") == 0


def test_a_consenting_users_session_is_not_used_without_consent(bench, make_record):
    bench.answer(make_record(0, item="i1"))

    bench.answer(make_record(1, item="i2", consent=False))
    batch = bench.answer(make_record(2, item="i3"))

    origin = provenance(bench.sent(batch, "recommendations")[0].headers)
    assert origin.n == 2


def test_a_repeated_event_is_skipped(bench, make_record):
    batch = bench.answer(*(make_record(n, event_id="e") for n in range(2)))

    assert len(bench.lists(batch)) == 1
    assert bench.value("clicks_skipped_total", reason="duplicate") == 1
    assert batch.ledgers[0].skipped == {"duplicate": 1}


def test_a_rolled_back_batch_leaves_no_trace(bench, make_record):
    bench.answer(make_record(0, user="a", item="i1", event_id="e0"))
    slot = bench.sessions.find(0, "a")
    before = [np.copy(bench.sessions.hidden_SH[slot]), bench.sessions.events_SE[slot].copy()]
    ledger = bench.ledgers[0].copy()
    clicks = [make_record(n, user=u, event_id=f"e{n}") for n, u in ((1, "a"), (2, "b"), (3, "a"))]

    bench.answer(*clicks, kept=False)

    assert bench.sessions.find(0, "b") == -1
    assert bench.ledgers[0] == ledger
    np.testing.assert_array_equal(bench.sessions.hidden_SH[slot], before[0])
    np.testing.assert_array_equal(bench.sessions.events_SE[slot], before[1])
    batch = bench.answer(*clicks)
    assert len(bench.lists(batch)) == 3
    assert bench.value("clicks_total") == 4


def test_a_replayed_click_is_answered_as_a_repeat_and_counted_once(bench, make_record):
    clicks = [make_record(n, item=f"i{n}") for n in range(3)]
    bench.answer(*clicks)

    batch = bench.answer(*clicks)

    assert all(provenance(s.headers).replayed for s in bench.sent(batch, "recommendations"))
    assert bench.sessions.n_S[bench.sessions.find(0, "u1")] == 3
    assert bench.value("clicks_total") == 3
    assert bench.value("recommendations_repeated_total") == 3


def test_the_longest_idle_users_make_room_and_get_tombstones(make_bench, make_record):
    bench = make_bench(sessions={"max_live": 1000})
    hour = 3_600_000
    records = [
        make_record(n, user=f"u{n}", log_time=1_790_000_000_000 + n * hour // 100)
        for n in range(1000)
    ]
    bench.answer(*records)

    batch = bench.answer(make_record(1000, user="new", log_time=records[-1].timestamp))

    tombstones = [send for send in bench.sent(batch, "sessions") if send.value is None]
    assert [send.key for send in tombstones] == [b"u%d" % n for n in range(10)]
    assert tombstones[3].headers == [("last_offset", b"3")]
    assert len(bench.sessions) == 991
    assert bench.value("sessions_evicted_total", reason="full") == 10


def test_a_newcomer_enters_lists_and_is_admitted_by_the_next_version(
    bench, make_record, make_version
):
    bench.answer(make_record(0, item="i1"), make_record(1, item="brand new"))
    assert bench.value("unknown_items_total") == 1

    batch = bench.answer(make_record(2, user="other", item="i1"))

    (answer,) = bench.lists(batch)
    news = [item for item in answer.items if item.item_id == "brand new"]
    assert [item.sources for item in news] == [["new"]]
    ids = (*(f"i{n}" for n in range(200)), "brand new")
    bench.answering.swap(make_version(2, ids=ids, version="20261124T000000000Z-00000002"))
    slot = bench.sessions.find(0, "u1")
    assert bench.sessions.ordered(np.array([slot]))[0][0, :2].tolist() == [1, 200]
    after = bench.answer(make_record(3, item="brand new"))
    assert bench.lists(after)[0].model.version == "20261124T000000000Z-00000002"
    assert bench.value("sessions_reencoded_total") == 1


def test_a_newcomer_that_a_delta_does_not_name_stays_in_lists(
    bench, make_record, make_bundle, make_delta
):
    bench.answer(make_record(0, item="i1"), make_record(1, item="brand new"))
    delta = make_delta(make_bundle(), num_changed=1, new_ids=["named"])

    bench.answering.swap(delta_version(bench.answering.version, delta, 2))

    (answer,) = bench.lists(bench.answer(make_record(2, user="other", item="i1")))
    assert answer.model.version == delta.manifest.version
    assert "brand new" in [item.item_id for item in answer.items]


def test_a_swap_to_another_catalogue_renames_rings_and_keeps_what_it_dropped(
    bench, make_record, make_version
):
    bench.answer(make_record(0, item="i1"), make_record(1, item="i199"))
    ids = tuple(f"i{n}" for n in reversed(range(199)))

    bench.answering.swap(make_version(2, ids=ids, dim=8, version="20261124T000000000Z-00000002"))
    batch = bench.answer(make_record(2, item="i2"))

    record = bench.sent(batch, "sessions")[0]
    entry = decode(make_record(0, key=record.key, value=record.value))
    assert entry.record.items == ["i1", "i199", "i2"]
    assert len(entry.record.hidden) == 8 * 4


def test_a_full_side_buffer_is_counted_and_harms_nothing(make_bench, make_bundle, make_record):
    bundle = make_bundle()
    index = ItemIndex.build(bundle.vectors_ND, IndexPlan(), side_capacity=1)
    bench = make_bench(serving_version(bundle, index, 1, 41))

    bench.answer(*(make_record(n, item=item) for n, item in enumerate(["i1", "new1", "new2"])))

    assert bench.value("fallbacks_total", step="side_buffer_full") == 1
    assert bench.value("index_items", part="side") == 1


def test_passing_items_are_forgotten_and_those_in_lists_are_not(bench, make_record, monkeypatch):
    monkeypatch.setattr(newcomers, "_MANY", 10)
    bench.answer(make_record(0, item="i1"), make_record(1, item="brand new"))

    for n in range(100):
        bench.answer(make_record(2 + n, user=f"v{n}", item=f"passing {n}", consent=False))

    assert len(bench.answering._newcomers) < 20
    (answer,) = bench.lists(bench.answer(make_record(200, user="other", item="i1")))
    assert "brand new" in [item.item_id for item in answer.items]


def test_the_first_of_an_unknown_items_session_is_popular(bench, make_record):
    (answer,) = bench.lists(bench.answer(make_record(0, item="never seen")))

    assert answer.fallback == "cold"
    assert [item.item_id for item in answer.items[:2]] == ["i0", "i1"]
    assert bench.value("fallbacks_total", step="cold") == 1
    assert bench.value("recommendations_total", source="popular") == 1


def test_a_restored_slot_has_no_list_of_the_user_before(bench, make_record):
    batch = bench.answer(make_record(0, item="i1"))
    liked = bench.lists(batch)[0].items[0].item_id
    bench.sessions.drop(0)
    record = bench.sent(batch, "sessions")[0]
    entry = decode(make_record(0, key=b"somebody", value=record.value, partition=0))

    bench.answering.place(entry)
    bench.answer(make_record(1, user="somebody", item=liked))

    assert bench.value("next_click_evaluated_total", arm="serving") == 0


def test_metrics_of_a_batch(bench, make_record):
    batch = bench.answer(make_record(0), make_record(1, value=b"{"), make_record(2, type="x"))

    assert bench.value("clicks_total") == 3
    assert bench.value("dead_letters_total", reason="malformed") == 1
    assert bench.value("clicks_skipped_total", reason="unsupported") == 1
    assert bench.value("recommendation_latency_seconds_count") == 1
    assert bench.value("recommendation_latency_seconds_sum") == pytest.approx(1.0)
    assert bench.value("index_recall_ratio") == 1.0
    assert bench.value("sessions") == 1
    assert [send.partition for send in bench.sent(batch, "clicks.dlq")] == [0]
    assert all(bench.value("stage_duration_seconds_count", stage=s) for s in ("decode", "rank"))


def test_no_list_holds_an_empty_place(bench, make_record):
    batch = bench.answer(make_record(0))

    assert EMPTY not in batch.answers.lists.codes_BK
