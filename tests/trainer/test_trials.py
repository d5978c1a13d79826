"""Accepted versions that some users try first: when they serve, and when they never do."""

import pytest
import torch

from model.store import Store
from stream.announcements import restoring, withdrawn
from stream.messages import Gate
from trainer.comparison import Comparison
from trainer.releases import Releases
from trainer.settings import TrainerSettings


class Desk:
    """A publisher of a model and the models topic, in memory."""

    def __init__(self, stream, tmp_path) -> None:
        settings = TrainerSettings.model_validate({"gate": {"canary_share": 0.05}})
        self.stream = stream
        self.topic = []
        self.releases = Releases(Store(str(tmp_path)), self.topic.append, settings, self.latest)
        self.now_ms = 1_700_000_000_000

    def latest(self, kind):
        return next((sent for sent in reversed(self.topic) if sent.kind == kind), None)

    def release(self):
        self.now_ms += 1000
        return self.releases.release(self.stream, trained_through={0: 7}, now_ms=self.now_ms)

    def end_trial(self):
        return self.releases.end_trial(self.stream)

    @property
    def sent(self):
        return [(sent.kind, sent.version, sent.share) for sent in self.topic]


@pytest.fixture
def desk(make_stream, cyclic_clicks, make_comparison, tmp_path):
    """A desk whose first version serves, with a second that is as good."""
    stream = make_stream()
    for click in cyclic_clicks(400):
        stream.add(*click)
    stream.step(1000)
    made = Desk(stream, tmp_path)
    made.release()
    stream.comparison = make_comparison(0.0)
    return made


def test_the_first_version_serves_at_once(desk):
    assert [kind for kind, _, _ in desk.sent] == ["bundle"]
    assert not desk.releases.trying


def test_an_accepted_version_is_tried_and_the_other_goes_on_serving(desk):
    first = desk.releases.serving

    assert desk.release().accepted

    (_, (kind, version, share)) = desk.sent
    assert (kind, share) == ("canary", 0.05)
    assert version > first
    assert desk.releases.trying
    assert desk.releases.serving == first == desk.releases.deltas.standing.bundle
    assert desk.stream.comparison == Comparison()


def test_what_nobody_withdrew_serves_and_has_the_deltas_from_there_on(desk):
    desk.release()

    verdict = desk.end_trial()

    trial, promoted = desk.topic[1:]
    assert (verdict.verdict, verdict.reason) == ("accepted", "tried")
    assert (promoted.kind, promoted.version, promoted.share) == ("bundle", trial.version, 1.0)
    assert promoted.manifest_sha256 == trial.manifest_sha256
    assert desk.releases.serving == promoted.version == desk.releases.deltas.standing.bundle
    assert not desk.releases.trying
    assert torch.equal(desk.stream._serving.vectors_ND, desk.stream.learner.items.unit_vectors())


def test_what_a_worker_withdrew_never_serves(desk):
    first = desk.releases.serving
    desk.release()
    desk.topic.append(withdrawn(desk.topic[-1], "fewer hits"))

    verdict = desk.end_trial()

    assert (verdict.verdict, verdict.reason, verdict.detail) == (
        "refused",
        "withdrawn",
        "fewer hits",
    )
    assert desk.releases.serving == first
    assert [kind for kind, _, _ in desk.sent] == ["bundle", "canary", "canary"]
    assert not desk.releases.trying


def test_a_version_that_somebody_else_announced_meanwhile_goes_on_serving(desk):
    desk.release()
    first, trial = desk.topic
    desk.topic.append(restoring(first, trial.version + "0", Gate(verdict="promoted")))

    verdict = desk.end_trial()

    assert verdict.reason == "overtaken"
    assert desk.releases.serving == first.version
    assert len(desk.topic) == 3


def test_without_a_trial_there_is_none_to_end(desk):
    with pytest.raises(RuntimeError, match="no version is tried"):
        desk.end_trial()
