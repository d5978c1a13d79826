"""What can go wrong with a message on its way to a broker or back; it does not know sockets.

A fault acts on requests of the named APIs (on all without a name) or, `on="reply"`, on their
replies: the broker has acted upon those already. `times` limits how many messages it hits, `client`
whose: clients with an id that starts so. As a context manager a fault is lifted at the end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from random import Random
from typing import Literal, NamedTuple, Self, TypedDict, Unpack

from benchmarks.chaos.wire import Request, has_records, with_error, with_flipped_byte

Side = Literal["request", "reply"]

_LOOK_SECONDS = 0.005


class Message(NamedTuple):
    """A request or a reply, the header of its request, and the broker at the other end."""

    side: Side
    request: Request
    payload: bytes
    broker_port: int


class Verdict(Enum):
    """What happens to a connection instead of passing a message on."""

    CLOSE = auto()
    CUT = auto()
    SILENCE = auto()


class Which(TypedDict, total=False):
    """Which messages a fault hits; see the module."""

    on: Side
    times: int
    client: str


class Fault:
    """Something that goes wrong with certain messages, and how often it did."""

    def __init__(
        self,
        apis: tuple[str, ...],
        act: Callable[[Fault, Message], Awaitable[bytes | Verdict]],
        which: Which,
    ) -> None:
        self.act = act
        self.hits = 0
        self.lifted = False
        self.held: list[Message] = []
        self._apis = apis
        self._side = which.get("on", "request")
        self._times = which.get("times")
        self._client = which.get("client", "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.lift()

    def lift(self) -> None:
        """Hit nothing any more; a stalled message passes."""
        self.lifted = True

    def matches(self, message: Message) -> bool:
        """Tell whether the fault acts on this message."""
        over = self.lifted or (self._times is not None and self.hits >= self._times)
        named = not self._apis or message.request.api in self._apis
        ours = message.request.client_id.startswith(self._client)
        return message.side == self._side and named and ours and not over


def close(*apis: str, **which: Unpack[Which]) -> Fault:
    """Close the client's connection instead of passing the message."""
    return Fault(apis, _always(Verdict.CLOSE), which)


def cut(*apis: str, **which: Unpack[Which]) -> Fault:
    """Pass half of the message, then close the connection."""
    return Fault(apis, _always(Verdict.CUT), which)


def silence(*apis: str, **which: Unpack[Which]) -> Fault:
    """Leave the connection open, but pass nothing on it any more, from this message on."""
    return Fault(apis, _always(Verdict.SILENCE), which)


def stall(*apis: str, **which: Unpack[Which]) -> Fault:
    """Keep the message, and what is behind it on its connection, until the fault is lifted."""

    async def act(fault: Fault, message: Message) -> bytes:
        while not fault.lifted:
            await asyncio.sleep(_LOOK_SECONDS)
        return message.payload

    return Fault(apis, act, which)


def delay(*apis: str, seconds: tuple[float, float], rng: Random, **which: Unpack[Which]) -> Fault:
    """Pass messages late by a random time between two bounds; those behind them wait too."""

    async def act(fault: Fault, message: Message) -> bytes:
        await asyncio.sleep(rng.uniform(*seconds))
        return message.payload

    return Fault(apis, act, which)


def hold(*apis: str, **which: Unpack[Which]) -> Fault:
    """Keep requests in `held` and close their connections: a network that delivers them later."""

    async def act(fault: Fault, message: Message) -> Verdict:
        fault.held.append(message)
        return Verdict.CLOSE

    return Fault(apis, act, which)


def copy(*apis: str, **which: Unpack[Which]) -> Fault:
    """Pass requests on and keep a copy of each in `held`: a network that duplicates them."""

    async def act(fault: Fault, message: Message) -> bytes:
        fault.held.append(message)
        return message.payload

    return Fault(apis, act, which)


def error(*apis: str, code: int, topic: str = "", **which: Unpack[Which]) -> Fault:
    """Replace the error codes in replies, of every partition or of those of one topic."""

    async def act(fault: Fault, message: Message) -> bytes:
        return with_error(message.request, message.payload, code, topic)

    return Fault(apis, act, {**which, "on": "reply"})


class _Flip(Fault):
    def matches(self, message: Message) -> bool:
        """Spare replies without records."""
        return super().matches(message) and has_records(message.request, message.payload)


def flip_byte(rng: Random, **which: Unpack[Which]) -> Fault:
    """Change one random byte of the records in Fetch replies that have any."""

    async def act(fault: Fault, message: Message) -> bytes:
        return with_flipped_byte(message.request, message.payload, rng)

    return _Flip(("Fetch",), act, {**which, "on": "reply"})


def _always(verdict: Verdict) -> Callable[[Fault, Message], Awaitable[Verdict]]:
    async def act(fault: Fault, message: Message) -> Verdict:
        return verdict

    return act
