import pytest
import torch

from model.bundle import load
from model.golden import check_golden
from model.store import Store, read_file
from trainer.evaluate import Score
from trainer.releases import Releases
from trainer.settings import TrainerSettings
from trainer.stream_learner import Comparison

MANIFEST = "manifest.json"


class Desk:
    """A store, a stream that has learnt something, and what was announced."""

    def __init__(self, stream, tmp_path, **overrides) -> None:
        self.stream = stream
        self.sent = []
        self.store = Store(str(tmp_path))
        settings = TrainerSettings.model_validate({"keep_bundles": 2, **overrides})
        self.releases = Releases(self.store, self.sent.append, settings)
        self.now_ms = 1_700_000_000_000

    def release(self):
        self.now_ms += 1000
        return self.releases.release(self.stream, trained_through={0: 7}, now_ms=self.now_ms)

    def compare(self, *, own: float, serving: float, num: int = 1000) -> None:
        self.stream.comparison = Comparison(
            Score(num, num, own * num), Score(num, num, serving * num)
        )

    def stored(self, name: str = "default") -> list[str]:
        return self.store.list(name, complete=MANIFEST)


@pytest.fixture
def desk(make_stream, cyclic_clicks, tmp_path):
    stream = make_stream()
    for click in cyclic_clicks(400):
        stream.add(*click)
    stream.step(1000)
    return Desk(stream, tmp_path)


def test_a_released_version_is_stored_checked_and_announced(desk):
    verdict = desk.release()

    (sent,) = desk.sent
    bundle = load(sent.uri, sent.manifest_sha256, max_bytes=10_000_000)
    check_golden(bundle)
    assert verdict.accepted
    assert (sent.name, sent.kind, sent.trained_through) == ("default", "bundle", {0: 7})
    assert sent.version == desk.releases.serving == bundle.manifest.version
    assert torch.equal(
        torch.from_numpy(bundle.vectors_ND), desk.stream.learner.items.unit_vectors()
    )
    assert bundle.popularity_N.sum() == pytest.approx(400)


def test_versions_rise_name_their_parent_and_old_ones_go(desk):
    for _ in range(3):
        desk.release()
        desk.compare(own=0.3, serving=0.3)

    versions = [sent.version for sent in desk.sent]
    assert versions == sorted(versions)
    assert [sent.parent for sent in desk.sent] == [None, *versions[:2]]
    assert desk.stored() == versions[1:]


def test_a_refused_version_is_kept_with_its_reason_and_never_announced(desk):
    desk.release()
    desk.compare(own=0.2, serving=0.3)

    verdict = desk.release()

    assert (verdict.verdict, verdict.reason) == ("refused", "mrr")
    assert len(desk.sent) == len(desk.stored()) == 1
    (kept,) = desk.stored("default.refused")
    uri = desk.store.uri("default.refused", kept)
    assert b"mrr: 0.2 against 0.3" in read_file(uri, MANIFEST, limit=100_000)
    assert desk.stream.comparison == Comparison()
    assert desk.releases.serving == desk.sent[0].version


def test_values_that_fit_no_bundle_are_refused_without_being_stored(desk):
    desk.stream.learner.items.weights_ND[3] = float("nan")

    verdict = desk.release()

    assert verdict.reason == "not_finite"
    assert desk.sent == desk.stored() == desk.stored("default.refused") == []


def test_an_undecided_version_waits_and_keeps_its_scores(desk):
    desk.release()
    desk.compare(own=0.3, serving=0.3, num=10)

    verdict = desk.release()

    assert verdict.verdict == "undecided"
    assert desk.releases.extensions == 1
    assert desk.stream.comparison.serving.num == 10
    assert len(desk.sent) == 1


def test_a_version_that_cannot_be_announced_does_not_serve(desk):
    def refuse(_announcement) -> None:
        raise TimeoutError("no broker")

    desk.releases._announce = refuse

    with pytest.raises(TimeoutError):
        desk.release()

    assert desk.releases.serving is None
