"""The `nextclick` command: joins the groups of commands and turns errors into exit codes."""

import sys
from importlib.metadata import version
from typing import Annotated, Final

import typer

from cli import (
    config,
    demo,
    dlq,
    evaluate,
    kafka,
    models,
    replay,
    topics,
    train,
    trainer,
    verify,
    worker,
)

# Roles that a supervisor restarts: their exit codes say whether that can help.
_ROLES: Final = frozenset({"worker", "trainer"})
_FAILED: Final = 1

app = typer.Typer(
    name="nextclick",
    help="Real-time next-click recommendations on Kafka.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

for group in (kafka, topics, models, config, dlq):
    app.add_typer(group.app)
for command in (demo, worker, trainer, train, evaluate, replay, verify):
    command.register(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"nextclick {version('nextclick')}")
        raise typer.Exit


@app.callback()
def _root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Real-time next-click recommendations on Kafka."""


def main() -> None:
    """Run the command; a known error is one clear line and an exit code, without a traceback.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 78 wrong configuration; the long-running roles use
    those of `stream/exit_codes.py`.
    """
    try:
        app()
    except _known_errors() as error:
        typer.echo(f"nextclick: {error}", err=True)
        sys.exit(_exit_code(error))


def _known_errors() -> tuple[type[Exception], ...]:
    # Imported only when something was raised: --help must not load Kafka's client.
    from cli.settings_errors import SettingsError
    from stream.clients import KafkaError
    from stream.topics import TopicMismatchError

    return SettingsError, TopicMismatchError, KafkaError


def _exit_code(error: Exception) -> int:
    from cli.settings_errors import SettingsError
    from stream import exit_codes
    from stream.topics import TopicMismatchError

    role = bool(_ROLES.intersection(sys.argv[1:2]))
    if isinstance(error, SettingsError) or (role and isinstance(error, TopicMismatchError)):
        return exit_codes.CONFIGURATION
    return exit_codes.exit_code(error) if role else _FAILED


if __name__ == "__main__":
    main()
