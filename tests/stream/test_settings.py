"""Kafka settings: what is refused and how pass-through values are converted."""

import pytest
from pydantic import ValidationError

from stream.settings import KafkaSettings, TopicSettings


@pytest.mark.parametrize(
    ("given", "converted"),
    [
        ({"security_protocol": "SASL_SSL"}, {"security_protocol": "SASL_SSL"}),
        ({"ssl_check_hostname": "false"}, {"ssl_check_hostname": False}),
        ({"ssl_check_hostname": "TRUE"}, {"ssl_check_hostname": True}),
        ({"fetch_min_bytes": "10"}, {"fetch_min_bytes": 10}),
        ({"fetch_min_bytes": 10}, {"fetch_min_bytes": 10}),
        ({"receive_buffer_bytes": "4096"}, {"receive_buffer_bytes": 4096}),
        ({"api_version": "4.3"}, {"api_version": (4, 3)}),
        ({"sasl_plain_password": "123"}, {"sasl_plain_password": "123"}),
    ],
)
def test_strings_become_the_type_that_the_client_takes(given, converted):
    assert KafkaSettings(consumer=given).consumer == converted


@pytest.mark.parametrize(
    ("side", "key", "value"),
    [
        ("consumer", "isolation_level", "read_uncommitted"),
        ("consumer", "enable_auto_commit", True),
        ("consumer", "auto_offset_reset", "latest"),
        ("consumer", "value_deserializer", "json"),
        ("consumer", "group_id", "other"),
        ("producer", "acks", 1),
        ("producer", "enable_idempotence", False),
        ("producer", "transactional_id", "x"),
        ("producer", "retries", 0),
        ("producer", "bootstrap_servers", "other:1"),
    ],
)
def test_keys_that_carry_a_guarantee_are_refused(side, key, value):
    with pytest.raises(ValidationError, match=f"{key}: set by nextclick itself"):
        KafkaSettings(**{side: {key: value}})


@pytest.mark.parametrize(
    ("consumer", "text"),
    [
        ({"fetch_min_bites": 1}, "fetch_min_bites: kafka-python has no such setting"),
        ({"fetch_min_bytes": "many"}, "fetch_min_bytes = 'many': must be a number"),
        ({"ssl_check_hostname": "perhaps"}, "must be true or false"),
    ],
)
def test_a_pass_through_value_that_the_client_cannot_take_is_refused(consumer, text):
    with pytest.raises(ValidationError, match=text):
        KafkaSettings(consumer=consumer)


@pytest.mark.parametrize(
    ("waits", "text"),
    [
        ({"heartbeat_interval_ms": 3_400}, "less than a third of session_timeout_ms"),
        ({"delivery_timeout_ms": 5_005}, "more than linger_ms"),
    ],
)
def test_waits_that_contradict_each_other_are_refused(waits, text):
    with pytest.raises(ValidationError, match=text):
        KafkaSettings(**waits)


@pytest.mark.parametrize("servers", ["localhost", "a:1,b", "a b:1", "", "a:1,"])
def test_a_broker_address_needs_host_and_port(servers):
    with pytest.raises(ValidationError):
        KafkaSettings(bootstrap_servers=servers)


def test_two_topics_cannot_have_one_name():
    with pytest.raises(ValidationError, match="'clicks' is named twice"):
        TopicSettings(sessions="clicks")
