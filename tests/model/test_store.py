import os
import uuid
from pathlib import Path

import fsspec
import pytest

from model.store import Store, read_file

FILES = {"end.json": b"last", "a.bin": b"first"}


@pytest.fixture(params=["path", "file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    urls = {
        "path": str(tmp_path / "models"),
        "file": f"file://{tmp_path}/models",
        "memory": f"memory://{uuid.uuid4().hex}",
    }
    return Store(urls[request.param])


def put(store: Store, version: str) -> str:
    return store.put("default", version, FILES, last="end.json")


def versions(store: Store, name: str = "default") -> list[str]:
    return store.list(name, complete="end.json")


def test_what_was_put_is_read_back_by_its_uri(store: Store) -> None:
    uri = put(store, "v1")

    assert uri == store.uri("default", "v1")
    assert "://" in uri
    assert read_file(uri, "a.bin", limit=100) == b"first"
    assert read_file(uri, "end.json", limit=100) == b"last"


def test_a_read_stops_one_byte_behind_its_limit(store: Store) -> None:
    assert read_file(put(store, "v1"), "a.bin", limit=2) == b"fir"


def test_versions_are_listed_in_order_by_name(store: Store) -> None:
    for version in ("v2", "v10", "v1"):
        put(store, version)
    store.put("other", "v3", FILES, last="end.json")

    assert versions(store) == ["v1", "v10", "v2"]
    assert versions(store, "other") == ["v3"]
    assert versions(store, "unheard-of") == []


def test_a_version_never_changes(store: Store) -> None:
    put(store, "v1")

    with pytest.raises(FileExistsError, match="default/v1"):
        put(store, "v1")


def test_a_deleted_version_is_gone_and_deleting_again_is_no_error(store: Store) -> None:
    uri = put(store, "v1")
    put(store, "v2")

    store.delete("default", "v1", first="end.json")
    store.delete("default", "v1", first="end.json")

    assert versions(store) == ["v2"]
    with pytest.raises(FileNotFoundError):
        read_file(uri, "a.bin", limit=10)


@pytest.mark.parametrize("label", ["", "..", ".hidden", "a/b", "a\\b", "x" * 129, "ä", "a\n"])
def test_labels_that_could_leave_the_store_are_refused(store: Store, label: str) -> None:
    with pytest.raises(ValueError, match="cannot be a folder"):
        store.put(label, "v1", FILES, last="end.json")
    with pytest.raises(ValueError, match="cannot be a folder"):
        store.put("default", label, FILES, last="end.json")


def test_a_version_without_its_last_file_is_not_listed() -> None:
    root = f"memory://{uuid.uuid4().hex}"
    store = Store(root)
    put(store, "v1")

    fsspec.filesystem("memory").pipe_file(f"{root}/default/v2/a.bin", b"interrupted")

    assert versions(store) == ["v1"]


def test_an_interrupted_put_leaves_nothing_visible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(str(tmp_path))
    calls = iter([None, OSError("disk full")])

    def fsync(_: int) -> None:
        if error := next(calls, None):
            raise error

    monkeypatch.setattr(os, "fsync", fsync)

    with pytest.raises(OSError, match="disk full"):
        put(store, "v1")

    assert versions(store) == []
    assert list((tmp_path / "default").iterdir()) == []


def test_the_last_file_is_synced_last_and_the_rename_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def fsync(handle: int) -> None:
        seen.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        assert not (tmp_path / "default" / "v1").exists() or seen[-1] == tmp_path / "default"

    monkeypatch.setattr(os, "fsync", fsync)

    put(Store(str(tmp_path)), "v1")

    names = [path.name for path in seen]
    assert names[:2] == ["a.bin", "end.json"]
    assert seen[2].parent == seen[3] == tmp_path / "default"


def test_sweeping_removes_what_a_crash_left_and_nothing_else(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    put(store, "v1")
    leftover = tmp_path / "default" / ".put-v2-dead"
    leftover.mkdir()
    (leftover / "a.bin").write_bytes(b"half")

    store.sweep("default")
    store.sweep("unheard-of")

    assert [path.name for path in (tmp_path / "default").iterdir()] == ["v1"]


def test_a_relative_path_gives_a_uri_that_other_processes_can_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    uri = put(Store("./models"), "v1")

    monkeypatch.chdir("/")
    assert read_file(uri, "a.bin", limit=10) == b"first"
