"""Scorers apart: a replica's responses are scored elsewhere, in their order of need, and whoever dies loses nothing."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from attribution.bundle.bundle import manifest_sha256
from attribution.errors import ScoreError
from attribution.model import FederatedModel
from attribution.teacher_forcing import forced_generation
from deployment.replica.messages import Failed, Finished
from deployment.replica.scoring import scorer_pool
from deployment.replica.scoring.bundle_scorer import BundleScorer
from deployment.replica.scoring.messages import BundleUnreadError, Outcome, UnscoredResponse
from deployment.replica.scoring.scorer_pool import Ask, ScorerAwayError, ScorerDiedError, ScorerPool
from deployment.replica.scoring.scoring_order import ScoringTask
from deployment.replica.worker import Worker
from deployment.settings import Settings
from deployment.spool.records import ProgressRecord
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN
from rewards.ledger.ledger import Ledger
from tests.deployment.replica.test_worker import Caller, Notes, SmallDisk, job, working
from tests.waiting import PATIENCE_S, until


class Scorers:
    """Scorers that do what the test says before they score; remembers what was asked."""

    def __init__(self, bundle: Path) -> None:
        self.asked: list[UnscoredResponse] = []
        self.before: Callable[[UnscoredResponse], None] = lambda _: None
        self._lock = threading.Lock()
        self._scorer = BundleScorer(Settings(bundle=bundle))

    def __call__(self, response: UnscoredResponse) -> Outcome:
        self.asked.append(response)
        self.before(response)
        with self._lock:
            return self._scorer.score(response)


@pytest.fixture
def scorers(model: FederatedModel, monkeypatch: pytest.MonkeyPatch) -> Scorers:
    """Scorers of that model's bundle, asked again at once."""
    monkeypatch.setattr(scorer_pool, "RETRY_S", 0.01)
    return Scorers(model.bundle.path)


def pool_of(model: FederatedModel, ask: Ask, notes: Notes, at_once: int) -> ScorerPool:
    """Such scorers as a worker knows them."""
    bundle = model.bundle.path
    digest = manifest_sha256(bundle)
    return ScorerPool(ask, notes, bundle=bundle, manifest_sha256=digest, served_dtype="float32", at_once=at_once)


@contextmanager
def apart(
    ask: Ask, model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, at_once: int = 1
) -> Iterator[Worker]:
    """A worker whose responses such scorers score."""
    scoring = pool_of(model, ask, notes, at_once)
    with working(model, ledger, spool, notes, scoring=scoring) as worker:
        yield worker


def test_a_score_is_the_same_wherever_it_is_made(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, scorers: Scorers
) -> None:
    """Shares, tokens and receipt are those of a replica that scores itself."""
    ends = []
    with working(model, ledger, spool, notes) as worker:
        ends.append(Caller(worker, job("here", token_level=True), ledger).end())
    with apart(scorers, model, ledger, spool, notes) as worker:
        ends.append(Caller(worker, job("apart", token_level=True), ledger).end())

    here, elsewhere = (ledger.receipt(name) for name in ("here", "apart"))
    assert here is not None and elsewhere is not None
    assert here.settings == elsewhere.settings
    assert ends[0].summary.shares == pytest.approx(ends[1].summary.shares, rel=1e-4)
    assert [token.token for token in ends[0].tokens] == [token.token for token in ends[1].tokens]
    assert 2 == notes.attributions


def test_no_token_waits_for_scorers(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, scorers: Scorers
) -> None:
    """While they are stuck responses begin, speak and end; they are booked once scorers go on, the urgent first."""
    opened = threading.Event()
    scorers.before = lambda _: opened.wait(PATIENCE_S)
    with apart(scorers, model, ledger, spool, notes) as worker:
        ends = [Caller(worker, job(f"r{n}", attributed=False), ledger).end() for n in range(4)]
        assert [Finished] * 4 == [type(end) for end in ends]
        urgent = Caller(worker, job("urgent"), ledger)
        until(lambda: notes.unscored == 5)
        assert 0 == ledger.last_sequence()
        opened.set()
        assert urgent.end().summary is not None
        until(lambda: ledger.last_sequence() == 5)

    assert "urgent" in {receipt.response_id for receipt in ledger.receipts_after(0)[:2]}


def test_a_flood_keeps_no_other_application_from_scorers(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, scorers: Scorers
) -> None:
    """The same where others score: the other application's does not come behind all of them."""
    opened = threading.Event()
    scorers.before = lambda _: opened.wait(PATIENCE_S)
    with apart(scorers, model, ledger, spool, notes) as worker:
        callers = [Caller(worker, job(f"flood {n}"), ledger) for n in range(5)]
        until(lambda: notes.unscored == 5)
        callers.append(Caller(worker, job("other", application="ba9876543210"), ledger))
        until(lambda: notes.unscored == 6)
        opened.set()
        assert all(caller.end().summary for caller in callers)

    assert "other" in {receipt.response_id for receipt in ledger.receipts_after(0)[:3]}


@pytest.mark.parametrize("error", [ScorerDiedError("gone"), ScorerAwayError("none")])
def test_a_scorer_that_dies_loses_nothing(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
    scorers: Scorers,
    error: Exception,
) -> None:
    """The response is asked for again, with less memory if a scorer died of it, and booked once."""

    def fail_twice(_: UnscoredResponse) -> None:
        if len(scorers.asked) < 3:
            raise error

    scorers.before = fail_twice
    with apart(scorers, model, ledger, spool, notes) as worker:
        assert Caller(worker, job("r"), ledger).end().summary is not None

    died = isinstance(error, ScorerDiedError)
    assert [False, died, died] == [response.frugal for response in scorers.asked]
    assert 1 == ledger.last_sequence()


def test_what_kills_every_scorer_is_not_asked_for_without_end(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, scorers: Scorers
) -> None:
    """It is booked to the commons, as what cannot be scored is, and others are scored."""

    def die_of(response: UnscoredResponse) -> None:
        if len(response.token_ids) == 9:
            raise ScorerDiedError("gone")

    scorers.before = die_of
    with apart(scorers, model, ledger, spool, notes) as worker:
        assert isinstance(Caller(worker, job("bad", max_tokens=9, attributed=False), ledger).end(), Finished)
        assert Caller(worker, job("good"), ledger).end().summary is not None
        until(lambda: ledger.receipt("bad"))

    bad = ledger.receipt("bad")
    assert bad is not None and {COMMONS: 9 * MICRO_CREDITS_PER_TOKEN} == dict(bad.amounts)


@pytest.mark.parametrize("patience_s", [60.0, 0.0])
def test_a_bundle_that_no_scorer_can_read_is_waited_for(
    model: FederatedModel,
    ledger: Ledger,
    spool: SmallDisk,
    notes: Notes,
    scorers: Scorers,
    monkeypatch: pytest.MonkeyPatch,
    patience_s: float,
) -> None:
    """It may not be there yet: the response is scored once it is, and is the commons' only where it never comes."""
    monkeypatch.setattr(scorer_pool, "PATIENCE_S", patience_s)
    tries = iter(range(3))

    def ask(response: UnscoredResponse) -> Outcome:
        return scorers(response) if next(tries, None) is None else BundleUnreadError("it is not there yet")

    with apart(ask, model, ledger, spool, notes) as worker:
        assert isinstance(Caller(worker, job("r", attributed=False), ledger).end(), Finished)
        until(lambda: ledger.receipt("r"))

    receipt = ledger.receipt("r")
    assert receipt is not None
    assert (patience_s > 0) == ("response_scores" in receipt.measurement)
    assert 8 * MICRO_CREDITS_PER_TOKEN == sum(receipt.amounts.values())


def test_what_waits_for_scorers_keeps_nothing_of_its_decoding_and_is_counted_until_it_is_told(
    model: FederatedModel,
) -> None:
    """However many wait, their ids are all that is kept; once none waits any more, none is said to."""
    told: list[int] = []
    opened = threading.Event()

    class Noting(Notes):
        def note_unscored(self, responses: int, seconds: float) -> None:
            told.append(responses)

    def ask(_: UnscoredResponse) -> Outcome:
        opened.wait(PATIENCE_S)
        return ScoreError("NaN")

    pool = pool_of(model, ask, Noting(), 1)
    outcomes: list[Outcome] = []
    for _ in range(3):
        generation = forced_generation(model, [1, 2], [3, 4])
        assert generation.captured_bytes
        pool.put(ScoringTask(generation, False, False, outcomes.append, lambda: None))
    assert 0 == sum(task.generation.captured_bytes for task in pool._pending.values())
    opened.set()
    pool.finish(30)
    pool.advance(0.0)

    assert 3 == len(outcomes)
    assert (3, 0) == (max(told), told[-1])


def test_a_device_that_is_lost_while_a_bundle_is_read_is_no_bundles_fault(
    model: FederatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the scorer ends it, so that another one takes its place."""

    def lose(*_: object, **__: object) -> None:
        raise torch.AcceleratorError("the device is gone")

    monkeypatch.setattr(FederatedModel, "load", lose)
    scorer = BundleScorer(Settings(bundle=model.bundle.path))
    with pytest.raises(torch.AcceleratorError):
        scorer.score(UnscoredResponse(model.bundle.path, manifest_sha256(model.bundle.path), (1,), (2,), 0.0, False))


def test_a_score_that_is_no_number_is_that_responses_failure(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes
) -> None:
    """Whoever waits is told; nothing is booked on it."""
    with apart(lambda _: ScoreError("NaN"), model, ledger, spool, notes) as worker:
        end = Caller(worker, job("r"), ledger).end()

    assert isinstance(end, Failed) and end.code == "attribution_failed"
    assert ledger.receipt("r") is None


def test_what_is_not_scored_when_a_replica_ends_is_left_to_the_next(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in the spool, and who waits for it is told to come again."""
    monkeypatch.setattr("deployment.replica.worker._LAST_SCORES_S", 0.1)

    def away(_: UnscoredResponse) -> Outcome:
        raise ScorerAwayError("none")

    with apart(away, model, ledger, spool, notes) as worker:
        Caller(worker, job("told", attributed=False), ledger).end()
        worker.stop(30)
        (left,) = [ProgressRecord.from_record(record) for record in spool.live_records()]

    assert ("told", "length") == (left.response_id, left.finish_reason)


def test_a_bundle_that_is_another_scores_nothing(model: FederatedModel) -> None:
    """What lies in the folder now has another manifest: other clients might be paid, of the same global model too."""
    scorer = BundleScorer(Settings(bundle=model.bundle.path))
    outcome = scorer.score(UnscoredResponse(model.bundle.path, "0" * 64, (1,), (2,), 0.0, False))

    assert isinstance(outcome, BundleUnreadError)
    assert f"not {'0' * 64}" in str(outcome)
