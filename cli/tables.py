"""Tables for people: fitted to a terminal, unshortened anywhere else; knows no command."""

import sys
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

_WIDE = 240


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; into a pipe or file no value is cut at the width of a terminal."""
    table = Table(*columns)
    for row in rows:
        table.add_row(*row)
    Console(width=None if sys.stdout.isatty() else _WIDE).print(table, markup=False)
