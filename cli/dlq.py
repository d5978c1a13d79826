"""`nextclick dlq`: look at dead letters and replay them; knows nothing of their reasons."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import BootstrapOption, ConfigOption, JsonOption, kafka_overrides

if TYPE_CHECKING:
    from cli.settings import Settings
    from stream.dead_letters import DeadLetter
    from stream.replay_selection import Selection, Tally

_SHOWN_CHARS = 60
_REFUSED = {
    "at_limit": "replayed 3 times already: they stay in the topic",
    "cut": "only the first KiB was kept (oversize): the producer must send them anew",
    "too_old": "older than 7 days: brokers forget after 7 days which letters were replayed",
    "not_ours": "no dead letters of nextclick",
}

ReasonOption = Annotated[
    list[str] | None,
    typer.Option(help="Only letters with this reason; may be repeated.", metavar="REASON"),
]
ReplayLimitOption = Annotated[
    int | None, typer.Option(min=1, help="Replay at most N letters.", metavar="N")
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]

app = typer.Typer(name="dlq", help="Look at dead letters, replay them.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at dead letters, replay them."""


@app.command()
def show(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Newest of each partition.")] = 20,
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest dead letters: where each click lay, why it died, how it begins.

    `attempt` counts how often it was replayed. --json has all that is known of a letter: key and
    value, who wrote it, and whether it was cut.

    Example: nextclick dlq show --limit 5
    """
    from cli.settings import load_settings
    from stream.dead_letters import newest

    settings = load_settings(config, kafka_overrides(bootstrap_servers))
    _print(newest(settings.kafka, settings.topics.dead_letters, limit=limit), as_json)


def _print(letters: "list[DeadLetter]", as_json: bool) -> None:
    import msgspec

    from cli.tables import print_table

    if as_json:
        report = [msgspec.structs.asdict(letter) | {"key": _text(letter.key),
                  "value": _text(letter.value)} for letter in letters]  # fmt: skip
        typer.echo(msgspec.json.encode(report).decode())
        return
    print_table(("click", "reason", "message", "attempt", "value"), map(_row, letters))


def _row(letter: "DeadLetter") -> tuple[str, ...]:
    return (
        f"{letter.topic}/{letter.partition}/{letter.offset}",
        letter.reason,
        letter.message,
        str(letter.attempt),
        repr((letter.value or b"")[:_SHOWN_CHARS])[2:-1],
    )


def _text(data: bytes | None) -> str | None:
    return None if data is None else data.decode(errors="backslashreplace")


@app.command()
def replay(  # noqa: PLR0913, PLR0917  # a command has as many arguments as it has flags
    reason: ReasonOption = None,
    limit: ReplayLimitOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Publish dead letters as clicks again, once what made them fail is mended.

    Each keeps its key and value and goes to the partition of its user. A letter is sent once,
    however often the command runs, and a click at most 3 times; the consumer group
    `<app>-dlq-replay` remembers which were sent. Only a run that is killed, or that loses Kafka,
    may send up to 100 letters again. Letters that were cut, are older than 7 days or had their 3
    attempts are refused and counted.

    Try a few first: what still cannot be used dies again, and too much of it stops the worker.

    Example: nextclick dlq replay --reason misrouted --limit 10

    Example: nextclick dlq replay --dry-run --json
    """
    from cli.settings import load_settings
    from stream.dead_letter_replay import ReplayError
    from stream.replay_selection import Selection

    settings = load_settings(config, kafka_overrides(bootstrap_servers))
    now_ms = int(time.time() * 1_000)
    selection = Selection(reasons=frozenset(reason or ()), limit=limit, now_ms=now_ms)
    try:
        num = _announced(settings, selection, dry_run=dry_run, as_json=as_json)
        if num and (yes or _confirmed(num, settings)):
            _replay(settings, selection, num, as_json=as_json)
    except ReplayError as error:
        typer.echo(f"nextclick: {error}", err=True)
        raise typer.Exit(1) from None


def _announced(
    settings: "Settings", selection: "Selection", *, dry_run: bool, as_json: bool
) -> int:
    """Return how many letters there are to replay; report at once when none will be."""
    found = _preview(settings, selection)
    if dry_run:
        _report(found, "would be replayed", as_json=as_json)
    elif not found.chosen:
        _report(found, "replayed", as_json=as_json)
    return 0 if dry_run else found.chosen.total()


def _confirmed(num: int, settings: "Settings") -> bool:
    question = f"Replay {num:,} letters to {settings.topics.clicks}?"
    return typer.confirm(question, abort=True, err=True)


def _preview(settings: "Settings", selection: "Selection") -> "Tally":
    from rich.console import Console

    from stream import clients
    from stream.dead_letter_replay import preview

    console = Console(stderr=True)
    name = f"{settings.kafka.app}-dlq"
    with (
        closing(clients.dead_letter_consumer(settings.kafka, client_id=name)) as consumer,
        console.status("Counting dead letters"),
    ):
        return preview(consumer, settings.topics.dead_letters, selection)


def _replay(settings: "Settings", selection: "Selection", num: int, *, as_json: bool) -> None:
    """Replay and report, also when it ends early."""
    from threading import Event

    from cli.interrupts import Interrupts
    from stream import clients
    from stream.dead_letter_replay import Replay

    name = f"{settings.kafka.app}-dlq-replay"
    stop, interrupts = Event(), Interrupts()
    producer = clients.producer(settings.kafka, client_id=name)
    consumer = clients.dead_letter_consumer(settings.kafka, client_id=name)
    try:
        run = Replay(consumer, producer, settings.topics, selection)
        with interrupts.installed(), interrupts.asking(stop), _bar(num, hidden=as_json) as show:
            try:
                run.run(lambda tally: show(tally.chosen.total()) or not stop.is_set())
            finally:
                _report(run.tally, "replayed", as_json=as_json, stopped=stop.is_set())
    finally:
        consumer.close(autocommit=False, timeout_ms=5_000)
        producer.close(timeout=5)


@contextmanager
def _bar(total: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """Draw a bar on stderr, where it disturbs nobody who reads the output."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress

    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn())
    with Progress(*columns, console=console, disable=hidden or not console.is_terminal) as progress:
        bar = progress.add_task("letters", total=total)
        yield lambda done: progress.update(bar, completed=done)


def _report(tally: "Tally", what: str, *, as_json: bool, stopped: bool = False) -> None:
    from cli.tables import print_table

    if as_json:
        _print_json({
            what.replace(" ", "_"): dict(tally.chosen), "refused": dict(tally.refused),
            "other_reasons": dict(tally.others), "stopped": stopped,
        })  # fmt: skip
        return
    rows = [(what, reason, number) for reason, number in tally.chosen.most_common()]
    rows += [("refused", _REFUSED[why], number) for why, number in tally.refused.most_common()]
    rows += [("left", f"other reason: {r}", number) for r, number in tally.others.most_common()]
    if rows:
        print_table(("", "dead letters", "number"), [(a, b, f"{n:,}") for a, b, n in rows])
    else:
        typer.echo("No dead letter waits for a replay.")
    if stopped:
        typer.echo("Stopped on request; run it again to go on.")


def _print_json(report: dict[str, Any]) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(report).decode())
