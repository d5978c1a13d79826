"""Which error ends the process with which code."""

import pytest
from kafka import errors

from stream import exit_codes
from stream.changelog import ChangelogError, StateMismatchError
from stream.clients import KafkaUnreachableError
from stream.exactly_once import FencedError
from stream.positions import OffsetGapError
from stream.progress import PartitionStalledError
from stream.topics import TopicMismatchError


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("bug"), exit_codes.BUG),
        (errors.IllegalStateError("bug"), exit_codes.BUG),
        (ChangelogError("x"), exit_codes.STATE_MISMATCH),
        (StateMismatchError("x"), exit_codes.STATE_MISMATCH),
        (OffsetGapError("x"), exit_codes.STATE_MISMATCH),
        (errors.CorruptRecordError("x"), exit_codes.DAMAGED),
        (errors.KafkaTimeoutError("x"), exit_codes.UNAVAILABLE),
        (KafkaUnreachableError("x"), exit_codes.UNAVAILABLE),
        (errors.FencedInstanceIdError("x"), exit_codes.UNAVAILABLE),
        (FencedError("x"), exit_codes.UNAVAILABLE),
        (PartitionStalledError("x"), exit_codes.UNAVAILABLE),
        (ConnectionResetError(), exit_codes.UNAVAILABLE),
        (errors.GroupAuthorizationFailedError("x"), exit_codes.FORBIDDEN),
        (errors.SaslAuthenticationFailedError("x"), exit_codes.FORBIDDEN),
        (TopicMismatchError("x"), exit_codes.CONFIGURATION),
    ],
)
def test_each_error_has_its_code(error, code):
    assert exit_codes.exit_code(error) == code
