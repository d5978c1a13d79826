"""Machine code is kept apart by what the sources are."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = "import index.compiled, numba; print(numba.config.CACHE_DIR)"


def cache_folder(root: Path, monkeypatch, **environment: str) -> Path:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(root)!r}); {SCRIPT}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60, cwd=root)
    return Path(done.stdout.strip())


@pytest.fixture
def copy(tmp_path):
    package = tmp_path / "copy" / "index"
    package.mkdir(parents=True)
    source = Path(__file__).parents[2] / "index" / "compiled.py"
    (package / "__init__.py").touch()
    (package / "compiled.py").write_bytes(source.read_bytes())
    return package


def test_other_sources_have_another_folder(copy, tmp_path, monkeypatch):
    before = cache_folder(copy.parent, monkeypatch, XDG_CACHE_HOME=str(tmp_path))
    assert before == cache_folder(copy.parent, monkeypatch, XDG_CACHE_HOME=str(tmp_path))

    (copy / "another.py").write_text("X = 1\n")

    after = cache_folder(copy.parent, monkeypatch, XDG_CACHE_HOME=str(tmp_path))
    assert before != after
    assert before.parent == after.parent == tmp_path / "nextclick" / "compiled"


def test_the_folder_can_be_chosen(copy, tmp_path, monkeypatch):
    chosen = cache_folder(copy.parent, monkeypatch, NUMBA_CACHE_DIR=str(tmp_path / "here"))

    assert chosen.parent == tmp_path / "here"
