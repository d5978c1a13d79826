import pytest
import torch

from model.bundle import load
from model.golden import check_golden
from model.store import Store, read_file
from stream.announcements import restoring
from stream.messages import Gate
from trainer.comparison import Comparison
from trainer.releases import Releases
from trainer.settings import TrainerSettings
from trainer.state import Position

MANIFEST = "manifest.json"


class Desk:
    """A store, a stream that has learnt something, and what was announced."""

    def __init__(self, stream, tmp_path, **overrides) -> None:
        self.stream = stream
        self.sent = []
        self.latest = None  # what another party announced
        self.store_path = tmp_path
        self.store = Store(str(tmp_path))
        settings = TrainerSettings.model_validate({"keep_bundles": 2, **overrides})
        self.releases = Releases(
            self.store, self.sent.append, settings, lambda kind: self.latest or self.announced
        )
        self.now_ms = 1_700_000_000_000

    def release(self):
        self.now_ms += 1000
        return self.releases.release(self.stream, trained_through={0: 7}, now_ms=self.now_ms)

    @property
    def announced(self):
        return self.sent[-1] if self.sent else None

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


def test_versions_rise_name_their_parent_and_old_ones_go(desk, make_comparison):
    for _ in range(3):
        desk.release()
        desk.stream.comparison = make_comparison(0.0)

    versions = [sent.version for sent in desk.sent]
    assert versions == sorted(versions)
    assert [sent.parent for sent in desk.sent] == [None, *versions[:2]]
    assert desk.stored() == versions[1:]


def test_a_refused_version_is_kept_with_its_reason_and_never_announced(desk, make_comparison):
    desk.release()
    desk.stream.comparison = make_comparison(-0.3)

    verdict = desk.release()

    assert (verdict.verdict, verdict.reason) == ("refused", "mrr")
    assert len(desk.sent) == len(desk.stored()) == 1
    (kept,) = desk.stored("default.refused")
    uri = desk.store.uri("default.refused", kept)
    assert b"mrr: MRR -30.0% of the serving" in read_file(uri, MANIFEST, limit=100_000)
    assert desk.stream.comparison == Comparison()
    assert desk.releases.serving == desk.sent[0].version


def test_values_that_fit_no_bundle_are_refused_without_being_stored(desk):
    desk.stream.learner.items.weights_ND[3] = float("nan")

    verdict = desk.release()

    assert verdict.reason == "not_finite"
    assert desk.sent == desk.stored() == desk.stored("default.refused") == []


def test_an_undecided_version_waits_and_keeps_its_scores(desk, make_comparison):
    desk.release()
    desk.stream.comparison = make_comparison(0.0, num=10)

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


def test_after_a_rollback_the_next_candidate_is_compared_with_the_restored_version(
    desk, make_comparison
):
    desk.release()
    desk.stream.comparison = make_comparison(0.0)
    desk.release()
    first, second = desk.sent
    later = second.version.replace("Z-", "Z-f")  # the other party's clock is ahead of ours
    desk.latest = restoring(first, later, Gate(verdict="rolled_back", reason="worse"))
    desk.stream.comparison = make_comparison(0.0)

    undecided = desk.release()

    assert (undecided.verdict, undecided.reason) == ("undecided", "few_clicks")
    assert desk.releases.serving == first.version
    assert torch.equal(desk.stream._serving.vectors_ND, torch.from_numpy(load_of(first).vectors_ND))
    desk.stream.comparison = make_comparison(0.0)
    assert desk.release().accepted
    third = desk.sent[-1]
    assert third.parent == first.version
    assert third.version > later


def load_of(sent):
    return load(sent.uri, sent.manifest_sha256, max_bytes=10_000_000)


def test_the_version_to_roll_back_to_is_kept_however_old(desk, make_comparison):
    for _ in range(4):
        desk.release()
        desk.stream.comparison = make_comparison(0.0)
    third, fourth = desk.sent[2:]
    desk.latest = restoring(third, fourth.version + "0", Gate(verdict="restored"))
    desk.release()
    desk.stream.comparison = make_comparison(0.0)

    desk.release()

    fifth = desk.sent[-1]
    assert fifth.parent == third.version
    assert desk.stored() == [third.version, fourth.version, fifth.version]


def test_a_damaged_version_of_another_party_is_not_compared_with(desk, make_comparison):
    desk.release()
    (first,) = desk.sent
    desk.latest = restoring(first, first.version + "0", Gate(verdict="promoted"))
    for file in (desk.store_path / "default" / first.version).glob("items*"):
        file.write_bytes(b"x")
    desk.stream.comparison = make_comparison(0.0)

    verdict = desk.release()

    assert (verdict.verdict, verdict.reason) == ("accepted", "first")
    assert desk.sent[-1].version > first.version + "0"


def test_scores_of_a_checkpoint_count_only_against_the_version_they_compare_with(
    desk, make_comparison
):
    desk.release()
    scores = make_comparison(0.1)

    desk.stream.comparison = scores
    desk.releases.rejoin(desk.stream, Position(extensions=3, serving=desk.sent[0].version))

    assert desk.stream.comparison == scores
    assert desk.releases.extensions == 3
    desk.releases.rejoin(desk.stream, Position(extensions=3, serving="another"))
    assert desk.stream.comparison == Comparison()
