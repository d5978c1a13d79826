"""`nextclick config`: the settings in force, their sources, and the schemas of the contracts."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import ConfigOption, JsonOption

app = typer.Typer(name="config", help="Show and check the settings.", no_args_is_help=True)


@app.command()
def show(config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Print every setting with its value and where that came from; secrets are masked.

    Example: NEXTCLICK_WORKER__BATCH__MAX_CLICKS=200 nextclick config show
    """
    import msgspec

    from cli.settings import DEFAULT, load_with_sources, values
    from cli.settings_errors import shown
    from cli.tables import print_table

    settings, sources = load_with_sources(config)
    rows = [(name, shown(name, value), _source(name, sources) or DEFAULT)
            for name, value in values(settings)]  # fmt: skip
    if as_json:
        report = {name: {"value": value, "source": source} for name, value, source in rows}
        typer.echo(msgspec.json.encode(report, enc_hook=str).decode())
        return
    print_table(
        ("setting", "value", "source"), ((name, str(value), source) for name, value, source in rows)
    )


@app.command()
def check(config: ConfigOption = None) -> None:
    """Check the settings without using them: exit 0, or 78 with every mistake named.

    Example: nextclick config check --config nextclick.toml
    """
    from cli.settings import load_settings

    load_settings(config)
    typer.echo("The settings are right.")


@app.command()
def schemas(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("docs/schemas"),
) -> None:
    """Write the JSON Schemas of the messages, one file for each.

    Example: nextclick config schemas --out docs/schemas
    """
    from stream.schemas import file_text
    from stream.schemas import schemas as generated

    out.mkdir(parents=True, exist_ok=True)
    for name, schema in generated().items():
        (out / name).write_text(file_text(schema))
        typer.echo(str(out / name))


def _source(name: str, sources: dict[str, str]) -> str:
    # A pass-through map has keys of its own, each with its source.
    below = [source for key, source in sources.items() if key.startswith(f"{name}.")]
    return sources.get(name, "") or ", ".join(dict.fromkeys(below))
