"""Scoring beside decoding: nobody waits for a score but who asked for it, and none is lost."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution.attribute import credit_in_pieces, paper_in_pieces
from attribution.decoding.decode import Batch
from attribution.decoding.taps import Captures
from attribution.errors import ScoreError
from attribution.model import FederatedModel
from attribution.records import Generation, Sampling
from attribution.scoring.credit_preset import USUAL_EFFORT
from attribution.teacher_forcing import generation_of
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.capacity import Capacity
from deployment.replica.messages import Finished
from deployment.replica.scoring import scoring_queue
from deployment.replica.scoring.scoring_order import ScoringTask
from deployment.replica.scoring.scoring_queue import ScoringQueue
from deployment.spool.records import ProgressRecord
from deployment.spool.spool import Spool
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN, PENDING
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys, put_in_force
from tests.deployment.replica.test_worker import (
    MEMBERS,
    Caller,
    Notes,
    SmallDisk,
    job,
    worker_over,
    working,
)
from tests.waiting import until


class Gate:
    """Scores nothing until it is opened; goes on in pieces meanwhile."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.pieces = 0

    def __call__(self, *arguments: Any, **options: Any) -> Iterator[None]:
        while not self.opened.wait(0.002):
            self.pieces += 1
            yield
        return (yield from credit_in_pieces(*arguments, **options))


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A scorer that is slow."""
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.mark.parametrize("streamed", [True, False])
def test_who_did_not_ask_for_credit_does_not_wait_for_it(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
    gate: Gate,
    streamed: bool,
) -> None:
    """The end comes once the token ids are durable; the receipt, of a whole response, follows when it is scored."""
    with working(model, ledger, spool, notes, attribute=gate) as worker:
        end = Caller(worker, job("r1", streamed=streamed, attributed=False), ledger).end()
        (waiting,) = [ProgressRecord.from_record(record) for record in spool.live_records()]
        assert (None, False, 8) == (end.summary, end.booked, end.completion_tokens)
        assert ("length", 8) == (waiting.finish_reason, len(waiting.token_ids))
        assert ledger.receipt("r1") is None
        gate.opened.set()
        until(lambda: ledger.receipt("r1"))

    receipt = ledger.receipt("r1")
    assert receipt is not None and "cut" not in receipt.measurement
    assert 8 * MICRO_CREDITS_PER_TOKEN == sum(receipt.amounts.values())
    assert 1 == notes.unscored


def test_streams_go_on_while_others_are_scored(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
    gate: Gate,
) -> None:
    """Responses begin, speak and end while a score is worked on."""
    with working(model, ledger, spool, notes, attribute=gate) as worker:
        slow = Caller(worker, job("slow"), ledger)
        until(lambda: gate.pieces > 3)
        ends = [Caller(worker, job(f"r{n}", max_tokens=40, attributed=False), ledger).end() for n in range(3)]
        assert [Finished] * 3 == [type(end) for end in ends]
        gate.opened.set()
        assert slow.end().summary is not None


def test_who_asked_comes_before_who_did_not(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
    gate: Gate,
) -> None:
    """Of responses that wait for their score those are first of which an application waits."""
    with working(model, ledger, spool, notes, attribute=gate) as worker:
        for n in range(3):
            Caller(worker, job(f"r{n}", attributed=False), ledger).end()
        asked = Caller(worker, job("asked"), ledger)
        until(lambda: notes.unscored == 4)
        gate.opened.set()
        asked.end()
        until(lambda: ledger.last_sequence() == 4)
    assert ledger.receipts_after(0)[0].response_id in {"r0", "asked"}, "only the one under way comes before"
    assert "asked" in {receipt.response_id for receipt in ledger.receipts_after(0)[:2]}


def test_a_flood_keeps_no_other_application_s_score_waiting(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, gate: Gate
) -> None:
    """Behind five of one key whose scores are waited for, another key's is next but one, beside the one under way."""
    with working(model, ledger, spool, notes, attribute=gate) as worker:
        callers = [Caller(worker, job(f"flood {n}"), ledger) for n in range(5)]
        until(lambda: notes.unscored == 5)
        callers.append(Caller(worker, job("other", application="ba9876543210"), ledger))
        until(lambda: notes.unscored == 6)
        gate.opened.set()
        assert all(caller.end().summary for caller in callers)

    assert "other" in {receipt.response_id for receipt in ledger.receipts_after(0)[:3]}


def test_no_response_begins_while_too_many_wait_for_their_score(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
    gate: Gate,
) -> None:
    """The queue is bounded: who would make it longer waits for a place, and gets one."""
    capacity = Capacity(max_batch=2, max_waiting=20, default_max_tokens=8, max_unscored=2)
    with working(model, ledger, spool, notes, attribute=gate, capacity=capacity) as worker:
        callers = [Caller(worker, job(f"r{n}", attributed=False), ledger) for n in range(6)]
        assert [Finished] * 2 == [type(caller.end()) for caller in callers[:2]]
        pieces = gate.pieces
        until(lambda: gate.pieces > pieces + 20)
        assert (2, 2) == (notes.unscored, notes.firsts)
        gate.opened.set()
        assert [Finished] * 4 == [type(caller.end()) for caller in callers[2:]]
        until(lambda: ledger.last_sequence() == 6)


def test_memory_that_ran_out_is_made_do_with(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
) -> None:
    """A response that could not be scored is scored again, its blocks run twice, and earns what it always would."""
    efforts = []

    def scarce(*arguments: Any, effort: Any, **options: Any) -> Iterator[None]:
        efforts.append(effort.memory_bytes)
        work = credit_in_pieces(*arguments, effort=effort, **options)
        yield
        if effort.memory_bytes:
            raise MemoryError
        return (yield from work)

    with working(model, ledger, spool, notes) as worker:
        usual = Caller(worker, job("usual"), ledger).end()
    with working(model, ledger, spool, notes, attribute=scarce) as worker:
        end = Caller(worker, job("scarce"), ledger).end()

    assert 0 == efforts[-1] and 2 == len(efforts)
    assert end.summary.shares == pytest.approx(usual.summary.shares, rel=1e-4)


def test_a_told_response_without_a_score_is_the_commons(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
) -> None:
    """An application has it whole, so it stands in the books: nobody earns, and it is not a response that was cut."""

    def nothing(*_: Any, **__: Any) -> Iterator[None]:
        yield
        raise ScoreError("a score is NaN")

    with working(model, ledger, spool, notes, attribute=nothing) as worker:
        assert Caller(worker, job("r1", attributed=False), ledger).end().summary is None
        until(lambda: ledger.receipt("r1"))
        until(lambda: not spool.live_records())

    receipt = ledger.receipt("r1")
    assert receipt is not None
    assert ({COMMONS: 8 * MICRO_CREDITS_PER_TOKEN}, "none") == (dict(receipt.amounts), receipt.method)
    assert "cut" not in receipt.measurement and "ScoreError" in receipt.measurement["unattributed"]


def test_what_waited_for_its_score_when_a_process_died_is_scored_by_the_next(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
    gate: Gate,
    tmp_path: Path,
) -> None:
    """From the token ids alone, and it is a whole response: its receipt is the one that would have been booked."""
    with working(model, ledger, spool, notes) as worker:
        expected = Caller(worker, job("twin"), ledger).end().summary.shares
    with working(model, ledger, spool, notes, patience_s=0, attribute=gate) as worker:
        Caller(worker, job("left", attributed=False), ledger).end()
        left = spool.live_records()
    heir = Spool(tmp_path / "heir")
    heir.append(left)
    url = f"sqlite:///{tmp_path}/next.db"
    Ledger.prepare(url)
    with closing(Ledger(url)) as books:
        books.register(model.name, MEMBERS)
        bookings = BookingQueue(books, heir, lambda *_: None)
        worker = worker_over(model, books, heir, bookings, Notes())
        worker.recover(ProgressRecord.from_record(left[0]))
        until(lambda: books.receipt("left"))
        worker.stop(30)
        bookings.close()
        receipt = books.receipt("left")

    assert receipt is not None and "cut" not in receipt.measurement
    shares = {account: amount / receipt.tokens / MICRO_CREDITS_PER_TOKEN for account, amount in receipt.amounts.items()}
    assert {client: shares[client] for client in expected} == pytest.approx(expected, abs=1e-5)


def test_only_a_fraction_is_measured(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
) -> None:
    """What is not is booked as pending without a score; who asks is told the shares, and it is pending all the same."""
    put_in_force(ledger.database, model.name, "0.5", "test")
    rule = SamplingKeys(ledger.database).rule(model.name, 2**52)
    names = [f"r{n}" for n in range(40)]
    measured = next(name for name in names if rule.is_measured(name))
    skipped, asked = [name for name in names if not rule.is_measured(name)][:2]
    now = 2**52
    with working(model, ledger, spool, notes) as worker:
        for name in (measured, skipped):
            Caller(worker, replace(job(name, attributed=False), created_at_us=now), ledger).end()
        end = Caller(worker, replace(job(asked), created_at_us=now), ledger).end()
        until(lambda: ledger.last_sequence() == 3)

    assert 2 == notes.attributions, "the skipped one was scored"
    assert {PENDING: 8 * MICRO_CREDITS_PER_TOKEN} == dict(end.summary.credit) and sum(end.summary.shares.values()) > 0
    receipts = {name: ledger.receipt(name) for name in (measured, skipped, asked)}
    for name, receipt in receipts.items():
        assert receipt is not None
        assert (name != measured) == (PENDING in receipt.amounts)
        assert (name == measured) == receipt.measurement["sampling"]["measured"]


def test_what_waits_keeps_little_of_its_decoding(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a bound only ids are kept of a response, which is scored all the same."""
    generations = []

    def noting(model: Any, generation: Any, **options: Any) -> Any:
        generations.append(generation)
        return credit_in_pieces(model, generation, **options)

    shares = []
    for most in (1 << 28, 0):
        monkeypatch.setattr(scoring_queue, "CAPTURED_BYTES", most)
        with working(model, ledger, spool, notes, attribute=noting) as worker:
            shares.append(Caller(worker, job(f"r{most}"), ledger).end().summary.shares)

    assert [False, True] == [generation.tail_input is None for generation in generations]
    assert shares[0] == pytest.approx(shares[1], rel=1e-4)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_lost_device_gives_nothing_to_the_commons(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes
) -> None:
    """It is no response's failure: the worker dies, and what waited stays in the spool for the next one to score."""

    def lost(*_: Any, **__: Any) -> Iterator[None]:
        yield
        raise torch.AcceleratorError("the device is gone")

    with working(model, ledger, spool, notes, attribute=lost) as worker:
        assert Caller(worker, job("told", attributed=False), ledger).end().summary is None
        until(lambda: not worker.alive)
        (left,) = [ProgressRecord.from_record(record) for record in spool.live_records()]

    assert ("told", "length") == (left.response_id, left.finish_reason)
    assert ledger.receipt("told") is None


@pytest.mark.parametrize(
    ("is_reading", "piled_up", "urgent", "pieces"),
    [
        (False, False, False, 3),
        (False, False, True, 9),
        (False, True, False, 9),
        (True, False, False, 0),
        (True, False, True, 0),
        (True, True, False, 9),
    ],
)
def test_most_tokens_wait_for_no_score(
    model: FederatedModel, notes: Notes, gate: Gate, is_reading: bool, piled_up: bool, urgent: bool, pieces: int
) -> None:
    """Of nine steps six are followed by the next at once, of those that read prompts all.

    Unless responses pile up; and where an application waits for a score, only those that read prompts are.
    """
    scoring = ScoringQueue(model, gate, USUAL_EFFORT, notes)
    scoring.put(ScoringTask(generation_of([1], [2]), False, urgent, lambda _: None, lambda: None))
    for _ in range(9):
        scoring.advance_after(0.0, is_reading=is_reading, piled_up=piled_up)
    assert pieces == gate.pieces


def test_token_that_waits_for_scores_comes_before_twice_the_time(
    model: FederatedModel, notes: Notes, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn has four fifths of a step, of the shorter one where the last step read a prompt too."""
    turns: list[float] = []
    scoring = ScoringQueue(model, gate, USUAL_EFFORT, notes)
    monkeypatch.setattr(scoring, "advance", turns.append)
    for step_s in (10.0, 10.0, 10.0):
        scoring.advance_after(step_s, is_reading=False, piled_up=False)
    scoring.advance_after(30.0, is_reading=True, piled_up=True)
    assert [8.0, 8.0] == turns


def test_rows_that_the_cache_would_not_hold_wait(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes
) -> None:
    """As many are decoded together as have places for the longest of them; one that needs more is decoded alone."""
    capacity = Capacity(max_batch=8, max_waiting=20, default_max_tokens=8, max_batch_tokens=100)
    together: list[list[int]] = []

    class Watched(Batch):
        held: dict[str, int] = {}  # noqa: RUF012 - of one test

        def join(self, key: str, prompt_ids: Sequence[int], sampling: Sampling) -> None:
            super().join(key, prompt_ids, sampling)
            self.held[key] = len(prompt_ids) + sampling.max_new_tokens
            together.append([*self.held.values()])

        def leave(self, key: str) -> Generation:
            del self.held[key]
            return super().leave(key)

    wanted = [20, 20, 100, 20, 8]
    with working(model, ledger, spool, notes, capacity=capacity, batch=Watched(model)) as worker:
        callers = [Caller(worker, job(f"r{n}", max_tokens=tokens), ledger) for n, tokens in enumerate(wanted)]
        assert wanted == [caller.end().completion_tokens for caller in callers]
    assert [107] in together and [27, 27] in together
    assert all(len(tokens) * max(tokens) <= 100 for tokens in together if len(tokens) > 1)


def test_paper_is_served_from_captures_and_from_ids_alike(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What decoding captured and one pass over the ids give the same shares; the receipt names the method."""
    ids = []

    def noting(model: Any, generation: Any, **options: Any) -> Any:
        ids.append(not len(generation.block_input))
        return paper_in_pieces(model, generation, **options)

    ends = []
    for most in (1 << 28, 0):
        monkeypatch.setattr(scoring_queue, "CAPTURED_BYTES", most)
        batch = Batch(model, captures=Captures.PAPER)
        with working(model, ledger, spool, notes, attribute=noting, batch=batch) as worker:
            ends.append(Caller(worker, job(f"r{most}", token_level=True), ledger).end())
            receipt = ledger.receipt(f"r{most}")
            assert receipt is not None and receipt.method == "paper"
            assert 8 * MICRO_CREDITS_PER_TOKEN == sum(receipt.amounts.values())

    assert [False, True] == ids
    assert ends[0].summary.shares == pytest.approx(ends[1].summary.shares, rel=1e-4)
    assert [8, 8] == [len(end.tokens) for end in ends]
