"""Topics: created as they must be, refused when they are not."""

from collections import Counter
from contextlib import closing

import msgspec
import pytest

import stream.topics
from stream.clients import admin
from stream.settings import KafkaSettings, TopicSettings
from stream.topics import (
    TopicMismatchError,
    TopicPlan,
    TopicState,
    check,
    describe,
    ensure,
    mismatches,
    plan,
)

NAMES = ("clicks", "recommendations", "sessions", "models", "dead_letters")


def topics_with(prefix: str, **changes: object) -> TopicSettings:
    names = {name: prefix + name for name in NAMES}
    return TopicSettings(**({"partitions": 2} | names | changes))


def create(settings: KafkaSettings, name: str, partitions: int, **configs: str) -> None:
    options = {
        "num_partitions": partitions,
        "configs": {key.replace("_", "."): value for key, value in configs.items()},
    }
    with closing(admin(settings)) as client:
        client.create_topics({name: options}, wait_for_metadata=True)


@pytest.fixture
def settings(kafka) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)


def test_the_plan_follows_the_table_of_topics():
    day = 86_400_000

    wanted = {topic.name: topic for topic in plan(TopicSettings(replication_factor=3))}

    assert {name: topic.partitions for name, topic in wanted.items()} == {
        "clicks": 4, "recommendations": 4, "sessions": 4, "models": 1, "clicks.dlq": 4,
    }  # fmt: skip
    assert wanted["clicks"].configs == {
        "cleanup.policy": "delete",
        "retention.ms": str(7 * day),
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(4 * 1024 * 1024),
        "min.insync.replicas": "2",
    }
    assert wanted["sessions"].configs == {
        "cleanup.policy": "compact",
        "message.timestamp.type": "CreateTime",
        "segment.ms": "3600000",
        "delete.retention.ms": str(7 * day),
        "max.compaction.lag.ms": str(day),
        "min.insync.replicas": "2",
    }


def test_one_replica_needs_one_in_sync():
    assert {topic.configs["min.insync.replicas"] for topic in plan(TopicSettings())} == {"1"}


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (TopicState(name="s"), "does not exist: run `nextclick topics ensure`"),
        (
            TopicState(name="s", partitions=3, configs={"cleanup.policy": "compact"}),
            "has 3 partitions, must have 4: set topics.partitions",
        ),
        (
            TopicState(name="s", partitions=4, configs={"cleanup.policy": "compact,delete"}),
            "has cleanup.policy = compact,delete, must be compact",
        ),
    ],
)
def test_what_breaks_the_protocol_is_a_mismatch_that_says_what_to_do(found, text):
    wanted = TopicPlan(
        name="s", partitions=4, replication_factor=1, configs={"cleanup.policy": "compact"}
    )

    (said,) = mismatches(wanted, found)

    assert text in said


def test_a_dead_letter_needs_the_partition_of_its_click():
    dead_letters = plan(TopicSettings())[4]
    found = TopicState(name="d", partitions=3, configs={"cleanup.policy": "delete"})

    (said,) = mismatches(dead_letters, found)

    assert "has 3 partitions, must have 4" in said


def test_what_is_the_owners_choice_is_no_mismatch():
    recommendations, dead_letters = plan(TopicSettings())[1], plan(TopicSettings())[4]
    compact = {"cleanup.policy": "compact", "retention.ms": "1"}

    assert mismatches(recommendations, TopicState(name="r", partitions=4, configs=compact)) == []
    assert (
        mismatches(
            dead_letters,
            TopicState(name="d", partitions=9, configs={"cleanup.policy": "delete"}),
        )
        == []
    )


@pytest.mark.kafka
def test_missing_topics_are_created_as_planned_and_a_second_call_changes_nothing(
    settings, topic_names
):
    topics = topics_with(topic_names())

    created = ensure(settings, topics)

    assert created == [getattr(topics, name) for name in NAMES]
    assert ensure(settings, topics) == []
    check(settings, topics)
    for wanted, found in zip(plan(topics), describe(settings, topics), strict=True):
        assert (found.partitions, found.replication_factor) == (wanted.partitions, 1)
        assert wanted.configs.items() <= found.configs.items()


@pytest.mark.kafka
def test_a_broker_that_has_not_heard_of_all_of_a_new_topic_is_asked_again(
    settings, topic_names, monkeypatch
):
    of_a_topic, answers = stream.topics._state, Counter()

    def lagging(client, name):
        answers[name] += 1
        state = of_a_topic(client, name)
        # first call: before it is made
        return msgspec.structs.replace(state, configs={}) if answers[name] == 2 else state

    monkeypatch.setattr(stream.topics, "_state", lagging)
    topics = topics_with(topic_names())

    assert len(ensure(settings, topics)) == len(NAMES)
    assert set(answers.values()) == {3}


@pytest.mark.kafka
def test_missing_topics_are_described_as_missing_and_fail_the_check(settings, topic_names):
    topics = topics_with(topic_names())

    assert {state.partitions for state in describe(settings, topics)} == {0}
    with pytest.raises(TopicMismatchError, match="does not exist"):
        check(settings, topics)


@pytest.mark.kafka
def test_an_existing_topic_with_other_partitions_or_policy_is_refused(settings, topic_names):
    topics = topics_with(topic_names())
    create(settings, topics.clicks, 3)
    create(settings, topics.models, 1, cleanup_policy="delete")

    with pytest.raises(TopicMismatchError) as caught:
        ensure(settings, topics)

    said = str(caught.value).splitlines()
    assert len(said) == 2
    assert f"{topics.clicks} has 3 partitions, must have 2" in said[0]
    assert f"{topics.models} has cleanup.policy = delete, must be compact" in said[1]
    assert {state.name for state in describe(settings, topics) if state.partitions} == {
        topics.clicks,
        topics.models,
    }
