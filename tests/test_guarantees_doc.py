"""The page on guarantees names for every fault a test that exists and says it covers that fault."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "guarantees.md"

MUST = {f"F{n}" for n in (*range(1, 8), 10, 11, 13, *range(15, 22), 24, 27, 28, 30, 32, 33)}
MUST |= {f"F{n}" for n in (41, 47, 49, 51, 52)} | {f"D{n}" for n in range(1, 16)}
ROW = re.compile(r"^\| ([FD]\d+) \|.*$", re.MULTILINE)
TEST = re.compile(r"[\w/]+\.py::\w+")


def documented(page: str) -> dict[str, set[str]]:
    """The tests that the page names for each id: `faults/test_slots.py::test_…`."""
    return {row[1]: set(TEST.findall(row[0])) for row in ROW.finditer(page)}


def covered(name: str, source: str) -> dict[str, set[str]]:
    """The ids of the fault matrix that each test of a file is marked with."""
    tree = ast.parse(source)
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    whole_file = set(ids(constants["pytestmark"])) if "pytestmark" in constants else set()
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = [part for decorator in node.decorator_list for part in ast.walk(decorator)]
            # Cases of a parametrised test carry marks of their own, often in a constant.
            marks += [
                constants[m.id] for m in marks if isinstance(m, ast.Name) and m.id in constants
            ]
            own = {id_ for part in marks for id_ in ids(part)}
            found[f"{name}::{node.name}"] = whole_file | own
    return found


def ids(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.matrix":
            yield from (str(arg.value) for arg in node.args if isinstance(arg, ast.Constant))


def faults(page: str, tests: Mapping[str, set[str]]) -> list[str]:
    """What is wrong with the page, each with what would mend it."""
    rows = documented(page)
    candidates = defaultdict(list)
    for test, covers in tests.items():
        for each in covers:
            candidates[each].append(test)
    found = [f"{each} has no row with a test" for each in MUST if not rows.get(each)]
    found += [f"{each} has tests and no row" for each in candidates if each not in rows]
    for each, named in rows.items():
        for test in named:
            if test not in tests:
                found.append(f"{each}: {test} does not exist; marked are {candidates[each]}")
            elif each not in tests[test]:
                found.append(f"{each}: {test} is not marked with it; {candidates[each]} are")
    return sorted(found)


def all_tests() -> dict[str, set[str]]:
    tests: dict[str, set[str]] = {}
    for file in sorted(TESTS.rglob("test_*.py")):
        tests |= covered(file.relative_to(TESTS).as_posix(), file.read_text())
    return tests


def test_the_page_names_an_existing_test_for_every_fault():
    assert faults(PAGE.read_text(), all_tests()) == []


SOURCE = """
import pytest
pytestmark = [pytest.mark.kafka, pytest.mark.matrix("F1")]
CASES = [pytest.param(1, marks=pytest.mark.matrix("F3"))]
@pytest.mark.matrix("D1", "F2")
@pytest.mark.parametrize("case", CASES)
def test_a(case): ...
def test_b(): ...
"""


def test_marks_of_files_tests_and_cases_are_found():
    assert covered("x/test_x.py", SOURCE) == {
        "x/test_x.py::test_a": {"F1", "D1", "F2", "F3"},
        "x/test_x.py::test_b": {"F1"},
    }


def test_a_planted_fault_of_the_page_is_found():
    tests = {"x/test_x.py::test_a": {"F1", "F98"}, "x/test_x.py::test_b": set()}
    page = """
| F1 | a crash | `x/test_x.py::test_a` |
| F2 | a leader | `x/test_x.py::test_b` |
| F3 | a stop | `x/test_x.py::test_gone` |
| F4 | a stall | nothing |
"""

    found = faults(page, tests)

    assert "F2: x/test_x.py::test_b is not marked with it; [] are" in found
    assert "F3: x/test_x.py::test_gone does not exist; marked are []" in found
    assert "F4 has no row with a test" in found
    assert "F98 has tests and no row" in found
    assert not [text for text in found if text.startswith("F1:")]
