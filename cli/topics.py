"""`nextclick topics`: create and check the topics; knows nothing of what they should be."""

from typing import TYPE_CHECKING

import typer

from cli.options import BootstrapOption, ConfigOption, JsonOption, kafka_overrides

if TYPE_CHECKING:
    from stream.topics import TopicState

app = typer.Typer(name="topics", help="Create and check topics.", no_args_is_help=True)


@app.command()
def ensure(
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Create the topics that are missing; check partitions and compaction of the others.

    Example: nextclick topics ensure --bootstrap-servers 127.0.0.1:9092
    """
    from cli.settings import load_settings
    from stream import topics

    settings = load_settings(config, kafka_overrides(bootstrap_servers))
    created = topics.ensure(settings.kafka, settings.topics)
    _print(topics.describe(settings.kafka, settings.topics), created, as_json)


@app.command()
def describe(
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show partitions, replication and settings of each topic; exit 1 when one is not right.

    Example: nextclick topics describe --json
    """
    from cli.settings import load_settings
    from stream import topics

    settings = load_settings(config, kafka_overrides(bootstrap_servers))
    _print(topics.describe(settings.kafka, settings.topics), [], as_json)
    topics.check(settings.kafka, settings.topics)


def _print(states: "list[TopicState]", created: list[str], as_json: bool) -> None:
    import msgspec
    from rich.console import Console
    from rich.table import Table

    if as_json:
        typer.echo(msgspec.json.encode({"created": created, "topics": states}).decode())
        return
    table = Table("topic", "partitions", "replicas", "cleanup", "retention", "")
    for state in states:
        hours = int(state.configs.get("retention.ms", "-1")) / 3_600_000
        kept = f"{hours:g} h" if state.configs.get("cleanup.policy") == "delete" else ""
        note = "created" if state.name in created else "" if state.partitions else "missing"
        table.add_row(
            state.name,
            str(state.partitions),
            str(state.replication_factor),
            state.configs.get("cleanup.policy", ""),
            kept,
            note,
        )
    Console().print(table)
