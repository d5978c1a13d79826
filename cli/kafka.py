"""`nextclick kafka`: a local broker in the background; knows nothing of how it runs."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cli.options import JsonOption

if TYPE_CHECKING:
    from stream.background_kafka import BackgroundKafka
    from stream.kafka_runtime import KafkaRuntime

app = typer.Typer(
    name="kafka", help="Run a local Apache Kafka in the background.", no_args_is_help=True
)

DEFAULT_PORT = 9092
_FAILED = 1

BrokersOption = Annotated[
    Literal["1", "3"],
    typer.Option(help="Brokers: 1, or 3 with a controller of their own to try fail-over."),
]
PortOption = Annotated[
    int | None,
    typer.Option(
        help="Port of the first broker.",
        show_default="9092 if free, else a free one",
        min=1024,
        max=65535,
    ),
]
DirectoryOption = Annotated[
    Path | None,
    typer.Option(help="Where the data are kept.", show_default="in the user's state directory"),
]
KafkaHomeOption = Annotated[
    Path | None,
    typer.Option(
        envvar="KAFKA_HOME", help="An unpacked Apache Kafka to run instead of the fetched one."
    ),
]
WipeOption = Annotated[bool, typer.Option("--wipe", help="Also remove the data.")]


@app.command()
def up(
    brokers: BrokersOption = "1",
    port: PortOption = None,
    directory: DirectoryOption = None,
    kafka_home: KafkaHomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start Kafka on the loopback interface, leave it running and print its address.

    The first time, 45 MB of jars are fetched into the user's cache. Topics and records
    survive `down` and the next `up`.

    Examples:

        nextclick kafka up

        nextclick kafka up --brokers 3 --directory /tmp/kafka
    """
    from stream import background_kafka
    from stream.local_kafka import LocalKafka

    with _clear_errors():
        known = background_kafka.recorded()
        if known is not None and known.running:
            _report_running(known, as_json)
            return
        kafka = LocalKafka(
            directory or background_kafka.state_directory() / f"brokers-{brokers}",
            int(brokers),
            runtime=_runtime(kafka_home),
            port=_chosen(port),
            detached=True,
        )
        with _interruptible(), _spinner("Starting Kafka (longer the first time)"):
            started = background_kafka.bring_up(kafka)
    _report(started, as_json, started.bootstrap_servers)


@app.command()
def down(wipe: WipeOption = False) -> None:
    """Stop the Kafka that `up` started; the data stay unless --wipe is given.

    Example: nextclick kafka down --wipe
    """
    from stream import background_kafka
    from stream.local_kafka import wipe as wipe_directory

    with _clear_errors():
        stopped = background_kafka.take_down()
        typer.echo("Kafka was not running" if stopped is None else "Kafka stopped")
        known = background_kafka.recorded()
        if wipe and known is not None and wipe_directory(Path(known.directory)):
            typer.echo(f"removed {known.directory}")


@app.command()
def status(as_json: JsonOption = False) -> None:
    """Show the address and the processes; exit 1 if Kafka does not run.

    Example: nextclick kafka status --json
    """
    from stream import background_kafka

    known = background_kafka.recorded()
    running = known is not None and known.running
    if known is None or not running:
        _report(known, as_json, "Kafka does not run; start it with `nextclick kafka up`")
        raise typer.Exit(_FAILED)
    lines = [known.bootstrap_servers, f"data in {known.directory}"]
    for node in known.nodes:
        lines.append(f"node {node.node_id}: process {node.pid} {_state(node.alive)}")
    _report(known, as_json, "\n".join(lines))


def _state(alive: bool) -> str:
    return "runs" if alive else "has ended"


def _report_running(known: "BackgroundKafka", as_json: bool) -> None:
    ended = [node.node_id for node in known.nodes if not node.alive]
    typer.echo("Kafka is already up", err=True)
    if ended:
        typer.echo(f"but nodes {ended} have ended: `nextclick kafka down`, then up", err=True)
    _report(known, as_json, known.bootstrap_servers)


def _report(known: "BackgroundKafka | None", as_json: bool, text: str) -> None:
    import msgspec

    if not as_json:
        typer.echo(text)
        return
    content: dict[str, Any] = {"running": known is not None and known.running}
    if known is not None:
        content |= msgspec.to_builtins(known)
        content["nodes"] = [
            {"node_id": node.node_id, "pid": node.pid, "alive": node.alive} for node in known.nodes
        ]
    typer.echo(msgspec.json.encode(content).decode())


def _runtime(kafka_home: Path | None) -> "KafkaRuntime":
    """Return the runtime, with a progress bar while jars are fetched."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from stream.kafka_runtime import ensure_runtime

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Fetching Apache Kafka", total=None, visible=False)

        def show(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, visible=True)

        return ensure_runtime(show, kafka_home=kafka_home)


@contextmanager
def _spinner(text: str) -> Iterator[None]:
    from rich.console import Console

    with Console(stderr=True).status(text):
        yield


def _chosen(port: int | None) -> int | None:
    """Return the port to use, None for any free one; refuse a wanted one that is taken."""
    from stream.kafka_node import is_free

    if port is None:
        return DEFAULT_PORT if is_free(DEFAULT_PORT) else None
    if not is_free(port):
        raise typer.BadParameter(f"something else listens on port {port}", param_hint="--port")
    return port


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let a SIGTERM end the start as Ctrl-C does, so that no half-started broker stays."""

    def leave(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before: Callable[..., object] | int | None = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _clear_errors() -> Iterator[None]:
    """Turn what can go wrong with local Kafka into one message and exit code 1."""
    from stream.background_kafka import AlreadyUpError
    from stream.local_kafka import KafkaDirectoryError, KafkaStartError, KafkaUnavailableError

    try:
        yield
    except (
        AlreadyUpError,
        KafkaDirectoryError,
        KafkaStartError,
        KafkaUnavailableError,
    ) as error:
        typer.echo(f"nextclick: {error}", err=True)
        raise typer.Exit(_FAILED) from error
