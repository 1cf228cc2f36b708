"""The worker on a small real model: joins and leaves between steps, books before the end, lets no caller hang."""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from attribution.attribute import credit_in_pieces
from attribution.decoding.decode import Batch
from attribution.errors import ScoreError
from attribution.model import FederatedModel
from attribution.scoring.credit_preset import USUAL_EFFORT
from attribution.scoring.interruptible import run
from deployment.errors import SpoolError
from deployment.replica.active_request import PROGRESS_TOKENS
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.credit_recorder import CreditRecorder
from deployment.replica.booking.recovery import Recovery
from deployment.replica.capacity import Capacity
from deployment.replica.messages import Admitted, ChatMessage, Delta, Event, Failed, Finished, Job, ModelCard, PromptIds
from deployment.replica.scoring.scoring_queue import Scoring, ScoringQueue
from deployment.replica.worker import Worker
from deployment.spool.lines import Record
from deployment.spool.records import ProgressRecord
from deployment.spool.spool import Spool
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys
from tests.deployment.replica.booking.test_booking_queue import MovingLedger
from tests.rewards.receipts import make_receipt
from tests.waiting import PATIENCE_S, until

CREDIT = credit_in_pieces
CAPACITY = Capacity(max_batch=4, max_waiting=100, default_max_tokens=16)
MEMBERS = {"clinic": "A clinic", "bank": "A bank"}


class Notes:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.outcomes: list[str] = []
        self.firsts = self.tokens = self.attributions = self.unscored = 0
        self.loads: list[tuple[int, int]] = []

    def note_step(self, first_s: Sequence[float], between_s: Sequence[float]) -> None:
        """Count them."""
        assert all(seconds >= 0 for seconds in (*first_s, *between_s))
        self.firsts += len(first_s)
        self.tokens += len(first_s) + len(between_s)
        if first_s:
            self.began.set()

    def note_attribution(self, seconds: float) -> None:
        """Count it."""
        assert seconds >= 0
        self.attributions += 1

    def load(self, running: int, waiting: int) -> None:
        """Remember it."""
        self.loads.append((running, waiting))

    def note_unscored(self, responses: int, seconds: float) -> None:
        """Remember the most."""
        assert seconds >= 0
        self.unscored = max(self.unscored, responses)

    def note_end(self, outcome: str, seconds: float) -> None:
        """Remember how."""
        assert seconds >= 0
        self.outcomes.append(outcome)


class Caller:
    """Collects one job's events; on its end it looks at once whether the ledger has the receipt."""

    def __init__(self, worker: Worker, job: Job, ledger: Ledger, *, look: bool = True) -> None:
        self.job = job
        self._look = look
        self.deltas: list[str] = []
        self.events: list[Delta] = []
        self.booked_at_end = False
        self._ledger = ledger
        self._ends: queue.Queue[Event] = queue.Queue()
        worker.submit(job, self._take)

    def _take(self, event: Event) -> None:
        if isinstance(event, Admitted):
            assert not self.deltas, "a job is admitted before its text comes"
            return
        if isinstance(event, Delta):
            self.events.append(event)
            self.deltas.append(event.text)
            return
        self.booked_at_end = self._look and self._ledger.receipt(self.job.response_id) is not None
        self._ends.put(event)

    def end(self) -> Any:
        """The last event, waited for."""
        return self._ends.get(timeout=PATIENCE_S)

    def text(self) -> str:
        """The whole text."""
        end = self.end()
        return "".join(self.deltas) + end.text


def job(response_id: str, prompt: Any = "tell me", max_tokens: int | None = 8, **changes: Any) -> Job:
    """A greedy job."""
    made = Job(response_id, "0123456789ab", 1_700_000_000_000_000, prompt, max_tokens, 0.0, 1.0, None, (), False, False)
    return replace(made, **changes)


class GatedBatch(Batch):
    """A batch that makes no step while its gate is closed."""

    def __init__(self, model: FederatedModel, gate: threading.Event) -> None:
        super().__init__(model)
        self._gate = gate

    def step(self) -> Any:
        """One step, once it may."""
        assert self._gate.wait(PATIENCE_S)
        return super().step()


class SmallDisk(Spool):
    """A spool whose disk can be full, and whose file can be looked at as each append leaves it."""

    full = False
    look: Callable[[Sequence[Record]], None] | None = None

    def append(self, records: Sequence[Record]) -> None:
        """Append, or fail as a full disk does; nobody goes on before whoever looks has looked."""
        if self.full and records:
            raise SpoolError(f"{self.path} cannot be written: No space left on device")
        super().append(records)
        if self.look is not None:
            self.look(records)


def worker_over(
    model: FederatedModel,
    ledger: Ledger,
    spool: Spool,
    bookings: BookingQueue,
    notes: Notes,
    *,
    attribute: Any = CREDIT,
    capacity: Capacity = CAPACITY,
    batch: Batch | None = None,
    scoring: Scoring | None = None,
) -> Worker:
    """A worker over the model, put together as a replica does."""
    card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
    if scoring is None:
        scoring = ScoringQueue(model, attribute, USUAL_EFFORT, notes)
    recorder = CreditRecorder(
        card, sampling=SamplingKeys(ledger.database), scoring=scoring, spool=spool, bookings=bookings
    )
    return Worker(
        model,
        Batch(model) if batch is None else batch,
        scoring=scoring,
        recorder=recorder,
        capacity=capacity,
        observer=notes,
    )


@contextmanager
def working(
    model: FederatedModel,
    ledger: Ledger,
    spool: Spool,
    notes: Notes,
    *,
    patience_s: float = 30,
    **changes: Any,
) -> Iterator[Worker]:
    """A worker over the model, with a booking queue; both are stopped in the end, whatever still waits by then."""
    bookings = BookingQueue(ledger, spool, lambda *_: None)
    worker = worker_over(model, ledger, spool, bookings, notes, **changes)
    yield worker
    worker.stop(patience_s)
    bookings.close()


def test_end_is_told_only_once_it_is_booked(worker: Worker, ledger: Ledger, notes: Notes) -> None:
    """When the last event comes the receipt is in the ledger, and it sums to the tokens exactly."""
    caller = Caller(worker, job("one"), ledger)
    end = caller.end()

    assert isinstance(end, Finished)
    assert caller.booked_at_end
    receipt = ledger.receipt("one")
    assert receipt is not None
    assert (8, 8_000_000) == (receipt.tokens, sum(receipt.amounts.values()))
    assert (receipt.payload_sha256, receipt.amounts) == (end.summary.receipt_id, end.summary.credit)
    assert ("length", 7, 8, ()) == (end.finish_reason, end.prompt_tokens, end.completion_tokens, end.tokens)
    assert receipt.duration_us > 0
    assert ["finished"] == notes.outcomes


def test_last_text_waits_for_the_receipt(worker: Worker, ledger: Ledger) -> None:
    """Nobody has the whole text before it is booked: the last piece comes with the end."""
    callers = [Caller(worker, job(f"r{n}", f"tell me {n}", max_tokens=1), ledger) for n in range(20)]

    assert any(caller.end().text for caller in callers)
    assert [[]] * 20 == [caller.deltas for caller in callers]


def test_many_jobs_share_the_batch(worker: Worker, ledger: Ledger) -> None:
    """More jobs than places: each ends once, booked once, with the text that it gets alone."""
    alone = Caller(worker, job("alone", "tell me 3"), ledger).text()
    callers = [Caller(worker, job(f"r{n}", f"tell me {n % 4}", max_tokens=8 - n % 2 * 4), ledger) for n in range(20)]
    texts = [caller.text() for caller in callers]

    assert texts[3]
    assert {alone[: len(texts[3])]} == {texts[n] for n in range(3, 20, 4)}
    assert 21 == ledger.last_sequence()
    assert 8 + 10 * 8 + 10 * 4 == ledger.tokens()


def test_the_observer_is_told_of_every_token_attribution_and_place(
    model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes
) -> None:
    """One first token and one attribution for each job, all tokens that were booked, and an empty batch in the end."""
    with working(model, ledger, spool, notes, capacity=Capacity(2, 50, 8)) as worker:
        callers = [Caller(worker, job(f"r{n}", f"tell me {n}", max_tokens=8), ledger) for n in range(5)]
        for caller in callers:
            assert isinstance(caller.end(), Finished)

    assert (5, 40, 5) == (notes.firsts, ledger.tokens(), notes.attributions)
    assert notes.tokens == ledger.tokens()
    assert 1 <= max(running for running, _ in notes.loads) <= 2
    assert 1 <= max(waiting for _, waiting in notes.loads) <= 5
    assert (0, 0) == notes.loads[-1]
    assert all(before != after for before, after in zip(notes.loads, notes.loads[1:], strict=False))


def test_nobody_waits_for_a_long_one(worker: Worker, ledger: Ledger, notes: Notes) -> None:
    """A job that comes while another runs joins between steps and may end first."""
    long = Caller(worker, job("long", max_tokens=100), ledger)
    assert notes.began.wait(PATIENCE_S)
    short = Caller(worker, job("short", max_tokens=2), ledger)

    assert isinstance(short.end(), Finished)
    assert isinstance(long.end(), Finished)
    assert ["short", "long"] == [receipt.response_id for receipt in ledger.receipts_after(0)]


def test_cancelled_job_is_booked_for_what_it_had(worker: Worker, ledger: Ledger, notes: Notes) -> None:
    """A running job that is cancelled leaves at the next step, and its tokens so far are booked."""
    Caller(worker, job("gone", max_tokens=110), ledger)
    assert notes.began.wait(PATIENCE_S)
    worker.cancel("gone")
    Caller(worker, job("next", max_tokens=1), ledger).end()
    until(lambda: ledger.receipt("gone"))

    receipt = ledger.receipt("gone")
    assert receipt is not None
    assert 1 <= receipt.tokens < 110
    assert ["cancelled", "finished"] == notes.outcomes


def test_waiting_job_is_cancelled_without_a_trace(
    model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes
) -> None:
    """A job that never ran books nothing; cancelling what is unknown or has ended does nothing."""
    with working(model, ledger, spool, notes, capacity=Capacity(1, 5, 8)) as worker:
        running = Caller(worker, job("running", max_tokens=100), ledger)
        assert notes.began.wait(PATIENCE_S)
        Caller(worker, job("waiting"), ledger)
        worker.cancel("waiting")
        worker.cancel("unknown")
        running.end()
        worker.cancel("running")

    assert ["running"] == [receipt.response_id for receipt in ledger.receipts_after(0)]
    assert ["cancelled", "finished"] == notes.outcomes


def test_full_worker_refuses_at_once(model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes) -> None:
    """When every place is taken a job is refused with 429 and a time to come back; the others do not notice."""
    with working(model, ledger, spool, notes, capacity=Capacity(1, 1, 8)) as worker:
        taken = [Caller(worker, job(f"r{n}", max_tokens=60), ledger) for n in range(2)]
        refused = Caller(worker, job("r2"), ledger).end()

        assert (429, "overloaded", 1) == (refused.status, refused.code, refused.retry_after_s)
        assert [Finished, Finished] == [type(caller.end()) for caller in taken]


def test_a_flood_of_one_application_does_not_keep_another_waiting(
    model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes
) -> None:
    """Behind twenty jobs of one key, another key's job is next but one; the first key may not take every place."""
    gate = threading.Event()
    batch = GatedBatch(model, gate)
    with working(model, ledger, spool, notes, capacity=Capacity(1, 9, 8), batch=batch) as worker:
        flood = [Caller(worker, job(f"flood {n}", max_tokens=10), ledger) for n in range(20)]
        refused = [caller.end() for caller in flood[7:]]
        other = Caller(worker, job("other", max_tokens=10, application="ba9876543210"), ledger)
        until(lambda: not worker._encoding)  # it waits behind the others
        gate.set()
        assert isinstance(other.end(), Finished)
        assert [Finished] * 7 == [type(caller.end()) for caller in flood[:7]]

    assert {(429, "overloaded")} == {(end.status, end.code) for end in refused}
    assert "waits in 6 of 9 places" in refused[0].message
    order = [receipt.response_id for receipt in ledger.receipts_after(0)]
    assert order.index("other") <= 2
    assert [f"flood {n}" for n in range(7)] == [name for name in order if name != "other"]


def test_prompt_that_cannot_be_decoded_is_the_callers_fault(worker: Worker, ledger: Ledger) -> None:
    """A prompt that leaves no room in the context is refused by name, and the default limit fits what room there is."""
    text = Caller(worker, job("text", "x" * 125), ledger).end()
    chat = Caller(worker, job("chat", (ChatMessage("user", "x" * 200),), None), ledger).end()
    fits = Caller(worker, job("fits", "x" * 120, None), ledger).end()

    assert [(400, "context_length_exceeded", "prompt"), (400, "context_length_exceeded", "messages")] == [
        (end.status, end.code, end.param) for end in (text, chat)
    ]
    assert "128" in text.message
    assert 8 == fits.completion_tokens
    assert 1 == ledger.last_sequence()


def test_token_level_credit_adds_up_to_what_was_booked(worker: Worker, ledger: Ledger) -> None:
    """Each token's shares sum to one; their mean is the response's share; the pieces are the text."""
    caller = Caller(worker, job("one", token_level=True), ledger)
    end = caller.end()

    assert 8 == len(end.tokens)
    assert "".join(caller.deltas) + end.text == "".join(token.token for token in end.tokens)
    for token in end.tokens:
        assert token.base_share + sum(token.shares.values()) == pytest.approx(1)
        assert {"clinic", "bank"} == token.scores.keys()
    for client, share in end.summary.shares.items():
        assert sum(token.shares[client] for token in end.tokens) / 8 == pytest.approx(share)


def test_log_probabilities_come_with_the_text_that_they_are_of(
    worker: Worker, ledger: Ledger, model: FederatedModel
) -> None:
    """Token by token they join to the text, a stop string left out; the likeliest come in order, before any bias."""
    letters = {model.backend_tokenizer.token_to_id(letter): 30.0 for letter in "abcdefghijklmnopqrstuvwxyz"}
    asked = {"max_tokens": 40, "logit_bias": letters, "frequency_penalty": 2.0}
    plain = Caller(worker, job("plain", **asked), ledger).text()
    for number, stops in enumerate(((), (plain[20:23],))):
        name = f"r{number}"
        caller = Caller(worker, job(name, stop=stops, top_logprobs=2, streamed=True, **asked), ledger)
        end = caller.end()
        told = [*(each for delta in caller.events for each in delta.logprobs), *end.logprobs]
        text = "".join(caller.deltas) + end.text

        assert plain[: plain.index(plain[20:23]) if stops else None] == text == "".join(each.token for each in told)
        assert {2} == {len(each.top) for each in told}
        assert all(0 > each.top[0].logprob >= max(each.top[1].logprob, each.logprob) for each in told)
    silent = Caller(worker, job("silent", max_tokens=4, streamed=True), ledger)
    assert () == silent.end().logprobs


@pytest.mark.parametrize("streamed", [True, False])
def test_token_ids_go_in_and_out(
    worker: Worker, ledger: Ledger, model: FederatedModel, spool: Spool, streamed: bool
) -> None:
    """A prompt of ids is taken as it stands; all ids come out, in order, with the text, a stop string's too."""
    prompt = model.encode_text("tell me")
    text = Caller(worker, job("text", max_tokens=30), ledger).text()
    stop = text[10:12]
    for number, stops in enumerate(((), (stop,))):
        asked = {"max_tokens": 30, "stop": stops, "with_token_ids": True, "streamed": streamed, "top_logprobs": 0}
        caller = Caller(worker, job(f"r{number}", PromptIds(tuple(prompt)), **asked), ledger)
        end = caller.end()
        told = [event.token_ids for event in (*caller.events, end)]

        assert tuple(prompt) == told[0].prompt and {None} == {each.prompt for each in told[1:]}
        assert end.completion_tokens == sum(len(each.ids) for each in told)
        likely = [[token.token_id for token in event.logprobs] for event in (*caller.events, end)]
        assert likely == [list(each.ids) for each in told], "log-probabilities come with the ids of their tokens"
        ids = [token for each in told for token in each.ids]
        said = model.backend_tokenizer.decode([*prompt, *ids])[len("tell me") :]
        assert said.startswith("".join(caller.deltas) + end.text)
    assert stop not in "".join(caller.deltas) + end.text
    refused = Caller(worker, job("far", PromptIds((10**6,))), ledger).end()
    assert (400, "prompt") == (refused.status, refused.param) and "1000000" in refused.message


def test_ways_to_sample_reach_the_model(worker: Worker, ledger: Ledger) -> None:
    """A token that is favoured comes every time, unless it is penalised; one that the model lacks is 400, by name."""
    favoured = job("favoured", max_tokens=6, logit_bias={50: 100.0}, top_logprobs=0)
    penalised = job("penalised", max_tokens=6, logit_bias={50: 3.0}, frequency_penalty=2.0, presence_penalty=2.0)
    unknown = job("unknown", logit_bias={10**6: 1.0})
    texts = [Caller(worker, each, ledger).text() for each in (favoured, penalised)]
    refused = Caller(worker, unknown, ledger).end()

    assert 1 == len(set(texts[0])) < len(set(texts[1]))
    assert (400, "logit_bias") == (refused.status, refused.param)


def _score_error(*_: Any, **__: Any) -> Any:
    raise ScoreError("a score is NaN")


def _no_memory(*_: Any, **__: Any) -> Any:
    raise MemoryError


def _nan_share(*arguments: Any, **options: Any) -> Any:
    response = run(CREDIT(*arguments, **options))
    yield
    return replace(response, shares=dict(response.shares) | {"bank": float("nan")})


@pytest.mark.parametrize("broken", [_score_error, _nan_share])
def test_nan_books_nothing_and_withholds_the_rest(
    model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes, broken: Any
) -> None:
    """A score that is not finite ends the response in an error without its last text; the ledger stays as it was."""
    with working(model, ledger, spool, notes, attribute=broken) as worker:
        streams = [Caller(worker, job(f"r{n}", max_tokens=40, streamed=True), ledger) for n in range(2)]
        ends = [caller.end() for caller in streams]

    assert [(500, "attribution_failed")] * 2 == [(end.status, end.code) for end in ends]
    assert (0, {}, []) == (ledger.last_sequence(), ledger.balances(), spool.live_records())
    assert ["failed", "failed"] == notes.outcomes


def test_response_that_cannot_be_booked_is_withheld(worker: Worker, ledger: Ledger) -> None:
    """When the ledger refuses for ever, the response ends in an error, and the next one is served."""
    ledger.register("demo", MEMBERS | {"rider": "A rider"})
    ledger.append(make_receipt("taken"))
    end = Caller(worker, job("taken"), ledger).end()

    assert (500, "booking_refused") == (end.status, end.code)
    assert isinstance(Caller(worker, job("free"), ledger).end(), Finished)


class FallingBatch(Batch):
    """A batch whose model fails at the fifth step."""

    steps = 0

    def step(self) -> Any:
        """One step, or the fall."""
        self.steps += 1
        if self.steps == 5:
            raise RuntimeError("out of memory")
        return super().step()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_death_of_the_thread_leaves_nobody_hanging(
    model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes
) -> None:
    """When the model fails, whoever runs, waits or comes later gets 503, and the worker says that it is not alive."""
    with working(model, ledger, spool, notes, batch=FallingBatch(model), capacity=Capacity(1, 5, 8)) as worker:
        ends = [caller.end() for caller in [Caller(worker, job(f"r{n}", max_tokens=50), ledger) for n in range(2)]]
        worker.stop(30)
        late = Caller(worker, job("late"), ledger).end()

    assert [(503, "engine_unavailable")] * 3 == [(end.status, end.code) for end in (*ends, late)]
    assert not worker.alive


def test_stop_books_what_was_generated(model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes) -> None:
    """A worker that is stopped books its running rows and tells their callers; it takes nothing more."""
    with working(model, ledger, spool, notes) as worker:
        caller = Caller(worker, job("cut", max_tokens=110), ledger)
        assert notes.began.wait(PATIENCE_S)
        worker.stop(30)

        end = caller.end()
        assert isinstance(end, Failed)
        assert (503, True) == (end.status, end.credited)
        until(lambda: ledger.receipt("cut"))
        assert 1 <= ledger.tokens() < 110
        assert not worker.alive


class CountingBatch(Batch):
    """A batch that knows how many tokens each row has."""

    def __init__(self, model: FederatedModel) -> None:
        super().__init__(model)
        self.tokens: Counter[str] = Counter()

    def step(self) -> Any:
        """One step."""
        steps = super().step()
        self.tokens.update(step.key for step in steps)
        return steps


class Watcher(Caller):
    """A stream's caller that notes at each piece the tokens made, and those that a crash now would leave credited."""

    def __init__(self, worker: Worker, job: Job, ledger: Ledger, spool: Spool, batch: CountingBatch) -> None:
        self.seen: list[tuple[int, int]] = []
        self._spool = spool
        self._batch = batch
        super().__init__(worker, job, ledger)

    def _take(self, event: Event) -> None:
        if isinstance(event, Delta):
            name = self.job.response_id
            self.seen.append((self._batch.tokens[name], tokens_spooled(self._spool, name)))
        super()._take(event)


def tokens_spooled(spool: Spool, response_id: str) -> int:
    """Tokens of a stream whose progress is durable."""
    found = [ProgressRecord.from_record(record) for record in spool.live_records() if record["id"] == response_id]
    return len(found[0].token_ids) if found else 0


def test_progress_of_a_stream_is_durable_before_it_is_shown(
    model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes
) -> None:
    """At no moment are more than 15 delivered tokens without durable credit; and in the end all are booked."""
    batch = CountingBatch(model)
    with working(model, ledger, spool, notes, batch=batch) as worker:
        jobs = [job(f"r{n}", f"tell {n}", 100, temperature=1.0, seed=n, streamed=True) for n in range(4)]
        callers = [Watcher(worker, each, ledger, spool, batch) for each in jobs]
        ends = [caller.end() for caller in callers]

        assert [Finished] * 4 == [type(end) for end in ends]
        seen = [pair for caller in callers for pair in caller.seen]
        assert all(0 <= made - spooled < PROGRESS_TOKENS for made, spooled in seen)
        assert {0, 16, 32, 48, 64, 80, 96} == {spooled for _, spooled in seen}
        until(lambda: not spool.live_records())
        assert 400 == ledger.tokens()


def test_response_that_is_not_streamed_has_no_progress(
    model: FederatedModel, ledger: Ledger, spool: Spool, notes: Notes
) -> None:
    """Nothing of it is seen before the end, so nothing of it is credited if it never ends."""
    batch = CountingBatch(model)
    with working(model, ledger, spool, notes, batch=batch) as worker:
        caller = Watcher(worker, job("one", max_tokens=60), ledger, spool, batch)
        caller.end()

    assert {0} == {spooled for _, spooled in caller.seen}


def _leave(worker: Worker, ledger: Ledger, spool: SmallDisk, folder: Path) -> None:
    """What a replica leaves in its file that dies while 48 tokens of a stream are on the disk."""
    until(lambda: not spool.live_records())  # nothing of what was asked before
    folder.mkdir()

    def copy(records: Sequence[Record]) -> None:
        if ("cut", "progress") == (records[0]["id"], records[0]["kind"]) and tokens_spooled(spool, "cut") == 48:
            (folder / "spool-dead.jsonl").write_bytes(spool.path.read_bytes())

    spool.look = copy
    Caller(worker, job("cut", max_tokens=110, temperature=0.7, seed=3, streamed=True), ledger).end()


def _taken_over(model: FederatedModel, folder: Path, url: str, attribute: Any = CREDIT) -> Mapping[str, Any]:
    """The receipt of that stream, which the next replica wrote; the only one."""
    Ledger.prepare(url)
    ledger, heir = Ledger(url), Spool(folder)
    ledger.register(model.name, MEMBERS)
    bookings = BookingQueue(ledger, heir, lambda *_: None)
    worker = worker_over(model, ledger, heir, bookings, Notes(), attribute=attribute)
    recovery = Recovery(heir, bookings, ledger, worker.card.global_sha256.__eq__, worker.recover)
    until(lambda: ledger.receipt("cut") and not heir.live_records())
    recovery.close()
    worker.stop(30)
    bookings.close()
    receipt = ledger.receipt("cut")
    assert receipt is not None
    assert 1 == ledger.last_sequence()
    return receipt


def test_stream_cut_by_a_crash_is_credited_by_the_next_replica(
    model: FederatedModel, ledger: MovingLedger, spool: SmallDisk, notes: Notes, tmp_path: Path
) -> None:
    """What another replica finds in the file of the dead one it attributes as that one would have; once."""
    with working(model, ledger, spool, notes) as worker:
        whole = Caller(worker, job("whole", max_tokens=48, temperature=0.7, seed=3), ledger)
        whole.end()
        _leave(worker, ledger, spool, tmp_path / "crash")
    receipt = _taken_over(model, tmp_path / "crash", f"sqlite:///{tmp_path}/second.db")

    expected = ledger.receipt("whole")
    assert expected is not None
    assert (48, "credit", expected.settings) == (receipt.tokens, receipt.method, receipt.settings)
    assert (True, True) == (receipt.measurement["cut"], receipt.measurement["recovered"])
    scores = receipt.measurement["response_scores"]
    assert scores == pytest.approx(expected.measurement["response_scores"], rel=1e-3)


def test_stream_cut_by_a_crash_that_cannot_be_attributed_goes_to_the_commons(
    model: FederatedModel, ledger: MovingLedger, spool: SmallDisk, notes: Notes, tmp_path: Path
) -> None:
    """Its tokens were seen, so they are booked, and the receipt says why no client earned them."""
    with working(model, ledger, spool, notes) as worker:
        _leave(worker, ledger, spool, tmp_path / "crash")
    url = f"sqlite:///{tmp_path}/second.db"
    receipt = _taken_over(model, tmp_path / "crash", url, _no_memory)

    assert 48 == receipt.tokens
    assert "attribution failed: MemoryError" in str(receipt.measurement)
    assert {"commons": 48_000_000} == {account: amount for account, amount in Ledger(url).balances().items() if amount}


def test_serving_goes_on_while_the_ledger_is_away(worker: Worker, ledger: MovingLedger, spool: Spool) -> None:
    """A response ends within about a second on the word of the spool, others are decoded meanwhile; booked later."""
    ledger.away = True
    since = time.monotonic()
    callers = [Caller(worker, job(f"r{n}", max_tokens=2), ledger, look=False) for n in range(16)]
    ends = [caller.end() for caller in callers]

    assert [(Finished, False)] * 16 == [(type(end), end.booked) for end in ends]
    assert time.monotonic() - since < 15, "callers waited for each other, a second each"
    assert 16 == len(spool)
    ledger.away = False
    until(lambda: not spool.live_records())
    assert [end.summary.receipt_id for end in ends] == [
        ledger.receipt(f"r{n}").payload_sha256 for n in range(16)
    ]  # fmt: skip


def test_full_disk_is_made_good_by_the_ledger(worker: Worker, ledger: Ledger, spool: SmallDisk) -> None:
    """A response whose receipt cannot be spooled is told its end once the ledger itself has it."""
    spool.full = True
    caller = Caller(worker, job("one"), ledger)

    assert isinstance(caller.end(), Finished)
    assert caller.booked_at_end


def test_stream_ends_where_its_progress_cannot_be_spooled(worker: Worker, ledger: Ledger, spool: SmallDisk) -> None:
    """On a full disk a long stream ends in 503 before its sixteenth token is shown; what it had is in the ledger."""
    spool.full = True
    caller = Caller(worker, job("long", max_tokens=100, streamed=True), ledger)
    end = caller.end()
    until(lambda: ledger.receipt("long"))

    assert (503, "ledger_unavailable", True) == (end.status, end.code, end.credited)
    assert len(caller.deltas) < PROGRESS_TOKENS
    receipt = ledger.receipt("long")
    assert receipt is not None
    assert PROGRESS_TOKENS == receipt.tokens
    assert 0 < receipt.measurement["delivered"] < PROGRESS_TOKENS
    spool.full = False
    assert isinstance(Caller(worker, job("next", max_tokens=40, streamed=True), ledger).end(), Finished)


def test_response_that_nobody_can_keep_is_withheld(worker: Worker, ledger: MovingLedger, spool: SmallDisk) -> None:
    """With a full disk and no ledger a response ends in 503 after the patience, and is not credited later."""
    spool.full = ledger.away = True
    caller = Caller(worker, job("lost"), ledger, look=False)
    end = caller.end()
    assert (503, "ledger_unavailable", False) == (end.status, end.code, end.credited)

    spool.full = ledger.away = False
    Caller(worker, job("next"), ledger).end()
    time.sleep(0.5)
    assert ["next"] == [receipt.response_id for receipt in ledger.receipts_after(0)]
