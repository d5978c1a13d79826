"""Health, the metrics endpoint, batch histograms and the watchdog of one process; knows no role."""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import numpy as np
import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from stream.exit_codes import BUG

LATENCY_BUCKETS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1),
    *(0.25, 0.5, 1.0, 2.5, 10.0),
)
STAGE_BUCKETS = (
    *(50e-6, 100e-6, 250e-6, 500e-6, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1),
    *(0.25, 1.0),
)

log = structlog.get_logger(__name__)


class BatchHistogram(Collector):
    """Count a whole batch of values at once.

    `Histogram.observe` costs 0.7 µs a value; bucketing an array costs 0.01 µs a value.
    """

    def __init__(
        self, name: str, documentation: str, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._documentation = documentation
        self._edges = np.asarray(buckets, dtype=np.float64)
        self._counts = np.zeros(len(buckets) + 1, dtype=np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()
        registry.register(self)

    def observe_many(self, values: np.ndarray[Any, np.dtype[np.float64]]) -> None:
        """Add `values` [n], seconds."""
        buckets = np.searchsorted(self._edges, values, side="left")
        counts = np.bincount(buckets, minlength=len(self._counts))
        with self._lock:
            self._counts += counts
            self._sum += float(values.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the family with cumulative buckets, as Prometheus wants it."""
        with self._lock:
            cumulative = np.cumsum(self._counts)
            total = self._sum
        names = [*(repr(float(edge)) for edge in self._edges), "+Inf"]
        family = HistogramMetricFamily(self._name, self._documentation)
        pairs = [(name, float(count)) for name, count in zip(names, cumulative, strict=True)]
        family.add_metric([], pairs, sum_value=total)
        yield family


class StoppedError(Exception):
    """The process was asked to end while it waited for brokers."""


class Health:
    """What `/healthz` and `/readyz` answer: local progress and readiness, never broker health.

    Liveness is the age of the last `beat`; readiness is a set of named conditions that must all
    hold. `stopping` says that the process was asked to end. Written by the loop and by signal
    handlers, read by the endpoint's threads: each value is one assignment.
    """

    def __init__(self, conditions: Iterable[str], *, max_silence_seconds: float = 60.0) -> None:
        self._conditions = dict.fromkeys(conditions, False)
        self._max_silence_seconds = max_silence_seconds
        self._last_beat = time.monotonic()
        self.stopping = False

    def beat(self) -> None:
        """Say that the loop has come round."""
        self._last_beat = time.monotonic()

    def beat_in_wait(self) -> None:
        """Beat within a wait for brokers; raises StoppedError once the process is to end."""
        if self.stopping:
            raise StoppedError
        self.beat()

    def set(self, condition: str, holds: bool) -> None:
        """Note whether a readiness `condition` holds; raises KeyError for an unknown one."""
        if condition not in self._conditions:
            raise KeyError(condition)
        self._conditions[condition] = holds

    @property
    def silence_seconds(self) -> float:
        """Seconds since the last beat."""
        return time.monotonic() - self._last_beat

    @property
    def alive(self) -> bool:
        """Whether the loop came round lately."""
        return self.silence_seconds < self._max_silence_seconds

    @property
    def missing(self) -> list[str]:
        """The readiness conditions that do not hold."""
        return [name for name, holds in self._conditions.items() if not holds]


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    # A scraper that holds its socket must not hold our exit.
    block_on_close = False


class _QuietHandler(WSGIRequestHandler):
    timeout = 10.0

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: a scrape every few seconds is not news."""


class MetricsServer:
    """`/metrics`, `/healthz` and `/readyz` on one port, served by daemon threads.

    Raises OSError when the address cannot be bound. Port 0 takes a free one.
    """

    def __init__(self, registry: CollectorRegistry, health: Health, host: str, port: int) -> None:
        self._metrics = make_wsgi_app(registry)
        self._health = health
        self._server = make_server(host, port, self._answer, _ThreadingServer, _QuietHandler)
        self.port: int = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving and release the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        path = environ.get("PATH_INFO", "/")
        if path == "/metrics":
            return self._metrics(environ, start_response)
        status, text = self._probe(path)
        start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
        return [text.encode()]

    def _probe(self, path: str) -> tuple[str, str]:
        if path == "/healthz":
            if self._health.alive:
                return "200 OK", "alive\n"
            silence = self._health.silence_seconds
            return "503 Service Unavailable", f"no progress for {silence:.0f} s\n"
        if path == "/readyz":
            if missing := self._health.missing:
                return "503 Service Unavailable", f"waiting for: {', '.join(missing)}\n"
            return "200 OK", "ready\n"
        return "404 Not Found", "try /metrics, /healthz or /readyz\n"


def serve_metrics(
    registry: CollectorRegistry, health: Health, host: str, port: int
) -> MetricsServer | None:
    """Start the endpoint; a taken port is an error in the log, never a reason to stop serving."""
    try:
        return MetricsServer(registry, health, host, port)
    except OSError as error:
        log.error("metrics endpoint not started", host=host, port=port, error=str(error))
        return None


class Watchdog:
    """End the process when the loop has not come round for `limit_seconds`.

    kafka-python has calls that can hang for ever (D9, F49); nothing else gets a process out of
    them. Stacks of all threads go to stderr, then exit code 70.
    """

    def __init__(self, health: Health, *, limit_seconds: float = 30.0) -> None:
        self._health = health
        self._limit_seconds = limit_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Start watching."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; returns when the thread is gone."""
        self._stop.set()
        self._thread.join(timeout=5)

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._limit_seconds / 4)):
            silence = self._health.silence_seconds
            if silence > self._limit_seconds:
                log.critical("no progress, exiting", seconds=round(silence, 1))
                faulthandler.dump_traceback(sys.stderr)
                os._exit(BUG)
