"""A click feed for the trainer's tests."""


class ScriptedFeed:
    """The feed's interface over a list of readings, a hundred at each poll."""

    topic = "clicks"

    def __init__(self, readings) -> None:
        self.readings = readings
        self.next_offsets = {0: 0}
        self.commits: list[dict[int, int]] = []
        self.closed = False
        self.lost = 0

    def start(self, offsets, *, start_from) -> None:
        self.next_offsets = {0: offsets.get(0, 0)}

    def poll(self, *, timeout_ms):
        for reading in self.readings[self.next_offsets[0] :][:100]:
            yield reading
            self.next_offsets[0] += 1

    def commit(self) -> None:
        self.commits.append(dict(self.next_offsets))

    def lag(self):
        return {0: len(self.readings) - self.next_offsets[0]}

    def close(self) -> None:
        self.closed = True

    @property
    def empty(self) -> bool:
        return self.next_offsets[0] == len(self.readings)
