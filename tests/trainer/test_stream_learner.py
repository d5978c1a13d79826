import numpy as np
import pytest
import torch

from trainer import checkpoint, state
from trainer.settings import TrainerSettings
from trainer.stream_learner import Frozen


def feed(stream, clicks, *, every: int = 70) -> list[float]:
    """Add clicks and learn after every so many; return the losses."""
    losses = []
    for number, click in enumerate(clicks, 1):
        stream.add(*click)
        if number % every == 0:
            step = stream.step(click[3])
            losses += [step.loss] if step else []
    return losses


def settings_of(stream) -> TrainerSettings:
    return stream._settings


@pytest.mark.parametrize("full_softmax_items", [5000, 0])
def test_a_restart_continues_bit_for_bit(make_stream, cyclic_clicks, tmp_path, full_softmax_items):
    clicks = cyclic_clicks(900)
    uninterrupted = make_stream(full_softmax_items=full_softmax_items)
    feed(uninterrupted, clicks[:500])
    expected = feed(uninterrupted, clicks[500:])

    before = make_stream(full_softmax_items=full_softmax_items)
    feed(before, clicks[:500])  # 500 is no multiple of 70: clicks wait in the session buffer
    checkpoint.write(tmp_path, state.capture(before, state.Position(offsets={0: 500})))
    content = checkpoint.read_latest(tmp_path)
    after, position = state.restore(content, settings_of(before))

    assert position.offsets == {0: 500}
    assert feed(after, clicks[500:]) == expected
    for name, tensor in state.capture(uninterrupted, position).tensors["learner"].items():
        restored = state.capture(after, position).tensors["learner"][name]
        assert torch.equal(restored, tensor), name
    assert after.comparison == uninterrupted.comparison
    assert after.learner.progress == uninterrupted.learner.progress
    assert np.array_equal(after.recent_windows().rows_BT, uninterrupted.recent_windows().rows_BT)


def test_the_same_clicks_learnt_without_the_checkpoint_differ(make_stream, cyclic_clicks):
    clicks = cyclic_clicks(900)
    one, other = make_stream(), make_stream()
    feed(one, clicks[:500])
    feed(other, clicks[:490])

    assert feed(one, clicks[500:]) != feed(other, clicks[500:])


def test_clicks_are_predicted_before_they_are_learnt_and_prediction_gets_better(
    make_stream, cyclic_clicks
):
    stream = make_stream()
    clicks = cyclic_clicks(6000)

    feed(stream, clicks[:1000])
    early = stream.comparison.candidate
    stream.serve(None)
    feed(stream, clicks[1000:])

    assert 0 < early.num < 1000
    assert stream.comparison.candidate.mrr > early.mrr + 0.2


def test_an_item_that_was_unknown_before_the_batch_is_a_miss(make_stream):
    stream = make_stream()
    for number in range(40):
        stream.add("u", None, f"item-{number}", number)

    stream.step(100)

    assert stream.comparison.candidate.num == 0
    stream.add("u", None, "item-new", 200)
    stream.step(200)
    assert stream.comparison.candidate.num == 1
    assert stream.comparison.candidate.hits == 0


def test_both_versions_score_the_same_clicks(make_stream, cyclic_clicks):
    stream = make_stream()
    clicks = cyclic_clicks(1500)
    feed(stream, clicks[:500])
    learner = stream.learner
    stream.serve(Frozen(learner.frozen_encoder(), learner.items.unit_vectors()))

    feed(stream, clicks[500:])

    compared = stream.comparison
    assert compared.candidate.num == compared.serving.num > 300
    assert compared.candidate.mrr > compared.serving.mrr
    assert compared.change().mean > 2 * compared.change().error


def test_predictions_of_one_batch_are_capped(make_stream, cyclic_clicks):
    stream = make_stream()
    feed(stream, cyclic_clicks(300), every=300)
    stream._settings = settings_of(stream).model_copy(update={"max_predictions": 20})

    feed(stream, cyclic_clicks(300, seed=1), every=300)

    assert 0 < stream.comparison.candidate.num <= 20


def test_unusable_clicks_name_their_reason(make_stream):
    stream = make_stream(user_clicks_per_hour=2, max_items=1)

    reasons = [stream.add("u", None, item, 0) for item in ("a", "b", "a")]

    assert reasons == [None, "not_admitted", "flood"]


def test_recent_windows_stay_bounded(make_stream, cyclic_clicks):
    stream = make_stream(user_clicks_per_hour=10_000)
    feed(stream, cyclic_clicks(8000))

    assert 2000 <= stream.recent_windows().num_targets < 2200


def test_a_step_without_targets_learns_nothing_but_counts(make_stream):
    stream = make_stream()
    stream.add("u", None, "a", 5)

    assert stream.step(5) is None
    assert stream.learner.items.counts_N.tolist() == [1.0]


def test_where_everybody_walks_another_way_the_stream_drifts_and_vectors_move_further_again(
    make_stream, cyclic_clicks
):
    stream = make_stream(user_clicks_per_hour=10_000)
    before = cyclic_clicks(8_000)
    way = np.random.default_rng(9).permutation(40)
    after = [
        (user, session, f"item-{way[int(item.removeprefix('item-'))]}", time + 8_000_000)
        for user, session, item, time in cyclic_clicks(2_000, seed=1)
    ]

    steps = [drifted for drifted, _ in watched(stream, before)]
    seen = watched(stream, after)

    assert not any(steps)
    assert sum(drifted for drifted, _ in seen) == 1
    first = [drifted for drifted, _ in seen].index(True)
    assert seen[first][1] < 0.5 * seen[first - 1][1]


def watched(stream, clicks):
    """Learn; return of each step whether it drifted, and the mean Adagrad sum after it."""
    seen = []
    for number, click in enumerate(clicks, 1):
        stream.add(*click)
        if number % 100 == 0 and (step := stream.step(click[3])):
            seen.append((step.drifted, float(stream.learner.items.accumulators_N.mean())))
    return seen
