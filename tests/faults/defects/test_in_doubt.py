"""F21: whichever request of a batch is lost, before or after its broker has acted, no guess."""

import pytest

from benchmarks.chaos import network_faults as faults
from stream import exactly_once
from stream.assignment import membership
from stream.batch import Outcome

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.faults,
    pytest.mark.matrix("D9", "D15", "F21"),
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),  # cut connections
]

REQUESTS = ("AddPartitionsToTxn", "Produce", "AddOffsetsToTxn", "TxnOffsetCommit", "EndTxn")
LOSSES = {
    "closed": lambda api: faults.close(api, times=1, client="producer-1"),
    "reply closed": lambda api: faults.close(api, on="reply", times=1, client="producer-1"),
    "reply cut": lambda api: faults.cut(api, on="reply", times=1, client="producer-1"),
    "silent": lambda api: faults.silence(api, times=1, client="producer-1"),
    "reply silent": lambda api: faults.silence(api, on="reply", times=1, client="producer-1"),
}


@pytest.mark.parametrize("how", LOSSES)
@pytest.mark.parametrize("api", REQUESTS)
def test_a_batch_that_lost_a_request_takes_effect_once_or_not_at_all(pipe, api, how):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    fault = pipe.proxy.plant(LOSSES[how](api))

    first = pipe.batch(committer, membership(consumer), [b"first"], after=1)
    start = 1 if first is Outcome.KEPT else 0
    again = pipe.batch(committer, membership(consumer), [b"again"], before=start, after=2)

    assert fault.hits == 1
    assert first in (Outcome.KEPT, Outcome.ROLLED_BACK)
    assert again is Outcome.KEPT
    assert pipe.records() == ([b"first"] if first is Outcome.KEPT else []) + [b"again"]
    assert pipe.committed() == 2


@pytest.mark.parametrize("side", ["request", "reply"])
def test_a_commit_in_doubt_is_asked_from_the_broker(pipe, monkeypatch, side):
    monkeypatch.setattr(exactly_once, "_STEP_MS", 2000)
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    pipe.batch(committer, membership(consumer), [b"before"], after=1)
    lost = pipe.proxy.plant(faults.close("EndTxn", on=side, client="producer-1"))
    pipe.proxy.plant(faults.close("FindCoordinator", client="producer-1"))

    outcome = pipe.batch(committer, membership(consumer), [b"in doubt"], before=1, after=2)

    assert lost.hits
    if side == "request":  # EndTxn never reached the broker
        assert (outcome, pipe.committed()) == (Outcome.ROLLED_BACK, 1)
        assert pipe.records() == [b"before"]
    else:
        assert (outcome, pipe.committed()) == (Outcome.KEPT, 2)
        assert pipe.records() == [b"before", b"in doubt"]
    assert committer.renewals == 1


@pytest.mark.parametrize("api", ["InitProducerId", "FindCoordinator"])
@pytest.mark.parametrize("side", ["request", "reply"])
def test_a_successor_that_loses_a_request_takes_over_all_the_same(pipe, api, side):
    consumer = pipe.member()
    committer = pipe.exactly_once(consumer)
    pipe.proxy.plant(faults.close("EndTxn", times=1, client="producer-1"))
    fault = pipe.proxy.plant(faults.close(api, on=side, times=2, client="producer-2"))

    first = pipe.batch(committer, membership(consumer), [b"first"], after=1)
    again = pipe.batch(committer, membership(consumer), [b"again"], before=1, after=2)

    assert fault.hits == 2
    assert (first, again) == (Outcome.KEPT, Outcome.KEPT)
    assert (pipe.records(), pipe.committed()) == ([b"first", b"again"], 2)
