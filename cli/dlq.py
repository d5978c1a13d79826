"""`nextclick dlq`: look at the clicks that could not be used; knows nothing of their reasons."""

from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import BootstrapOption, ConfigOption, JsonOption, kafka_overrides

if TYPE_CHECKING:
    from stream.dead_letters import DeadLetter

_SHOWN_CHARS = 60

app = typer.Typer(name="dlq", help="Look at dead letters.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at dead letters."""


@app.command()
def show(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Newest of each partition.")] = 20,
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the newest dead letters: where each click lay, why it died, how it begins.

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
