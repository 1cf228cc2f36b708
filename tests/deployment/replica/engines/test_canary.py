"""The canary: an engine that serves other weights is found, and serves nobody until it does not any more."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from attribution.decoding.decode import Batch
from attribution.logprob_comparison import Comparison
from attribution.model import FederatedModel
from attribution.scoring.interruptible import run
from deployment.errors import PartLostError
from deployment.health.faults import Watch
from deployment.replica.engines import canary
from deployment.replica.engines.canary import Canary, Run, differs
from deployment.replica.engines.connection import Connection
from deployment.replica.engines.decoder import Decoder
from deployment.replica.engines.engine_status import engine_check
from deployment.replica.engines.errors import away
from deployment.replica.engines.remote_batch import RemoteBatch
from tests.attribution.test_logprob_comparison import without
from tests.deployment.replica.engines.fake_engine import NAME, FakeEngine
from tests.waiting import until

Looking = Callable[..., Canary]


class Told:
    """What a canary told."""

    def __init__(self) -> None:
        self.all: list[tuple[float, bool]] = []

    def __call__(self, difference_nats: float, *, differs: bool) -> None:
        self.all.append((difference_nats, differs))


@pytest.fixture
def told() -> Told:
    """Nothing yet."""
    return Told()


@pytest.fixture
def looking(model: FederatedModel, told: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[Looking]:
    """Makes canaries of the small model, which look again soon."""
    monkeypatch.setattr(canary, "RETRY_S", 0.02)
    made: list[Canary] = []

    def make(decoder: Decoder, read: Run = lambda work: run(work()), interval_s: float = canary.INTERVAL_S) -> Canary:
        made.append(Canary(model, decoder, read, told, 60, interval_s))
        return made[-1]

    yield make
    for each in made:
        each.close()


def code_of(check: Callable[[], None]) -> str | None:
    """What is wrong; None where nothing is."""
    try:
        check()
    except PartLostError as error:
        return error.code
    return None


def test_an_engine_with_the_bundles_weights_passes(model: FederatedModel, looking: Looking, told: Told) -> None:
    """Until it has, nobody knows; then its difference is told, and that it is none."""
    gate = Gated(model)
    seen = looking(gate)
    assert "engine_unchecked" == code_of(seen.require)
    gate.is_open = True
    until(lambda: told.all)

    assert code_of(seen.require) is None
    ((difference, is_other),) = told.all
    assert (0 <= difference < 1e-3, False) == (True, is_other)


class Gated(Batch):
    """A decoder that says nothing before it is let."""

    is_open = False

    def step(self) -> Any:
        """A step, or none yet."""
        if not self.is_open:
            raise away()
        return super().step()


def test_an_engine_that_lacks_one_clients_update_is_found(model: FederatedModel, looking: Looking, told: Told) -> None:
    """Whichever it is; nothing is served then."""
    for client in model.client_ids:
        told.all.clear()
        seen = looking(Batch(without(model, client)))
        until(lambda: told.all)

        assert ("engine_differs", True) == (code_of(seen.require), told.all[0][1])


def test_a_large_difference_is_of_other_weights_whatever_they_are() -> None:
    """More than 0.1 nats a token in the mean, or none that is a number."""
    assert [False, True, True, True] == [
        differs(Comparison(100, *found)) for found in ((0.1, ()), (0.11, ()), (0.02, ("bank",)), (float("nan"), ()))
    ]


def test_the_next_look_that_passes_lifts_the_refusal(model: FederatedModel, looking: Looking, told: Told) -> None:
    """An engine that was away is looked at anew before anybody is served."""
    seen = looking(changing := Changing(model))
    until(lambda: told.all)
    assert "engine_differs" == code_of(seen.require)
    changing.is_whole = True
    seen.forget()
    assert "engine_unchecked" == code_of(seen.require)
    until(lambda: len(told.all) == 2)
    assert code_of(seen.require) is None


class Changing:
    """A decoder over the model without an update, and after its next restart over the whole one."""

    is_whole = False

    def __init__(self, model: FederatedModel) -> None:
        self._batches = {True: Batch(model), False: Batch(without(model, model.client_ids[0]))}

    def __len__(self) -> int:
        return len(self._batches[self.is_whole])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches[self.is_whole], name)


def test_an_engine_that_is_exchanged_during_a_look_is_looked_at_again(
    model: FederatedModel, looking: Looking, told: Told
) -> None:
    """What the bundle reads while the engine goes away was said by the old one, and passes no new one."""
    changing, is_reading, may_read = Changing(model), threading.Event(), threading.Event()
    changing.is_whole = True

    def read(work: Callable[[], Any]) -> Any:
        is_reading.set()
        may_read.wait()
        return run(work())

    seen = looking(changing, read)
    is_reading.wait()
    changing.is_whole = False
    seen.forget()
    may_read.set()
    until(lambda: told.all)

    assert ("engine_differs", [True]) == (code_of(seen.require), [is_other for _, is_other in told.all])


def test_a_comparison_does_not_hold_for_ever(model: FederatedModel, looking: Looking, told: Told) -> None:
    """Where every look since has failed, nobody is served, as before the first; until one succeeds."""
    gate = Gated(model)
    gate.is_open = True
    seen = looking(gate, interval_s=2.0)
    until(lambda: told.all)
    gate.is_open = False
    passed = code_of(seen.require)
    until(lambda: code_of(seen.require) is not None)
    refused = code_of(seen.require)
    gate.is_open = True
    until(lambda: code_of(seen.require) is None)

    assert (None, "engine_unchecked") == (passed, refused)


def test_health_tells_what_is_wrong_with_an_engine(
    model: FederatedModel, line: Connection, engine: FakeEngine, looking: Looking, told: Told
) -> None:
    """Not compared yet, fine, without the model that is set, away; and once it is back it is compared anew."""
    seen = looking(gate := Gated(model))
    check = engine_check(line, NAME, seen)
    assert "engine_unchecked" == code_of(check)
    gate.is_open = True
    until(lambda: told.all)
    assert code_of(check) is None
    engine.served = ["another"]
    assert "engine_unsuitable" == code_of(check)
    engine.served = [NAME]
    until(lambda: code_of(check) is None)
    until(lambda: 2 == len(told.all))
    engine.stop()
    assert "engine_unreachable" == code_of(check)


def test_who_asks_for_a_response_is_told_why_there_is_none(model: FederatedModel, looking: Looking) -> None:
    """In words for anybody, without an address."""
    seen = looking(Gated(model))
    with closing(Connection("http://127.0.0.1:9")) as line:
        watch = Watch({"engine": engine_check(line, NAME, seen)}, 0.02)
        until(lambda: watch.faults)
        watch.close()
    (fault,) = watch.faults

    assert ("engine_unreachable", "the service's engine does not answer") == (fault.code, fault.message)


def test_a_fake_engine_is_found(
    model: FederatedModel, batch: RemoteBatch, engine: FakeEngine, looking: Looking, told: Told
) -> None:
    """Over HTTP: texts of eight beginnings at temperature 1, with log-probabilities, which are not the bundle's."""
    looking(batch)
    until(lambda: told.all)

    assert told.all[0][1] and told.all[0][0] > 0.1
    assert 8 == len({tuple(body["prompt"]) for body in engine.bodies})
    assert {(1.0, 0, 60)} == {(body["temperature"], body["logprobs"], body["max_tokens"]) for body in engine.bodies}
