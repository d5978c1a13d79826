"""A proxy in front of every broker, which lets planted faults act on each Kafka message.

It knows frames and addresses; what goes wrong is the faults' business. Clients that start from
`bootstrap_servers` stay behind it, because the addresses in replies are rewritten.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Any

from benchmarks.chaos.network_faults import Fault, Message, Verdict
from benchmarks.chaos.wire import (
    WITH_ADDRESSES,
    Request,
    correlation_id,
    decode_reply,
    request_of,
    with_addresses,
)

LOOPBACK = "127.0.0.1"
MAX_FRAME_BYTES = 100 * 1024 * 1024
WAIT_SECONDS = 5.0


class FaultProxy:
    """One listening port on the loopback interface per broker, served by a daemon thread."""

    def __init__(self, broker_addresses: str) -> None:
        self._brokers = [int(item.rpartition(":")[2]) for item in broker_addresses.split(",")]
        self._faults: tuple[Fault, ...] = ()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[asyncio.Server] = []
        self._links: set[asyncio.Task[None]] = set()
        self.ports: dict[int, int] = {}
        self.passed: Counter[str] = Counter()
        self.failures: list[Exception] = []
        self.bytes_per_second: float | None = None

    def __enter__(self) -> FaultProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(WAIT_SECONDS)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result(WAIT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()
        if self.failures and error is None:
            raise self.failures[0]  # our own bug, not a planted fault

    @property
    def bootstrap_servers(self) -> str:
        """Address list for clients."""
        return ",".join(f"{LOOPBACK}:{port}" for port in self.ports.values())

    def plant(self, fault: Fault) -> Fault:
        """Let a fault act from now on, after those planted before it; returns it."""
        self._faults = (*(known for known in self._faults if not known.lifted), fault)
        return fault

    async def judge(self, message: Message) -> bytes | Verdict:
        """Return what the faults make of a message."""
        for fault in self._faults:
            if fault.matches(message):
                fault.hits += 1
                outcome = await fault.act(fault, message)
                if isinstance(outcome, Verdict):
                    return outcome
                message = message._replace(payload=outcome)
        return message.payload

    async def _listen(self) -> None:
        for broker_port in self._brokers:

            async def serve(
                reader: asyncio.StreamReader,
                writer: asyncio.StreamWriter,
                broker_port: int = broker_port,
            ) -> None:
                await self._serve(reader, writer, broker_port)

            server = await asyncio.start_server(serve, LOOPBACK, 0)
            self._servers.append(server)
            self.ports[broker_port] = server.sockets[0].getsockname()[1]

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, broker_port: int
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        try:
            broker = await asyncio.open_connection(LOOPBACK, broker_port)
        except OSError:  # the broker is away: so is the proxy
            writer.close()
        else:
            await _Link(self, broker_port, (reader, writer), broker).serve()
        finally:
            self._links.discard(task)

    async def _hang_up(self) -> None:
        for server in self._servers:
            server.close()
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)


_Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """A client's connection and the one to its broker."""

    def __init__(self, proxy: FaultProxy, broker_port: int, client: _Ends, broker: _Ends) -> None:
        self._proxy = proxy
        self._broker_port = broker_port
        self._client = client
        self._broker = broker
        self._waiting: dict[int, Request] = {}
        self._silent = False

    async def serve(self) -> None:
        """Pass messages both ways until one end closes or a fault ends it."""
        pumps = [asyncio.create_task(self._requests()), asyncio.create_task(self._replies())]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:  # the proxy ends: wait for no peer that does not read
            for _, writer in (self._client, self._broker):
                writer.transport.abort()
        finally:
            for pump in pumps:
                pump.add_done_callback(self._note_failure)
                pump.cancel()
            for _, writer in (self._client, self._broker):
                writer.close()

    def _note_failure(self, pump: asyncio.Task[None]) -> None:
        if not pump.cancelled() and isinstance(error := pump.exception(), Exception):
            self._proxy.failures.append(error)

    async def _requests(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                payload = await _read_frame(self._client[0])
                request = request_of(payload)
                self._waiting[request.correlation_id] = request
                message = Message("request", request, payload, self._broker_port)
                if not await self._pass(message, self._broker[1]):
                    return
                self._proxy.passed[request.api] += not self._silent

    async def _replies(self) -> None:
        with suppress(OSError, EOFError):
            while True:
                payload = await _read_frame(self._broker[0])
                request = self._waiting.pop(correlation_id(payload))
                if request.api in WITH_ADDRESSES:
                    payload = with_addresses(request, payload, self._proxy.ports)
                message = Message("reply", request, payload, self._broker_port)
                if not await self._pass(message, self._client[1]):
                    return

    async def _pass(self, message: Message, writer: asyncio.StreamWriter) -> bool:
        """Pass a message as far as the faults let it; False ends the connection."""
        if self._silent:
            return True
        outcome = await self._proxy.judge(message)
        if outcome is Verdict.SILENCE:
            self._silent = True
        if self._silent:
            return True
        if outcome is Verdict.CLOSE:
            return False
        payload = message.payload if isinstance(outcome, Verdict) else outcome
        frame = len(payload).to_bytes(4, "big") + payload
        if outcome is Verdict.CUT:
            frame = frame[: len(frame) // 2]
        if self._proxy.bytes_per_second is not None:
            await asyncio.sleep(len(frame) / self._proxy.bytes_per_second)
        writer.write(frame)
        await writer.drain()
        return outcome is not Verdict.CUT


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(4), "big")
    if length > MAX_FRAME_BYTES:
        raise OSError(f"a frame of {length} bytes")
    return await reader.readexactly(length)


def deliver(held: Message) -> Any:
    """Bring a held request to its broker on a connection of its own; returns the decoded reply."""
    with socket.create_connection((LOOPBACK, held.broker_port), WAIT_SECONDS) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.sendall(len(held.payload).to_bytes(4, "big") + held.payload)
        with connection.makefile("rb") as replies:
            length = int.from_bytes(replies.read(4), "big")
            return decode_reply(held.request, replies.read(length))
