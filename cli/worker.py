"""`nextclick worker`: constructs a worker from the settings and runs it until a signal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import BootstrapOption, ConfigOption, kafka_overrides

if TYPE_CHECKING:
    from collections.abc import Callable

    from cli.settings import Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(worker)


GuaranteeOption = Annotated[
    str | None,
    typer.Option(
        "--guarantee",
        help="at_least_once or exactly_once (processing.guarantee).",
        metavar="NAME",
    ),
]
SlotOption = Annotated[
    str | None,
    typer.Option(
        "--slot",
        help="Lasting name of this process in its group (processing.slot).",
        metavar="NAME",
    ),
]
AcceptOption = Annotated[
    bool,
    typer.Option(
        "--accept-mismatch",
        help="Go on with the sessions as they are where they and the committed offsets disagree.",
    ),
]
RebuildOption = Annotated[
    bool,
    typer.Option(
        "--rebuild-from-events",
        help="Make the sessions anew from the clicks where they and the offsets disagree.",
    ),
]


def worker(
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    guarantee: GuaranteeOption = None,
    slot: SlotOption = None,
    accept_mismatch: AcceptOption = False,
    rebuild_from_events: RebuildOption = False,
) -> None:
    """Answer clicks with recommendations until SIGTERM or Ctrl-C.

    Run as many as there are partitions; each takes its share. Settings come from --config, from the
    environment (NEXTCLICK_WORKER__BATCH__MAX_CLICKS=200) and from flags; `nextclick config show`
    lists them. Exit codes: 0 stopped, 70 bug or watchdog, 71 sessions and offsets disagree, 74
    damaged records, 75 Kafka unavailable or slot taken, 77 not allowed, 78 wrong configuration.

    Examples: nextclick worker --config nextclick.toml

    nextclick worker --guarantee exactly_once --slot worker-0
    """
    from cli.logs import configure_logs
    from cli.roles import run_role
    from cli.settings import load_settings

    if accept_mismatch and rebuild_from_events:
        raise typer.BadParameter("--accept-mismatch and --rebuild-from-events exclude each other")
    flags = {
        "processing.guarantee": guarantee,
        "processing.slot": slot,
        "worker.on_mismatch": "accept" if accept_mismatch else None,
    }
    if rebuild_from_events:
        flags["worker.on_mismatch"] = "rebuild"
    settings = load_settings(config, kafka_overrides(bootstrap_servers) | flags)
    configure_logs()
    run_role(lambda: _construct(settings), name="worker")


def _construct(settings: Settings) -> tuple[Callable[[], None], Callable[[], None]]:
    """Return what runs the worker and what stops it; everything is wired here."""
    from prometheus_client import PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry

    from cli.worker_parts import construct_worker
    from stream.monitor import Health, Watchdog, serve_metrics
    from stream.topics import check
    from worker.metrics import WorkerMetrics
    from worker.worker import CONDITIONS

    check(settings.kafka, settings.topics)
    registry = CollectorRegistry()
    registry.register(PROCESS_COLLECTOR)
    registry.register(PLATFORM_COLLECTOR)
    metrics = WorkerMetrics(registry)
    health = Health(CONDITIONS, max_silence_seconds=settings.kafka.max_poll_interval_ms / 1000)
    server = serve_metrics(registry, health, settings.metrics.host, settings.metrics.worker_port)
    serving = construct_worker(settings, metrics, health)
    # A flush, a commit and the question what was committed may each take that long.
    longest = 3 * settings.kafka.delivery_timeout_ms / 1000
    watchdog = Watchdog(health, limit_seconds=30.0 + longest)

    def run() -> None:
        watchdog.start()
        try:
            serving.run()
        finally:
            watchdog.stop()
            if server is not None:
                server.close()

    return run, serving.stop
