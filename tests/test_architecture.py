"""The house's rules as data: who imports whom, where each library lives, how long things are.

Change a table only together with a decision record.
"""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "stream": set(),
    "model": set(),
    "index": set(),
    "worker": {"stream", "model", "index"},
    "trainer": {"stream", "model", "index"},
    "evaluation": {"stream", "model", "index", "worker", "trainer"},
    "cli": {"stream", "model", "index", "worker", "trainer", "evaluation"},
}
HOME = {  # library: folders, or single files, that may import it
    "kafka": ("stream/",),
    "faiss": ("index/",),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "pyarrow": ("stream/click_log.py",),
    "matplotlib": ("evaluation/plots.py",),
}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40
LONG_FILES: dict[str, str] = {  # path: reason
    "tests/model/test_bundle.py": "one table of refusals over one set of planted faults",
}
LONG_FUNCTIONS: dict[str, str] = {}  # path::function: reason

SOURCES = sorted(
    file
    for folder in (*MAY_IMPORT, "tests", "benchmarks")
    for file in (ROOT / folder).rglob("*.py")
)
PRODUCT = [file for file in SOURCES if file.relative_to(ROOT).parts[0] in MAY_IMPORT]


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level names of all imports, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "").split(".")[0]


def trespasses(path: str, source: str) -> list[str]:
    """What the file imports but must not."""
    package = path.split("/")[0]
    found = []
    for name in sorted(set(imported(ast.parse(source)))):
        ours = name in MAY_IMPORT and name != package and name not in MAY_IMPORT[package]
        stranger = name in HOME and not path.startswith(HOME[name])
        if ours or stranger or name.startswith("."):
            found.append(f"{path} imports {name}")
    return found


def overlong(path: str, source: str) -> list[str]:
    """The file and functions of it that are too long and have no reason."""
    found = []
    lines = source.count("\n")
    if lines > MAX_FILE_LINES and path not in LONG_FILES:
        found.append(f"{path} has {lines} lines")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES and f"{path}::{node.name}" not in LONG_FUNCTIONS:
                found.append(f"{path}::{node.name} has {length} lines")
    return found


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def test_every_import_follows_the_tables():
    found = [fault for file in PRODUCT for fault in trespasses(name_of(file), file.read_text())]

    assert found == []


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("worker/worker.py", "import trainer.loss"),
        ("index/item_index.py", "def f():\n    from stream.messages import ClickEvent"),
        ("model/bundle.py", "import index"),
        ("stream/batch.py", "from cli.settings import Settings"),
        ("worker/worker.py", "from kafka.errors import KafkaError"),
        ("worker/recommender.py", "import faiss"),
        ("stream/topics.py", "import typer"),
        ("stream/batch.py", "import pyarrow.parquet"),
        ("trainer/gate.py", "from evaluation.metrics import accuracy"),
        ("evaluation/report.py", "import matplotlib"),
        ("stream/batch.py", "from . import settings"),
    ],
)
def test_a_planted_trespass_is_found(path, source):
    assert len(trespasses(path, source)) == 1


def test_each_package_is_this_checkouts():
    for package in MAY_IMPORT:
        spec = importlib.util.find_spec(package)

        assert spec is not None
        assert spec.origin is not None
        assert Path(spec.origin).parent == ROOT / package


def test_packages_are_typed_and_their_init_files_are_empty():
    for package in MAY_IMPORT:
        assert (ROOT / package / "py.typed").exists()
    inits = [file for file in PRODUCT if file.name == "__init__.py"]
    assert [name_of(file) for file in inits if file.read_text().strip()] == []


def test_no_test_folder_is_a_package():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_files_and_functions_are_short():
    found = [fault for file in SOURCES for fault in overlong(name_of(file), file.read_text())]

    assert found == []


def test_a_planted_giant_is_found():
    function = "def f():\n" + "    pass\n" * 40

    assert overlong("stream/x.py", function) == ["stream/x.py::f has 41 lines"]
    assert overlong("stream/x.py", "\n" * 301) == ["stream/x.py has 301 lines"]


def test_every_reason_still_has_its_object():
    paths = {*LONG_FILES, *(key.split("::")[0] for key in LONG_FUNCTIONS)}

    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []
