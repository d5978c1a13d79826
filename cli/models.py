"""`nextclick models`: the stored versions of the model, and which of them serves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import BootstrapOption, ConfigOption, JsonOption, kafka_overrides

if TYPE_CHECKING:
    from cli.model_changes import ModelChanges
    from cli.settings import Settings
    from model.bundle import Published
    from model.store import Store
    from stream.announcements import ModelsTopic
    from stream.messages import ModelAnnouncement

VersionArgument = Annotated[
    str, typer.Argument(help="Name of a stored version.", metavar="VERSION")
]
ToOption = Annotated[
    str | None,
    typer.Option("--to", help="Version to go back to; default: the one before.", metavar="VERSION"),
]

app = typer.Typer(name="models", help="List, show and change versions.", no_args_is_help=True)


@app.command("list")
def list_versions(
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the stored versions with the gate's verdicts, refused ones too, and what is in use.

    What serves is known from Kafka; without a broker it says so and lists the store alone. MRR and
    recall are prequential: on clicks that the version had not learnt when they were predicted.

    Example: nextclick models list --json
    """
    from model.versions import stored_versions

    settings = _settings(config, bootstrap_servers)
    found = list(stored_versions(_store(settings), settings.worker.model))
    use = _use(settings)
    serving, trial = use
    rows = [_facts(published, use) for published in found]
    if as_json:
        report = {"model": settings.worker.model, "serving": serving, "on_trial": trial}
        _print_json(report | {"versions": rows})
        return
    _print_versions(rows, settings)
    if serving is None:
        typer.echo("What serves is unknown: Kafka cannot be read, or nothing was announced.")


@app.command()
def show(
    version: VersionArgument,
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what is known of a stored version: where it comes from, its verdict, metrics and files.

    Example: nextclick models show 20261123T095959123Z-1a2b3c4d
    """
    from cli.tables import print_table
    from model.versions import find_version

    settings = _settings(config, bootstrap_servers)
    with _plain_errors():
        published = find_version(_store(settings), settings.worker.model, version)
    facts = _facts(published, _use(settings)) | _details(published)
    if as_json:
        _print_json(facts)
        return
    files, metrics = facts.pop("files"), facts.pop("metrics")
    print_table(("version", ""), [(name, _text(value)) for name, value in facts.items()])
    print_table(("metric", ""), [(name, f"{value:.5g}") for name, value in metrics.items()])
    print_table(
        ("file", "bytes", "sha256"),
        [(name, f"{file['bytes']:,}", file["sha256"]) for name, file in files.items()],
    )


@app.command()
def promote(
    version: VersionArgument,
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a stored version serve, whatever the gate said; workers take it within seconds.

    It is read and checked first. The trainer compares its next candidate with it. A refused version
    is stored anew under a new name; the worker's guard watches it as any other.

    Example: nextclick models promote 20261123T095959123Z-1a2b3c4d
    """
    with _plain_errors():
        changes = _changes(_settings(config, bootstrap_servers))
        _report(changes, changes.promote(version), as_json=as_json)


@app.command()
def rollback(
    to: ToOption = None,
    config: ConfigOption = None,
    bootstrap_servers: BootstrapOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let the version before the serving one serve again; workers take it within seconds.

    It is read and checked first. The trainer compares its next candidate with it, so a better one
    will replace it. To stop that, stop the trainer.

    Examples: nextclick models rollback

    nextclick models rollback --to 20261123T095959123Z-1a2b3c4d
    """
    with _plain_errors():
        changes = _changes(_settings(config, bootstrap_servers))
        _report(changes, changes.roll_back(to), as_json=as_json)


def _settings(config: Any, bootstrap_servers: str | None) -> Settings:
    from cli.settings import load_settings

    return load_settings(config, kafka_overrides(bootstrap_servers))


def _store(settings: Settings) -> Store:
    from model.store import Store

    return Store(settings.store.url)


def _topic(settings: Settings) -> ModelsTopic:
    from stream.announcements import ModelsTopic

    kafka = settings.kafka
    return ModelsTopic(kafka, settings.topics.models, client_id=f"{kafka.app}-models")


def _changes(settings: Settings) -> ModelChanges:
    from cli.model_changes import ModelChanges

    now_ms = int(time.time() * 1_000)
    return ModelChanges(settings, _store(settings), _topic(settings), now_ms)


def _use(settings: Settings) -> tuple[str | None, str | None]:
    """Return the stored versions that serves and that some users try; None where not known."""
    from stream.announcements import is_tried, stored_version
    from stream.clients import KafkaError

    topic, model = _topic(settings), settings.worker.model
    try:
        announced, trial = topic.latest(model), topic.latest(model, "canary")
    except KafkaError:
        return None, None
    if announced is None:
        return None, None
    tried = trial is not None and is_tried(trial, announced.version)
    return stored_version(announced), trial.version if tried and trial else None


def _facts(published: Published, use: tuple[str | None, str | None]) -> dict[str, Any]:
    serving, trial = use
    manifest = published.manifest
    refused = manifest.gate.verdict == "refused"
    return {
        "version": manifest.version,
        "kind": "refused" if refused else "bundle",
        "serving": None if serving is None else manifest.version == serving,
        "on_trial": None if serving is None else manifest.version == trial,
        "created": datetime.fromtimestamp(manifest.created_at / 1_000, UTC).isoformat(
            " ", "seconds"
        ),
        "items": manifest.num_items,
        "verdict": manifest.gate.verdict,
        "reason": manifest.gate.reason or "",
        "parent": manifest.parent or "",
        "bytes": published.num_bytes,
        "metrics": manifest.metrics,
    }


def _details(published: Published) -> dict[str, Any]:
    manifest = published.manifest
    return {
        "uri": published.uri,
        "manifest_sha256": published.manifest_sha256,
        "encoder": manifest.encoder.family,
        "dim": manifest.encoder.dim,
        "encoder_version": manifest.encoder_version,
        "clicks_remembered": manifest.num_clicks,
        "index_lists": manifest.index.num_lists,
        "index_recall": manifest.index.recall,
        "trained_through": {str(p): offset for p, offset in manifest.trained_through.items()},
        "files": {
            name: {"bytes": entry.bytes, "sha256": entry.sha256}
            for name, entry in manifest.files.items()
        },
    }


def _print_versions(rows: list[dict[str, Any]], settings: Settings) -> None:
    from cli.tables import print_table

    if not rows:
        typer.echo(f"No version of model {settings.worker.model} is in {settings.store.url}.")
        return
    columns = ("version", "", "created", "items", "verdict", "recall@20", "mrr@20", "parent")
    print_table(columns, map(_row, rows))


def _row(facts: dict[str, Any]) -> tuple[str, ...]:
    metrics = facts["metrics"]
    return (
        facts["version"],
        "serves" if facts["serving"] else "on trial" if facts["on_trial"] else "",
        facts["created"],
        f"{facts['items']:,}",
        " ".join(filter(None, (facts["verdict"], facts["reason"]))),
        *(
            f"{metrics[name]:.4f}" if name in metrics else ""
            for name in ("recall_at_20", "mrr_at_20")
        ),
        facts["parent"],
    )


def _text(value: object) -> str:
    return "unknown" if value is None else f"{value:,}" if type(value) is int else str(value)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """End with the message of what is wrong with the version that was asked for."""
    from cli.model_changes import NoSuchChangeError
    from model.bundle import BundleError
    from model.versions import UnknownVersionError

    try:
        yield
    except (NoSuchChangeError, BundleError, UnknownVersionError) as error:
        typer.echo(f"nextclick: {error}", err=True)
        raise typer.Exit(1) from None


def _report(changes: ModelChanges, sent: ModelAnnouncement, *, as_json: bool) -> None:
    replaced = changes.serving_version
    if as_json:
        _print_json(
            {
                "version": sent.version,
                "restores": sent.restores,
                "replaced": replaced,
                "uri": sent.uri,
            }
        )
        return
    what = f"{sent.restores} again, as {sent.version}" if sent.restores else sent.version
    typer.echo(f"Announced {what}; it replaces {replaced or 'nothing'}.")


def _print_json(report: dict[str, Any]) -> None:
    import msgspec

    typer.echo(msgspec.json.encode(report).decode())
