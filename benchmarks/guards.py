"""The guards against losing or doubling clicks, each with a way to take it out and who must notice.

Data only: `benchmarks/mutants.py` takes one out after the other. A text must occur exactly once in
its file; `tests` are arguments of pytest, the narrowest selection that turns red.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Guard(NamedTuple):
    """One guard: which text of which file is replaced, and the tests that must then fail.

    `also` are further replacements in the same file. `equivalent` says why no test can notice:
    another guard does the same work.
    """

    name: str
    file: str
    text: str
    replacement: str
    tests: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()
    equivalent: str = ""


_ALO, _EOS, _BOTH = "stream/at_least_once.py", "stream/exactly_once.py", "stream/producers.py"
_CLIENTS, _GROUP, _LOG = "stream/clients.py", "stream/assignment.py", "stream/changelog.py"
_WORKER, _TAKEOVER, _RESTORE = "worker/worker.py", "worker/takeover.py", "worker/restore.py"
_INTAKE, _OUTPUTS, _ANSWERING = "worker/intake.py", "worker/outputs.py", "worker/answering.py"

_UNIT_ALO = ("tests/stream/test_at_least_once.py",)
_UNIT_EOS = ("tests/stream/test_exactly_once.py",)
_UNIT_BOTH = _UNIT_ALO + _UNIT_EOS
_UNIT_CLIENTS = ("tests/stream/test_clients.py",)
_UNIT_GROUP = ("tests/stream/test_assignment.py",)
_UNIT_ANSWERING = ("tests/worker/test_answering.py",)
_UNIT_RESTORE = ("tests/worker/test_restore.py",)
_FAILURES = "tests/faults/test_producer_failures.py"
_FAULTS = ("-m", "faults")

_RENEW = "            self._renew()\n            return patiently"
_ASK = "return patiently(lambda: committed_outcome(self._consumer, before, after), self._beat)"

_COMMIT: Final = (
    Guard(
        "D1: check every future",
        *(_BOTH, "if not future.succeeded():", "if False:"),
        _UNIT_BOTH,
    ),
    Guard(
        "D1, D7: flush before the offsets",
        *(_BOTH, "    producer.flush(timeout=timeout_seconds)\n", ""),
        _UNIT_BOTH,
    ),
    Guard(
        "D1, D2, D3, D5: one strike (exactly_once)",
        *(_EOS, _RENEW, "            return patiently"),
        _UNIT_EOS,
    ),
    Guard(
        "D1, D10: one strike (at_least_once)",
        *(_ALO, _RENEW, "            return patiently"),
        _UNIT_ALO,
    ),
    Guard(
        "D4: the membership of the poll, not that of the commit",
        _EOS,
        "self._transact(sends, after, member)",
        "self._transact(sends, after, self._consumer.group_metadata())",
        _UNIT_EOS,
    ),
    Guard(
        "D4: no membership without generation and member id",
        *(_GROUP, "metadata if metadata.generation_id >= 0 and metadata.member_id else None"),
        "metadata",
        _UNIT_GROUP,
    ),
    Guard(
        "D9: bounded waits for the coordinator",
        *(_EOS, "result.wait(_STEP_MS):", "result.wait(None):"),
        _UNIT_EOS,
    ),
    Guard(
        "D9: a step without an answer has failed",
        *(_EOS, "if not result.wait(_STEP_MS):", "if result.wait(_STEP_MS) is None:"),
        _UNIT_EOS,
    ),
    Guard(
        "D10: the old sender is ended (exactly_once)",
        *(_EOS, "        end(old)\n", ""),
        _UNIT_EOS,
    ),
    Guard(
        "D10: the old sender is ended before the next begins (at_least_once)",
        *(_ALO, "        end(self._producer)\n        self.renewals", "        self.renewals"),
        _UNIT_ALO,
    ),
    Guard(
        "D10: a sender that does not end is a reason to leave",
        *(_BOTH, "    if sender.is_alive():", "    if False:"),
        _UNIT_ALO,
    ),
    Guard(
        "D12: no batch begins without a lease",
        _ALO,
        "            self._require_lease()\n            deliver(",
        "            deliver(",
        _UNIT_ALO,
    ),
    Guard(
        "D12: no batch commits without a lease",
        _ALO,
        "            self._require_lease()\n            self._consumer.commit(",
        "            self._consumer.commit(",
        _UNIT_ALO,
    ),
    Guard(
        "D12: a fenced static member leaves",
        *(_WORKER, "if self._lease.fenced:", "if False:"),
        ("tests/faults/test_slots.py", *_FAULTS, "-k", "first_of_two and static"),
    ),
    Guard(
        "D13: refuse brokers before 3.0",
        *(_CLIENTS, "if version < _OLDEST_BROKER:", "if False:"),
        _UNIT_CLIENTS,
    ),
    Guard(
        "D15: renew after a lost connection",
        *(_EOS, "if self._lost.count or time", "if time"),
        _UNIT_EOS,
    ),
    Guard(
        "D15: renew after a slow transaction",
        *(_EOS, " or time.monotonic() - started > _SLOW_SECONDS:", ":"),
        _UNIT_EOS,
    ),
    Guard(
        "fenced: leave, do not initialise again",
        *(_EOS, "if isinstance(cause, _FENCED):", "if False:"),
        _UNIT_EOS,
    ),
    Guard(
        "in doubt: ask what is committed (exactly_once)",
        *(_EOS, _ASK, "return Outcome.ROLLED_BACK"),
        _UNIT_EOS,
    ),
    Guard(
        "in doubt: ask what is committed (at_least_once)",
        *(_ALO, _ASK, "return Outcome.ROLLED_BACK"),
        _UNIT_ALO,
    ),
    Guard(
        "require_stable: the group's consumer reads committed",
        _CLIENTS,
        '"isolation_level": "read_committed",  # this alone',
        '"isolation_level": "read_uncommitted",  # this alone',
        _UNIT_CLIENTS,
    ),
    Guard(
        "idempotence is explicit",
        *(_CLIENTS, '        "enable_idempotence": True,\n', ""),
        _UNIT_CLIENTS,
    ),
)

_STATE: Final = (
    Guard(
        "restore to the high watermark, not to the last stable offset",
        *(_RESTORE, 'isolation="read_uncommitted"', 'isolation="read_committed"'),
        _UNIT_RESTORE,
    ),
    Guard(
        "restore: marker and committed offset must agree",
        *(_RESTORE, 'if not standing.agrees and self._on_mismatch != "accept":', "if False:"),
        _UNIT_RESTORE,
    ),
    Guard(
        "restore: what a transaction moved must be equal, not ahead",
        *(_LOG, "return self.next_offset == committed", "return self.next_offset >= committed"),
        _UNIT_RESTORE,
    ),
    Guard(
        "restore: the session that reached further wins",
        _RESTORE,
        "if slot >= 0 and sessions.offset_S[slot] > entry.last_offset:",
        "if False:",
        _UNIT_RESTORE,
    ),
    Guard(
        "restore: the marker that reached further wins",
        *(_RESTORE, "elif reaches_further(entry, markers.get(message.partition)):", "else:"),
        _UNIT_RESTORE,
    ),
    Guard(
        "undo: the sessions are as before the batch",
        *(_ANSWERING, "        self.sessions.roll_back(batch.seated.undo)\n", ""),
        _UNIT_ANSWERING,
    ),
    Guard(
        "undo: a failed batch is rolled back",
        *(_WORKER, "        self._parts.answering.roll_back(batch)\n", ""),
        (_FAILURES, *_FAULTS, "-k", "answered_again"),
    ),
    Guard(
        "undo: a batch that is rolled back is polled again",
        *(_WORKER, "                self._consumer.seek(tp, offset)\n", "                pass\n"),
        (_FAILURES, *_FAULTS, "-k", "answered_again"),
    ),
    Guard(
        "undo: what was evicted comes back on every partition",
        *(_WORKER, " and not batch.seated.evicted:", ":"),
        (_FAILURES, *_FAULTS, "-k", "eviction"),
    ),
    Guard(
        "repeats: a click at or below last_offset is not applied again",
        *(_INTAKE, "evicted_B | (offset_B <= sessions.offset_S[slot_B])", "evicted_B"),
        _UNIT_ANSWERING,
    ),
    Guard(
        "eviction writes a tombstone",
        *(_OUTPUTS, "in seated.evicted:", "in ():"),
        _UNIT_ANSWERING,
    ),
    Guard(
        "rebalance: a new partition is paused until it is restored",
        *(_GROUP, "        self._consumer.pause(*fresh)\n", ""),
        _UNIT_GROUP,
    ),
    Guard(
        "rebalance: a partition that went and came back is restored",
        *(_GROUP, " if tp not in self.live or tp in self.gone}", " if tp not in self.live}"),
        _UNIT_GROUP,
    ),
)

GUARDS: Final = _COMMIT + _STATE
