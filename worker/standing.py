"""Which answers a session went on from, after crashes and repeats; checks nothing."""

from __future__ import annotations

from worker.evidence import Answer, Partition
from worker.replay import Clicked


def standing_answers(partition: Partition) -> dict[str, list[Answer]]:
    """Return each user's answers that its session went on from, applied clicks in log order.

    An answer beyond the commit counts only if the changelog has it too: its batch is not complete.
    """
    last = _last_copies(partition.answers)
    standing: dict[str, list[tuple[int, Answer]]] = {}
    for i, answer in enumerate(partition.answers):
        click = _kept_click(partition, answer)
        if click is not None and (answer.replayed or last[answer.offset] == i):
            standing.setdefault(click.user_id, []).append((i, answer))
    return {user_id: _in_log_order(answers) for user_id, answers in standing.items()}


def _last_copies(answers: list[Answer]) -> dict[int, int]:
    """Return offset → index of the answer that applied the click, repeats aside.

    That is the last one of the highest generation: earlier ones were lost in a crash and made
    again, and a stalled worker may append lower ones late.
    """
    last: dict[int, int] = {}
    for i, answer in enumerate(answers):
        known = last.get(answer.offset, i)
        if not answer.replayed and answer.generation >= answers[known].generation:
            last[answer.offset] = i
    return last


def _kept_click(partition: Partition, answer: Answer) -> Clicked | None:
    expected = partition.expected.get(answer.offset)
    if expected is None or expected.outcome != "recommended" or answer.offset < partition.start:
        return None
    click = expected.event
    if click is None or not click.consent:
        return None
    record = partition.sessions.get(click.user_id)
    reached = max(partition.committed - 1, record.last_offset if record is not None else -1)
    return click if answer.offset <= reached else None


def _in_log_order(answers: list[tuple[int, Answer]]) -> list[Answer]:
    # A batch that failed but was written in part is answered again in other portions.
    place = -1
    places: dict[int, int] = {}
    for i, answer in sorted(answers, key=lambda indexed: indexed[1].offset):
        if not answer.replayed:
            place = places[i] = max(place, i)
    answers = sorted(answers, key=lambda a: (places.get(a[0], a[0]), a[1].offset))
    return [answer for _, answer in answers]
