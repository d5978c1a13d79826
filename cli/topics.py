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

    from cli.tables import print_table

    if as_json:
        typer.echo(msgspec.json.encode({"created": created, "topics": states}).decode())
        return
    columns = ("topic", "partitions", "replicas", "cleanup", "retention", "")
    print_table(columns, (_row(state, state.name in created) for state in states))


def _row(state: "TopicState", created: bool) -> tuple[str, ...]:
    hours = int(state.configs.get("retention.ms", "-1")) / 3_600_000
    policy = state.configs.get("cleanup.policy", "")
    return (
        state.name,
        str(state.partitions),
        str(state.replication_factor),
        policy,
        f"{hours:g} h" if policy == "delete" else "",
        "created" if created else "" if state.partitions else "missing",
    )
