"""A worker whose tokens an engine makes: credited from their ids alone, by the bundle, and never kept waiting."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any

import pytest
import torch

from attribution.attribute import credit_in_pieces
from attribution.model import FederatedModel
from attribution.scoring.credit_preset import USUAL_EFFORT
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.credit_recorder import CreditRecorder
from deployment.replica.capacity import Capacity
from deployment.replica.engines.connection import Connection
from deployment.replica.engines.model_thread import ModelThread
from deployment.replica.engines.remote_batch import RemoteBatch
from deployment.replica.engines.scoring_thread import ScoringThread
from deployment.replica.messages import Finished, ModelCard
from deployment.replica.scoring.scoring_queue import ScoringQueue
from deployment.replica.worker import Worker
from deployment.spool.records import ProgressRecord
from deployment.spool.spool import Spool
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys
from tests.deployment.replica.engines.fake_engine import (
    NAME,
    FakeEngine,
    Item,
    chunk,
    ids_for,
    logprobs_of,
    speak,
    usage,
)
from tests.deployment.replica.scoring.test_scoring_queue import Gate
from tests.deployment.replica.test_worker import Caller, Notes, SmallDisk, job
from tests.waiting import until

CAPACITY = Capacity(max_batch=64, max_waiting=100, default_max_tokens=16)
MARKS = {"engine": {"kind": "openai", "model": NAME}}


@contextmanager
def remote_worker(
    model: FederatedModel,
    line: Connection,
    ledger: Ledger,
    spool: Spool,
    notes: Any,
    *,
    attribute: Any = credit_in_pieces,
) -> Iterator[Worker]:
    """A worker in a thread of its own, put together as a replica does; the model scores in another."""
    bookings = BookingQueue(ledger, spool, lambda *_: None)
    scoring = ScoringThread(ScoringQueue(model, attribute, USUAL_EFFORT, notes), ModelThread())
    card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
    sampling = SamplingKeys(ledger.database)
    recorder = CreditRecorder(card, sampling=sampling, scoring=scoring, spool=spool, bookings=bookings, engine=MARKS)
    batch = RemoteBatch(model, line, NAME)
    worker = Worker(model, batch, scoring=scoring, recorder=recorder, capacity=CAPACITY, observer=notes)
    yield worker
    worker.stop(30)
    bookings.close()


@pytest.fixture
def worker(model: FederatedModel, line: Connection, ledger: Ledger, spool: SmallDisk, notes: Notes) -> Iterator[Worker]:
    """One over the engine."""
    with remote_worker(model, line, ledger, spool, notes) as worker:
        yield worker


def test_an_engines_response_is_credited_and_names_it(worker: Worker, ledger: Ledger, notes: Notes) -> None:
    """Token by token, as if it was our own; the receipt says who generated it."""
    end = Caller(worker, job("r", token_level=True), ledger).end()
    receipt = ledger.receipt("r")

    assert isinstance(end, Finished) and receipt is not None
    assert (8, 8_000_000, "length") == (len(end.tokens), sum(receipt.amounts.values()), end.finish_reason)
    assert {"kind": "openai", "model": NAME} == receipt.settings["engine"]
    assert ["finished"] == notes.outcomes


def test_noise_on_an_engines_log_probabilities_changes_no_share(
    worker: Worker, ledger: Ledger, engine: FakeEngine
) -> None:
    """Up to 0.03 nats, as of half precision: applications are told them, and credit is taken from the ids alone."""
    numbers = random.Random(5)

    def noisy(scale: float, body: dict[str, Any]) -> Iterator[Item]:
        for item in speak(body):
            if isinstance(item, dict) and item["choices"]:
                (token,) = item["choices"][0]["token_ids"]
                item["choices"][0] |= logprobs_of(body, token, numbers.uniform(-scale, scale))
            yield item

    told, amounts = [], []
    for number, scale in enumerate((0.0, 0.03, 0.03)):
        engine.script = partial(noisy, scale)
        end = Caller(worker, job(f"r{number}", "tell me", 40, top_logprobs=0, token_level=True), ledger).end()
        told.append([token.logprob for token in end.logprobs])
        amounts.append((end.summary.shares, [token.shares for token in end.tokens]))

    assert told[0] != told[1] != told[2]
    assert amounts[0] == amounts[1] == amounts[2]


@pytest.mark.parametrize("streamed", [True, False])
def test_what_an_engine_breaks_off_is_credited_as_far_as_it_was_seen(
    worker: Worker, ledger: Ledger, engine: FakeEngine, streamed: bool
) -> None:
    """A stream's tokens are booked as those of one that was cut; the failure says so, and no other row notices."""
    engine.script = lambda body: islice(speak(body), 20)
    bad = Caller(worker, job("bad", "tell me", 40, streamed=streamed), ledger)
    end = bad.end()
    engine.script = speak
    good = Caller(worker, job("good"), ledger).end()
    until(lambda: ledger.receipt("bad"))
    receipt = ledger.receipt("bad")

    assert (503, "engine_unavailable", True) == (end.status, end.code, end.credited)
    assert isinstance(good, Finished) and receipt is not None
    assert (20, True) == (receipt.tokens, receipt.measurement["cut"])


def test_a_refusal_of_the_engine_reaches_the_application(worker: Worker, ledger: Ledger, engine: FakeEngine) -> None:
    """A wrong request is 400, a busy engine 429 with its time, and an engine that hides tokens 500 that is hopeless."""
    engine.refusals = [(400, {}, {"error": {"message": "too long"}}), (429, {"Retry-After": "7"}, "")]
    ends = [Caller(worker, job(f"r{number}"), ledger).end() for number in range(2)]
    engine.script = lambda body: iter([*islice(speak(body), body["max_tokens"]), usage(99)])
    ends.append(Caller(worker, job("hidden"), ledger).end())

    assert [(400, "engine_refused", None), (429, "overloaded", 7), (500, "engine_failed", None)] == [
        (end.status, end.code, end.retry_after_s) for end in ends
    ]
    assert "too long" in ends[0].message
    assert [False, False, True] == [end.hopeless for end in ends]


def test_tokens_come_while_others_are_scored(
    model: FederatedModel, line: Connection, ledger: Ledger, spool: SmallDisk, notes: Notes
) -> None:
    """A score that takes long holds up nobody: the engine's tokens are shown meanwhile, and it comes in the end."""
    gate = Gate()
    with remote_worker(model, line, ledger, spool, notes, attribute=gate) as worker:
        slow = Caller(worker, job("slow"), ledger)
        until(lambda: gate.pieces > 3)
        ends = [Caller(worker, job(f"r{n}", max_tokens=40, attributed=False), ledger).end() for n in range(3)]
        assert [Finished] * 3 == [type(end) for end in ends]
        gate.opened.set()
        assert slow.end().summary is not None
        until(lambda: ledger.last_sequence() == 4)


def test_a_stopped_worker_leaves_what_is_not_scored_to_the_next(
    model: FederatedModel, line: Connection, ledger: Ledger, spool: SmallDisk, notes: Notes, monkeypatch: Any
) -> None:
    """Whoever waits is told, and the spool has the response."""
    monkeypatch.setattr("deployment.replica.worker._LAST_SCORES_S", 0.1)
    gate = Gate()
    with remote_worker(model, line, ledger, spool, notes, attribute=gate) as worker:
        waiting = Caller(worker, job("r", streamed=True), ledger)
        until(lambda: gate.pieces > 3)
        worker.stop(10)
        end = waiting.end()

    assert (503, True) == (end.status, end.code == "engine_unavailable")
    assert not worker.alive


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_device_that_is_lost_ends_the_worker(
    model: FederatedModel, line: Connection, ledger: Ledger, spool: SmallDisk, notes: Notes
) -> None:
    """The scores that waited for it stay in the spool for the next process."""

    def lost(*_: Any, **__: Any) -> Iterator[None]:
        yield
        raise torch.AcceleratorError("the device is gone")

    with remote_worker(model, line, ledger, spool, notes, attribute=lost) as worker:
        assert Caller(worker, job("told", attributed=False), ledger).end().summary is None
        until(lambda: not worker.alive)
        (left,) = [ProgressRecord.from_record(record) for record in spool.live_records()]

    assert ("told", "length") == (left.response_id, left.finish_reason)


def test_a_token_is_with_its_caller_before_the_engine_sends_the_next(
    model: FederatedModel, line: Connection, ledger: Ledger, spool: SmallDisk, notes: Notes, engine: FakeEngine
) -> None:
    """Of 64 streams at once: none waits for more tokens, nor for another stream. `make bench-streaming` times it."""
    seeds, tokens = range(1, 65), 20
    shown: dict[int, int] = dict.fromkeys(seeds, 0)

    def in_turn(body: dict[str, Any]) -> Iterator[Item]:
        for n, token in enumerate(ids_for(body)):
            while shown[body["seed"]] < n:
                yield 0.002
            yield chunk([token], "x", **({"prompt_token_ids": body["prompt"]} if n == 0 else {}))
        yield usage(tokens)

    class Counting(Caller):
        def _take(self, event: Any) -> None:
            super()._take(event)
            shown[self.job.seed or 0] = len(self.deltas)

    engine.script = in_turn
    with remote_worker(model, line, ledger, spool, notes) as worker:
        changes = {"streamed": True, "attributed": False, "temperature": 1.0}
        jobs = [job(f"r{seed}", "tell me", tokens, seed=seed, **changes) for seed in seeds]
        callers = [Counting(worker, each, ledger, look=False) for each in jobs]
        assert [Finished] * len(jobs) == [type(caller.end()) for caller in callers]
    assert {tokens - 1} == set(shown.values())
