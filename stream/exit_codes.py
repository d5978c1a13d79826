"""Exit codes of the long-running roles, and which error ends in which; knows no role."""

from __future__ import annotations

from kafka import errors

from stream.changelog import ChangelogError
from stream.exactly_once import FencedError
from stream.positions import OffsetGapError
from stream.progress import PartitionStalledError
from stream.topics import TopicMismatchError

BUG = 70
STATE_MISMATCH = 71
DAMAGED = 74
UNAVAILABLE = 75
FORBIDDEN = 77
CONFIGURATION = 78

_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (TopicMismatchError, CONFIGURATION),
    (ChangelogError, STATE_MISMATCH),
    (OffsetGapError, STATE_MISMATCH),
    (errors.CorruptRecordError, DAMAGED),
    (errors.AuthorizationError, FORBIDDEN),
    (errors.SaslAuthenticationFailedError, FORBIDDEN),
    (errors.MessageSizeTooLargeError, CONFIGURATION),
    (errors.KafkaConfigurationError, CONFIGURATION),
    (errors.FencedInstanceIdError, UNAVAILABLE),
    (FencedError, UNAVAILABLE),
    (errors.ProducerFencedError, UNAVAILABLE),
    (errors.InvalidProducerEpochError, UNAVAILABLE),
    (errors.RetriableError, UNAVAILABLE),
    (PartitionStalledError, UNAVAILABLE),
    (ConnectionError, UNAVAILABLE),
)


def exit_code(error: BaseException) -> int:
    """Return the exit code for an error that reached the outermost frame: a bug unless known."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), BUG)
