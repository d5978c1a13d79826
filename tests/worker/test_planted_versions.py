"""Bad versions that were stored in spite of the gate: the worker's loader refuses each."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from model.bundle import BundleError, publish
from model.store import Store
from stream.messages import Gate, ModelAnnouncement
from worker.loader import VersionLoader

VERSION = "20261123T000000001Z-00000001"


class Planted:
    """A stored version whose files are changed, sealed anew as if nothing had happened."""

    def __init__(self, published):
        self.folder = Path(published.uri.removeprefix("file:"))
        self.uri = published.uri
        self.sha256 = published.manifest_sha256

    def replace(self, file, data, *, seal=True):
        (self.folder / file).write_bytes(data)
        if not seal:
            return
        manifest = json.loads((self.folder / "manifest.json").read_bytes())
        manifest["files"][file] = {
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        written = json.dumps(manifest).encode()
        (self.folder / "manifest.json").write_bytes(written)
        self.sha256 = hashlib.sha256(written).hexdigest()

    def read(self, file):
        return (self.folder / file).read_bytes()

    def tensors(self, file):
        return {name: array.copy() for name, array in load(self.read(file)).items()}

    @property
    def announcement(self):
        return ModelAnnouncement(
            name="default", version=VERSION, kind="bundle", uri=self.uri,
            manifest_sha256=self.sha256, bytes=1, created_at=1, encoder_version="e",
            trained_through={}, metrics={}, gate=Gate(verdict="accepted"),
        )  # fmt: skip


@pytest.fixture
def planted(make_bundle, tmp_path):
    bundle = make_bundle(version=VERSION)
    return Planted(publish(Store(str(tmp_path / "models")), bundle))


@pytest.fixture
def loader(tmp_path):
    return VersionLoader(str(tmp_path / "models"), max_bytes=2**30, num_popular=41)


ITEMS, ENCODER = "items.safetensors", "encoder.safetensors"


def truncate(planted):
    planted.replace(ITEMS, planted.read(ITEMS)[:-100], seal=False)


def truncate_and_seal(planted):
    planted.replace(ITEMS, planted.read(ITEMS)[:-100])


def misshape(planted):
    tensors = planted.tensors(ITEMS)
    tensors["vectors"] = np.ascontiguousarray(tensors["vectors"][:, :-1])
    planted.replace(ITEMS, save(tensors))


def poison_items(planted):
    tensors = planted.tensors(ITEMS)
    tensors["vectors"][3, 0] = np.nan
    planted.replace(ITEMS, save(tensors))


def poison_encoder(planted):
    tensors = planted.tensors(ENCODER)
    next(iter(tensors.values())).reshape(-1)[0] = np.inf
    planted.replace(ENCODER, save(tensors))


@pytest.mark.matrix("F41")
@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (truncate, "size"),
        (truncate_and_seal, "header"),
        (misshape, "shape"),
        (poison_items, "non_finite"),
        (poison_encoder, "non_finite"),
    ],
)
def test_a_planted_version_is_refused_with_its_reason(planted, loader, harm, reason):
    harm(planted)

    with pytest.raises(BundleError) as refused:
        loader(planted.announcement)

    assert refused.value.reason == reason


def test_the_same_version_unharmed_is_loaded(planted, loader):
    assert loader(planted.announcement).name == VERSION
