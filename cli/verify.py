"""`nextclick verify`: chooses whose topics to check; what must hold is known elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.options import BootstrapOption, ConfigOption, JsonOption, kafka_overrides

if TYPE_CHECKING:
    from rich.console import Console

    from cli.settings import Settings
    from model.bundle import Bundle
    from stream.kafka_types import KafkaConsumer
    from worker.report import Report

_SHOWN_VIOLATIONS = 20
_TIMEOUT_MS = 10_000
_ABORT_SECONDS = 20.0  # brokers look for overdue transactions every 10 s


class NothingToVerifyError(RuntimeError):
    """There are no topics to check; the text says where was looked."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verify)


def verify(
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check that every click has exactly one outcome and every session equals a replay.

    It needs the topics from their first record on: run it before retention removes any. Without
    --bootstrap-servers or --config it looks at the Kafka of `nextclick kafka up`, else at
    what the last `nextclick demo` left. Exit code 1 when something is wrong.

    Example: nextclick verify --bootstrap-servers 127.0.0.1:9092
    """
    from rich.console import Console

    from cli.demo_home import DemoBusyError
    from stream.local_kafka import KafkaDirectoryError, KafkaStartError, KafkaUnavailableError
    from worker.evidence import ExpiredEvidenceError

    console = Console(stderr=True)
    try:
        with _chosen(config, bootstrap_servers, console) as settings, console.status("Checking"):
            report = audit(settings)
    except (
        *(NothingToVerifyError, DemoBusyError, ExpiredEvidenceError),
        *(KafkaDirectoryError, KafkaStartError, KafkaUnavailableError),
    ) as error:
        typer.echo(f"nextclick: {error}", err=True)
        raise typer.Exit(1) from None
    print_report(report, as_json=as_json)
    if report.violations:
        raise typer.Exit(1)


def audit(settings: Settings, *, exactly_once: bool = False) -> Report:
    """Compare the topics with a replay; raises NothingToVerifyError when there are none.

    `exactly_once` requires that every outcome was given under it; else the markers tell.
    """
    from contextlib import ExitStack, closing

    from cli.roles import single_thread
    from stream import clients
    from worker.evidence import Evidence
    from worker.verify import Verifier

    single_thread()
    if not has_topics(settings):
        raise NothingToVerifyError(
            f"there is no topic {settings.topics.clicks} at {settings.kafka.bootstrap_servers}"
        )
    name, own = f"{settings.kafka.app}-verify", settings.worker
    with ExitStack() as stack:
        # It joins nothing: a member of the group only by its name.
        group = clients.click_consumer(settings.kafka, settings.processing, client_id=name)
        stack.enter_context(closing(group))
        reader, ends = (
            stack.enter_context(
                closing(clients.reader(settings.kafka, client_id=name, isolation=isolation))
            )
            for isolation in ("read_committed", "read_uncommitted")
        )
        evidence = Evidence(reader, ends, settings.topics, ttl_days=own.sessions.ttl_days)
        verifier = Verifier(
            *(evidence, own.sessions, _loader(settings)),
            exactly_once=exactly_once,
            start_from=own.start_from,
        )
        topic = settings.topics.clicks
        committed = {p: _committed(group, topic, p) for p in group.partitions_for_topic(topic)}
        report = verifier.verify(committed, lambda p: _committed(group, topic, p))
    _check_transactions(settings, report)
    return report


def _committed(group: KafkaConsumer, topic: str, partition: int) -> int | None:
    """Return the workers' offset of a clicks partition; waits while a transaction is pending."""
    from stream.kafka_types import TopicPartition

    offset: int | None = group.committed(TopicPartition(topic, partition), timeout_ms=_TIMEOUT_MS)
    return offset


def _check_transactions(settings: Settings, report: Report) -> None:
    """Check I10: brokers end what its worker does not; a transaction that they left is stuck."""
    from stream.transactions import open_transactions

    if "exactly_once" not in {settings.processing.guarantee, *report.guarantees}:
        return
    report.open_transactions = open_transactions(settings.kafka)
    limit = settings.processing.transaction_timeout_ms / 1000 + _ABORT_SECONDS
    for name, seconds in report.open_transactions.items():
        if seconds > limit:
            report.violate(f"transaction {name}: open for {seconds:.0f} s, at most {limit:.0f}")


def has_topics(settings: Settings) -> bool:
    """Tell whether the clicks topic exists; raises the client's error without a broker."""
    from stream.topics import describe

    found = {state.name: state.partitions for state in describe(settings.kafka, settings.topics)}
    return found[settings.topics.clicks] > 0


def _loader(settings: Settings) -> Callable[[str], Bundle | None]:
    """Return what loads a version, None for one no longer stored or that cannot be read."""
    from model.bundle import BundleError
    from model.joined import StoredVersions
    from model.store import Store

    store = Store(settings.store.url)
    own = settings.worker
    versions = StoredVersions(store, own.model, max_bytes=own.max_bundle_bytes)

    def load(version: str) -> Bundle | None:
        try:
            return versions.load(version)
        except (BundleError, ValueError):  # ValueError: a header may name anything
            return None

    return load


@contextmanager
def _chosen(
    config: Path | None, bootstrap_servers: str | None, console: Console
) -> Iterator[Settings]:
    """Yield the settings of what is to be checked, and say what that is."""
    from cli.settings import load_settings
    from stream.background_kafka import running_bootstrap_servers

    settings = load_settings(config, kafka_overrides(bootstrap_servers))
    running = running_bootstrap_servers()
    if config is None and bootstrap_servers is None:
        if running is None or not has_topics(found := _at(settings, running)):
            with _last_demo(console) as found:
                yield found
            return
        settings = found
    where = f"Kafka at {settings.kafka.bootstrap_servers}, topic {settings.topics.clicks}"
    console.print(f"Checking {where}", highlight=False)
    yield settings


def _at(settings: Settings, bootstrap_servers: str) -> Settings:
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})
    return settings.model_copy(update={"kafka": kafka})


@contextmanager
def _last_demo(console: Console) -> Iterator[Settings]:
    """Yield the settings of the last demo, its own broker running again meanwhile."""
    from cli.demo_home import default_home
    from cli.demo_system import own_kafka
    from cli.settings import load_settings
    from cli.steps import Steps

    home = default_home()
    if not home.config.exists():
        raise NothingToVerifyError(
            "nothing to verify: no Kafka of `nextclick kafka up` with these topics runs, and no "
            f"demo left data in {home.root}. Run `nextclick demo`, or give --bootstrap-servers"
        )
    console.print(f"Checking the last demo, kept in {home.root}", highlight=False, soft_wrap=True)
    with home.held():
        settings = load_settings(home.config)
        if not home.kafka.exists():
            yield settings
            return
        with own_kafka(home, Steps(console)) as bootstrap_servers:
            yield _at(settings, bootstrap_servers)


def print_report(report: Report, *, as_json: bool) -> None:
    """Print a report as a table, or as JSON."""
    import msgspec

    from cli.tables import print_table

    if as_json:
        typer.echo(msgspec.json.encode(report).decode())
        return
    skipped = ", ".join(f"{n} {reason}" for reason, n in sorted(report.skipped.items()))
    guarantees = sorted(report.guarantees.items())
    rows = [
        ("clicks with an outcome", str(report.clicks)),
        ("recommendations", f"{report.recommendations}, and {report.repeated} repeated"),
        ("dead letters", str(report.dead_letters)),
        ("skipped", skipped or "0"),
        ("waiting for their outcome", str(report.pending)),
        ("committed", ", ".join(f"{n} {name}" for name, n in guarantees) or "nothing yet"),
        ("sessions equal to a replay", f"{report.sessions}, {report.states} with their state"),
        ("model versions", str(len(report.model_versions))),
        ("violations", str(len(report.violations))),
    ]
    print_table(("checked", ""), rows)
    for violation in report.violations[:_SHOWN_VIOLATIONS]:
        typer.echo(violation)
