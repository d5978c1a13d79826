"""Slabs against a dictionary of plain objects, through any sequence of batches, moves and swaps."""

from copy import deepcopy
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.sessions import EMPTY, RING, Sessions, hash_of

DIM = 3
USER = st.tuples(st.integers(0, 2), st.sampled_from(["a", "b", "c", "d", "e"]))
ROWS = 30


@dataclass
class Plain:
    items: list[int] = field(default_factory=list)
    length: int = 0
    hidden: list[float] = field(default_factory=lambda: [0.0] * DIM)
    time: int = 0
    events: list[str] = field(default_factory=list)


class SlabMachine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.slabs = Sessions(DIM, max_live=2000, initial=4)
        self.plain = {}
        self.undo = None
        self.before = None
        self.clock = 0

    @precondition(lambda self: self.undo is None)
    @rule(users=st.lists(USER, min_size=1, max_size=5, unique=True))
    def begin(self, users):
        created = [user for user in users if self.slabs.find(*user) < 0]
        self.before = deepcopy(self.plain)
        for user in created:
            self.slabs.create(*user)
            self.plain[user] = Plain()
        slots = np.array([self.slabs.find(*user) for user in users])
        self.undo = self.slabs.begin(slots, created)
        self.touched = users

    @precondition(lambda self: self.undo is not None)
    @rule(code=st.integers(-5, ROWS - 1).filter(lambda c: c != EMPTY), fresh=st.booleans())
    def click(self, code, fresh):
        slots = np.array([self.slabs.find(*user) for user in self.touched])
        self.clock += 1
        if fresh:
            self.slabs.start_session(slots)
        self.slabs.push(slots, np.full(len(slots), code, np.int32))
        self.slabs.hidden_SH[slots] += code
        self.slabs.time_S[slots] = self.clock
        for user in self.touched:
            session = self.plain[user]
            if fresh:
                session.items, session.length, session.hidden = [], 0, [0.0] * DIM
            session.items = [*session.items, code][-RING:]
            session.length += 1
            session.hidden = [h + code for h in session.hidden]
            session.time = self.clock

    @precondition(lambda self: self.undo is not None)
    @rule(kept=st.booleans())
    def end(self, kept):
        if not kept:
            self.slabs.roll_back(self.undo)
            self.plain = self.before
        self.undo = None

    @precondition(lambda self: self.undo is None)
    @rule(user=USER)
    def remove(self, user):
        self.slabs.remove(*user)
        self.plain.pop(user, None)

    @precondition(lambda self: self.undo is None)
    @rule(partition=st.integers(0, 2))
    def drop(self, partition):
        self.slabs.drop(partition)
        self.plain = {user: s for user, s in self.plain.items() if user[0] != partition}

    @precondition(lambda self: self.undo is None)
    @rule(
        user=USER, codes=st.lists(st.integers(0, ROWS - 1), max_size=RING), extra=st.integers(0, 50)
    )
    def restore(self, user, codes, extra):
        length = len(codes) + (extra if len(codes) == RING else 0)
        self.slabs.remove(*user)
        slot = self.slabs.create(*user)
        self.slabs.set_ring(slot, codes, length)
        self.plain[user] = Plain(items=codes, length=length)

    @rule(count=st.integers(1, 3))
    def borrow_scratch(self, count):
        slots = [self.slabs.scratch() for _ in range(count)]
        self.slabs.push(np.array(slots), np.full(count, 7, np.int32))
        for slot in slots:
            self.slabs.release(slot)

    @precondition(lambda self: self.undo is None)
    @rule(seed=st.integers(0, 9))
    def translate(self, seed):
        rows_of = np.random.default_rng(seed).permutation(ROWS)
        self.slabs.translate(rows_of)
        for session in self.plain.values():
            session.items = [int(rows_of[c]) if c >= 0 else c for c in session.items]

    @precondition(lambda self: self.undo is None)
    @rule(codes=st.dictionaries(st.integers(-5, -2), st.integers(0, ROWS - 1), max_size=3))
    def rename(self, codes):
        self.slabs.rename(codes)
        for session in self.plain.values():
            session.items = [codes.get(c, c) for c in session.items]

    @invariant()
    def equal(self):
        assert len(self.slabs) == len(self.plain)
        for user, session in self.plain.items():
            slot = self.slabs.find(*user)
            assert slot >= 0
            codes_BR, lengths_B = self.slabs.ordered(np.array([slot]))
            assert codes_BR[0, : lengths_B[0]].tolist() == session.items
            assert (codes_BR[0, lengths_B[0] :] == EMPTY).all()
            assert self.slabs.length_S[slot] == session.length
            assert self.slabs.hidden_SH[slot].tolist() == session.hidden
            assert self.slabs.time_S[slot] == session.time
        slots = [self.slabs.find(*user) for user in self.plain]
        assert len(set(slots)) == len(slots)

    @invariant()
    def idle_order(self):
        oldest = self.slabs.longest_idle(2)
        times = sorted(session.time for session in self.plain.values())
        assert sorted(self.plain[user].time for user in oldest) == times[:2]


TestSlabs = SlabMachine.TestCase
TestSlabs.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@pytest.fixture
def sessions():
    return Sessions(DIM, max_live=2000)


def test_a_new_user_gets_an_empty_slot_however_it_was_used(sessions):
    slot = sessions.create(0, "a")
    sessions.push(np.array([slot]), np.array([5], np.int32))
    sessions.offset_S[slot], sessions.n_S[slot] = 9, 3
    sessions.duplicate(slot, "e", 10)
    sessions.remove(0, "a")

    again = sessions.create(1, "b")

    assert again == slot
    assert (sessions.offset_S[slot], sessions.n_S[slot], sessions.length_S[slot]) == (-1, 0, 0)
    assert not sessions.events_SE[slot].any()


def test_an_event_id_counts_once_within_the_last_32(sessions):
    slot = sessions.create(0, "a")

    assert not sessions.duplicate(slot, "e0", 10)
    assert sessions.duplicate(slot, "e0", 11)
    assert not any(sessions.duplicate(slot, f"e{n}", 11 + n) for n in range(1, 32))
    assert sessions.duplicate(slot, "e0", 60)
    assert not sessions.duplicate(slot, "e32", 61)
    assert not sessions.duplicate(slot, "e0", 62)


def test_a_second_delivery_of_the_same_click_is_no_duplicate(sessions):
    slot = sessions.create(0, "a")
    sessions.duplicate(slot, "e0", 10)
    sessions.duplicate(slot, "e1", 12)
    sessions.offset_S[slot] = 12

    assert not sessions.duplicate(slot, "e0", 10)
    assert sessions.duplicate(slot, "e0", 11)
    assert not sessions.duplicate(slot, "e1", 9)


def test_a_repeat_is_not_remembered_as_a_new_event(sessions):
    slot = sessions.create(0, "a")
    sessions.offset_S[slot] = 20

    sessions.duplicate(slot, "e0", 10)

    assert not sessions.events_SE[slot].any()


def test_a_hash_is_never_that_of_nothing_given():
    assert hash_of(None) == 0
    assert 0 < hash_of("x") < 2**32


def test_a_state_of_another_size_marks_every_state_as_another_versions(sessions):
    slot = sessions.create(0, "a")
    sessions.version_S[slot] = 3

    sessions.resize_state(5)

    assert sessions.hidden_SH.shape[1] == 5
    assert sessions.version_S[slot] == 0


def test_codes_in_use_are_those_that_a_ring_holds(sessions):
    slot = sessions.create(0, "a")
    sessions.push(np.array([slot]), np.array([-2], np.int32))
    sessions.push(np.array([slot]), np.array([4], np.int32))

    assert sessions.codes_in_use() == {-2}
