from collections.abc import Iterator
from threading import Event
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from stream.messages import decode_click
from stream.publisher import ClickPublisher, PacedClick, PublishError, publish_paced

START_MS = 1_700_000_000_000


class Pending:
    """A send whose fate the test decides: `settle` is called at the latest by get()."""

    def __init__(self, error: Exception | None) -> None:
        self.is_done = False
        self.exception: Exception | None = None
        self._error = error

    def settle(self) -> None:
        self.is_done, self.exception = True, self._error

    def succeeded(self) -> bool:
        return self.is_done and self.exception is None

    def get(self, timeout: float) -> None:
        self.settle()
        if self.exception:
            raise self.exception


class MemoryProducer:
    """Keeps what is sent; clicks of the users in `failing` are not acknowledged."""

    def __init__(self, failing: tuple[str, ...] = ()) -> None:
        self.sent: list[tuple[str, bytes, bytes]] = []
        self.futures: list[Pending] = []
        self.most_pending = 0
        self._failing = failing

    def send(self, topic: str, value: bytes, key: bytes) -> Pending:
        self.sent.append((topic, value, key))
        error = KafkaTimeoutError("late") if key.decode() in self._failing else None
        self.futures.append(Pending(error))
        self.most_pending = max(
            self.most_pending, sum(not future.is_done for future in self.futures)
        )
        return self.futures[-1]

    def flush(self, timeout: float) -> None:
        for future in self.futures:
            future.settle()


def publisher_of(producer: Any, **options: Any) -> ClickPublisher:
    return ClickPublisher(producer, "clicks", **options)


def clicks(due_ms: list[float | None]) -> Iterator[PacedClick]:
    return (PacedClick(f"u{n}", f"i{n}", None, due) for n, due in enumerate(due_ms))


def test_a_click_is_json_keyed_by_its_user() -> None:
    producer = MemoryProducer()

    publisher_of(producer).publish("u1", "i1", START_MS, session_id="s1")

    topic, value, key = producer.sent[0]
    click = decode_click(value)
    assert (topic, key) == ("clicks", b"u1")
    assert (click.user_id, click.item_id, click.session_id) == ("u1", "i1", "s1")
    assert click.timestamp == START_MS


def test_no_more_than_the_allowed_number_is_in_flight() -> None:
    producer = MemoryProducer()
    publisher = publisher_of(producer, max_in_flight=10)

    for number in range(100):
        publisher.publish(f"u{number}", "i", START_MS)
    publisher.flush()

    assert producer.most_pending == 10
    assert (publisher.published, publisher.failed) == (100, 0)


@pytest.mark.parametrize("max_in_flight", [1, 100])
def test_failures_are_counted_and_raised_by_flush(max_in_flight: int) -> None:
    publisher = publisher_of(MemoryProducer(failing=("u1", "u3")), max_in_flight=max_in_flight)
    for number in range(5):
        publisher.publish(f"u{number}", "i", START_MS)

    with pytest.raises(PublishError, match=r"2 of 5 clicks were not acknowledged.*late"):
        publisher.flush()

    assert (publisher.published, publisher.failed) == (3, 2)


def test_a_click_that_cannot_be_sent_raises_at_once() -> None:
    class Refusing(MemoryProducer):
        def send(self, topic: str, value: bytes, key: bytes) -> Pending:
            raise MessageSizeTooLargeError("too large")

    with pytest.raises(PublishError, match=r"cannot publish to topic clicks.*too large"):
        publisher_of(Refusing()).publish("u", "i", START_MS)


def test_clicks_go_out_when_due_and_are_stamped_with_that_time() -> None:
    producer = MemoryProducer()
    now = [100.0]

    class Waiting(Event):
        def wait(self, timeout: float | None = None) -> bool:
            now[0] += timeout or 0.0
            return self.is_set()

    sent = publish_paced(
        publisher_of(producer),
        clicks([0.0, 1_000.0, 1_001.0, 60_000.0]),
        start_ms=START_MS,
        stop=Waiting(),
        monotonic=lambda: now[0],
    )

    stamps = [decode_click(value).timestamp - START_MS for _, value, _ in producer.sent]
    assert sent == 4
    assert stamps == [0, 1_000, 1_001, 60_000]
    assert 160.0 <= now[0] < 160.1


def test_clicks_without_a_due_time_are_stamped_with_the_present() -> None:
    producer = MemoryProducer()
    ticks = iter([10.0, 10.0, 10.5, 12.0])

    publish_paced(
        publisher_of(producer),
        clicks([None, None, None]),
        start_ms=START_MS,
        stop=Event(),
        monotonic=lambda: next(ticks),
    )

    stamps = [decode_click(value).timestamp - START_MS for _, value, _ in producer.sent]
    assert stamps == [0, 500, 2_000]


def test_pacing_stops_when_asked_and_when_a_click_has_failed() -> None:
    stop = Event()

    def endless() -> Iterator[PacedClick]:
        while True:
            yield PacedClick("u1", "i", None, None)
            stop.set()

    assert publish_paced(publisher_of(MemoryProducer()), endless(), start_ms=0, stop=stop) == 1

    failing = publisher_of(MemoryProducer(failing=("u0",)), max_in_flight=1)
    assert publish_paced(failing, clicks([None] * 50), start_ms=0, stop=Event()) == 2
