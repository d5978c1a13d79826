import pytest
import torch

from trainer.checkpoint import CheckpointError, Content, read_latest, write


def content(value: float) -> Content:
    return Content({"weights": {"w": torch.full((3, 2), value)}}, {"state": b'{"a":1}'})


def first_value(directory) -> float:
    found = read_latest(directory)
    assert found is not None
    return float(found.tensors["weights"]["w"][0, 0])


def test_without_a_checkpoint_there_is_nothing_to_read(tmp_path):
    assert read_latest(tmp_path / "none") is None


def test_tensors_and_documents_come_back_as_they_were(tmp_path):
    write(tmp_path, content(2.5))

    found = read_latest(tmp_path)

    assert found is not None
    assert found.documents == {"state": b'{"a":1}'}
    assert found.tensors["weights"]["w"].eq(2.5).all()


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    for value in (1.0, 2.0, 3.0):
        write(tmp_path, content(value))

    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000002", "00000003"]
    assert first_value(tmp_path) == 3.0


@pytest.mark.parametrize("name", ["weights.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, name):
    write(tmp_path, content(1.0))
    newest = write(tmp_path, content(2.0))
    body = bytearray((newest / name).read_bytes())
    body[len(body) // 2] ^= 0xFF

    (newest / name).write_bytes(body)

    assert first_value(tmp_path) == 1.0


def test_a_missing_file_is_damage(tmp_path):
    write(tmp_path, content(1.0))
    (write(tmp_path, content(2.0)) / "weights.safetensors").unlink()

    assert first_value(tmp_path) == 1.0


def test_only_damaged_checkpoints_are_an_error_that_names_them(tmp_path):
    for value in (1.0, 2.0):
        (write(tmp_path, content(value)) / "state.json").write_bytes(b"{}")

    with pytest.raises(CheckpointError, match=r"00000002.*sha256.*00000001"):
        read_latest(tmp_path)


def test_an_unfinished_checkpoint_is_never_read(tmp_path):
    write(tmp_path, content(1.0))
    (tmp_path / ".unfinished-00000002").mkdir()

    assert first_value(tmp_path) == 1.0
    write(tmp_path, content(2.0))
    assert first_value(tmp_path) == 2.0
