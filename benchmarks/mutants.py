"""Mutation self-check: take each guard out, one after the other, and see that some test turns red.

    python -m benchmarks.mutants
    python -m benchmarks.mutants --only D15 --json

A suite that passes without a guard proves nothing about it. The table of guards is in
`benchmarks/guards.toml`; each has the narrowest selection of tests that must fail without it, and
the same selection must be green with it. Everything happens in a copy of the tracked files. Exit
code 1 when a mutant survives that the table does not explain as equivalent, or dies although it
does; a guard whose text is not found exactly once has moved, and is an error.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.environment import environment
from benchmarks.options import Help

ROOT = Path(__file__).parents[1]
_LIMIT_SECONDS = 300.0
_FAILED = 1
_RED = re.compile(r"^(?:FAILED|ERROR) (\S+::\S+)", re.MULTILINE)  # not: does not even import


class Guard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the table; see there."""

    name: str
    file: str
    text: str
    replacement: str
    tests: str
    equivalent: str = ""


class _Guards(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    guard: list[Guard]


class GuardMovedError(Exception):
    """A text of the table is not found exactly once: the table has to follow the code."""


class SelectionError(Exception):
    """A selection of tests is not green with all guards in place, or selects nothing."""


@dataclass(frozen=True)
class Verdict:
    """What became of one mutant: the test that failed without the guard, or the time limit."""

    name: str
    killed_by: str
    seconds: float
    equivalent: str

    @property
    def as_expected(self) -> bool:
        """Whether it died, or survived as the table explains."""
        return bool(self.killed_by) is not bool(self.equivalent)


def main() -> None:
    """Parse the options, take the guards out, print; exit with 1 on an unexplained survivor."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--only", default="", help="guards whose name contains this text")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    chosen = [guard for guard in read_guards() if options.only in guard.name]
    with tempfile.TemporaryDirectory(prefix="nextclick-mutants-") as folder:
        tree = Path(folder)
        copy_tracked(ROOT, tree)
        verdicts = list(judge(chosen, tree))
    print(json.dumps(as_json(verdicts))) if options.json else print_table(verdicts)
    if not all(verdict.as_expected for verdict in verdicts):
        sys.exit(1)


def read_guards() -> list[Guard]:
    """Return the table."""
    table = Path(__file__).with_name("guards.toml").read_bytes()
    return msgspec.toml.decode(table, type=_Guards).guard


def copy_tracked(root: Path, tree: Path) -> None:
    """Copy the files under version control, as they are now."""
    command = ["git", "ls-files", "-z"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True, timeout=30)
    for name in listed.stdout.decode().split("\0"):
        if name and (root / name).exists():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, tree / name)


def judge(guards: Iterable[Guard], tree: Path) -> Iterator[Verdict]:
    """See that the selections are green, then yield what becomes of each mutant."""
    chosen = list(guards)
    for guard in chosen:
        mutated(guard, tree)  # before any test is run: has one moved?
    console = Console(stderr=True)
    for tests in track(dict.fromkeys(g.tests for g in chosen), "green at first", console=console):
        failed, text = run_tests(tests, tree)
        if failed:
            raise SelectionError(f"pytest {tests}: not green with all guards:\n{text}")
    for guard in track(chosen, "mutants", console=console):
        yield without(guard, tree)


def without(guard: Guard, tree: Path) -> Verdict:
    """Take one guard out of the tree, run its tests, and put it back."""
    path = tree / guard.file
    original = path.read_text()
    started = time.monotonic()
    path.write_text(mutated(guard, tree))
    try:
        killed_by, _ = run_tests(guard.tests, tree)
    finally:
        path.write_text(original)
    return Verdict(guard.name, killed_by, round(time.monotonic() - started, 1), guard.equivalent)


def mutated(guard: Guard, tree: Path) -> str:
    """Return the file without the guard; raises GuardMovedError when it is not to be found."""
    source = (tree / guard.file).read_text()
    if source.count(guard.text) != 1:
        raise GuardMovedError(
            f"{guard.name}: the guard has moved. {guard.file} has {source.count(guard.text)} times "
            f"{guard.text!r}, must have it once"
        )
    return source.replace(guard.text, guard.replacement)


def run_tests(tests: str, tree: Path) -> tuple[str, str]:
    """Return the first test that failed, empty when all passed, and what pytest said."""
    # A changed source of the same size within a second would still be taken from its byte code.
    settings = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree), "NO_COLOR": "1"}
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    command = [*pytest, *shlex.split(tests)]
    try:
        run = subprocess.run(
            command, cwd=tree, env=os.environ | settings, capture_output=True, text=True,
            timeout=_LIMIT_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"the limit of {_LIMIT_SECONDS:g} s", ""
    if run.returncode == 0:
        return "", run.stdout
    red = _RED.search(run.stdout)
    if run.returncode != _FAILED or red is None:
        raise SelectionError(f"{' '.join(command)} ended with {run.returncode}:\n{run.stdout}")
    return red.group(1), run.stdout


def as_json(verdicts: list[Verdict]) -> dict[str, object]:
    """Return every verdict, the names of unexplained survivors, and what it was run on."""
    survivors = [v.name for v in verdicts if not v.killed_by and not v.equivalent]
    return {"mutants": [asdict(v) for v in verdicts], "survivors": survivors, **environment()}


def print_table(verdicts: list[Verdict]) -> None:
    """Print a row for each guard."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    table = Table("without", "killed by", "seconds")
    for verdict in verdicts:
        fate = verdict.killed_by or f"equivalent: {verdict.equivalent}"
        if not verdict.as_expected:
            fate = f"NOT EQUIVALENT: {fate}" if verdict.killed_by else "SURVIVED"
        table.add_row(verdict.name, fate, f"{verdict.seconds:.1f}")
    console.print(table, markup=False)


if __name__ == "__main__":
    main()
