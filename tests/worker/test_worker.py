"""The worker's loop on real Kafka: clicks in, recommendations out, sessions across workers."""

import threading

import pytest
from kafka import KafkaConsumer
from kafka.errors import KafkaConnectionError

import worker.restore
from stream.changelog import MARKER_KEY, Marker, encode_marker

pytestmark = pytest.mark.kafka


def test_a_click_is_answered_and_its_session_kept(system, publish_bundle, wait_until):
    published = publish_bundle()
    system.announce(published)
    running = system.start_worker()

    for n in range(40):
        system.click(f"u{n % 7}", f"i{n}")
    system.flush()
    wait_until(lambda: running.value("clicks_total") == 40, 30, "40 clicks are answered")
    running.stop()

    recommendations = system.recommendations()
    assert len(recommendations) == 40
    assert all(len(r.items) == 20 for r in recommendations)
    assert {r.model.version for r in recommendations} == {published.manifest.version}
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.recommendations, report.repeated) == (40, 40, 0)
    assert (report.sessions, report.states) == (7, 7)


def test_sessions_go_on_after_a_clean_restart(system, publish_bundle, wait_until):
    system.announce(publish_bundle())
    first = system.start_worker()
    for n in range(30):
        system.click(f"u{n % 3}", f"i{n}")
    system.flush()
    wait_until(lambda: first.value("clicks_total") == 30, 30, "the first worker answers")
    first.stop()

    second = system.start_worker()
    for n in range(30):
        system.click(f"u{n % 3}", f"i{n + 30}")
    system.flush()
    wait_until(lambda: second.value("clicks_total") == 30, 30, "the second worker answers")
    second.stop()

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.repeated, report.sessions, report.states) == (60, 0, 3, 3)
    assert second.value("sessions_reencoded_total") == 0


def test_a_rebalance_moves_sessions_and_loses_nothing(
    system, publish_bundle, start_load, wait_until
):
    system.announce(publish_bundle())
    first = system.start_worker()
    wait_until(lambda: first.value("assigned_partitions") == 2, 30, "the first holds everything")
    load = start_load(system, seed=1)
    wait_until(lambda: first.value("sessions") == 60, 30, "the first knows every user")

    second = system.start_worker()
    wait_until(lambda: second.value("clicks_total") > 50, 30, "the second answers clicks")
    wait_until(lambda: first.value("assigned_partitions") == 1, 30, "they share the partitions")
    wait_until(lambda: first.value("sessions") < 60, 30, "the first forgets who went")
    second.stop()
    wait_until(lambda: first.value("assigned_partitions") == 2, 30, "the first takes over")
    sent = load.stop()

    def answered():
        return first.value("clicks_total") + second.value("clicks_total") >= sent

    wait_until(answered, 30, "every click is answered")
    first.stop()
    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.pending, report.repeated) == (sent, 0, 0)
    assert report.sessions == 60


def test_a_poll_that_fails_is_tried_again_and_skips_nothing(
    system, publish_bundle, wait_until, monkeypatch
):
    system.announce(publish_bundle())
    real, fetched = KafkaConsumer.poll, []

    def poll(self, *arguments, **options):
        records = real(self, *arguments, **options)
        if self.config["group_id"] is not None and records:
            fetched.append(records)
            if len(fetched) in (1, 3):
                raise KafkaConnectionError("planted")
        return records

    monkeypatch.setattr(KafkaConsumer, "poll", poll)
    worker = system.start_worker()
    for n in range(40):
        system.click(f"u{n % 5}", f"i{n}")
        if n % 10 == 9:
            system.flush()
            wait_until(lambda n=n: worker.value("clicks_total") == n + 1, 30, "all are answered")
    worker.stop()

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.repeated, report.pending) == (40, 0, 0)


def test_a_worker_that_waits_for_a_model_can_be_stopped(system, wait_until):
    running = system.start_worker()
    wait_until(lambda: running.health.silence_seconds < 1, 5, "it beats while it waits")

    running.stop()

    assert set(running.health.missing) >= {"model", "group", "sessions"}


def test_a_rebalance_in_the_middle_of_a_restore_gives_it_up(
    system, publish_bundle, wait_until, monkeypatch
):
    system.announce(publish_bundle())
    first = system.start_worker()
    for n in range(20):
        system.click(f"u{n}", f"i{n}")
    wait_until(lambda: first.value("clicks_total") == 20, 30, "sessions exist")
    first.stop()
    entered, go_on = threading.Event(), threading.Event()
    original = worker.restore.read_to_end

    def slow(reader, ends, *, between_slices):
        entered.set()
        while between_slices() and not go_on.wait(0.02):
            pass
        return original(reader, ends, between_slices=between_slices)

    monkeypatch.setattr(worker.restore, "read_to_end", slow)
    second = system.start_worker()
    wait_until(entered.is_set, 30, "the second worker restores")
    entered.clear()
    third = system.start_worker()
    wait_until(entered.is_set, 30, "somebody starts over after the rebalance")
    go_on.set()
    for n in range(20):
        system.click(f"u{n}", f"i{n + 20}")
    system.flush()

    def answered():
        return second.value("clicks_total") + third.value("clicks_total")

    wait_until(lambda: answered() == 20, 30, "both answer")
    second.stop()
    third.stop()

    report = system.verify()
    assert report.violations == []
    assert (report.clicks, report.repeated, report.sessions) == (40, 0, 20)


def test_a_stop_in_the_middle_of_a_restore_ends_cleanly(
    system, publish_bundle, wait_until, monkeypatch
):
    system.announce(publish_bundle())
    first = system.start_worker()
    system.click("u", "i1")
    system.flush()
    wait_until(lambda: first.value("clicks_total") == 1, 30, "a session exists")
    first.stop()
    entered = threading.Event()

    def endless(reader, ends, *, between_slices):
        entered.set()
        while between_slices():
            pass
        return iter(())

    monkeypatch.setattr(worker.restore, "read_to_end", endless)
    second = system.start_worker()
    wait_until(entered.is_set, 30, "the second worker restores")

    second.stop()

    assert system.verify().violations == []


def test_a_first_start_that_died_between_marker_and_commit_is_started_again(
    system, publish_bundle, wait_until
):
    system.announce(publish_bundle())
    marker = Marker(next_offset=0, generation=-1, version="", log_time=0)
    for partition in range(2):
        system.producer.send(
            system.settings.topics.sessions,
            value=encode_marker(marker),
            key=MARKER_KEY,
            partition=partition,
        )
    for n in range(10):
        system.click(f"u{n}", f"i{n}")
    system.flush()

    running = system.start_worker()
    wait_until(lambda: running.value("clicks_total") == 10, 30, "every click is answered")
    running.stop()

    report = system.verify()
    assert (report.violations, report.clicks, report.repeated) == ([], 10, 0)


def test_a_running_system_can_be_verified(system, publish_bundle, start_load, wait_until):
    system.announce(publish_bundle())
    running = system.start_worker()
    load = start_load(system, seed=2, per_second=1000)
    wait_until(lambda: running.value("clicks_total") > 300, 30, "it answers")

    reports = [system.verify() for _ in range(3)]

    load.stop()
    assert [report.violations for report in reports] == [[], [], []]
    assert all(report.clicks > 0 for report in reports)


def test_metrics_agree_with_the_topics(system, publish_bundle, wait_until):
    system.announce(publish_bundle())
    running = system.start_worker()
    for n in range(50):
        system.click(f"u{n % 5}", f"i{n}")
    system.send("{", "u1")
    system.flush()
    wait_until(lambda: running.value("clicks_total") == 51, 30, "every click has an outcome")
    clicks = system.settings.topics.clicks

    def lags():
        labels = [{"topic": clicks, "partition": str(p)} for p in range(2)]
        names = ("consumer_lag_records", "consumer_lag_seconds")
        return [running.value(name, **label) for name in names for label in labels]

    wait_until(lambda: lags() == [0, 0, 0, 0], 10, "no lag is left")
    assert running.value("recommendation_latency_seconds_count") == 50
    assert running.value("batch_clicks_sum") == 51
    assert running.value("sessions") == 5
    assert running.health.missing == []
    report = system.verify()
    assert (report.clicks, report.recommendations, report.dead_letters) == (51, 50, 1)
