"""The thread of the model: whoever watches it tells work that gets on, or waits for others, from work that hangs."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from attribution.bundle.bundle import manifest_sha256
from attribution.model import FederatedModel
from deployment.errors import WorkerDiedError
from deployment.replica.engines import model_thread
from deployment.replica.engines.model_thread import HANG_S, ModelThread
from deployment.replica.messages import Finished
from deployment.replica.scoring import bundle_scorer
from deployment.replica.scoring.bundle_scorer import BundleScorer
from deployment.replica.scoring.messages import UnscoredResponse
from deployment.replica.scoring.scorer import Scorer
from deployment.settings import Settings
from rewards.ledger.ledger import Ledger
from tests.deployment.replica.test_worker import Caller, Notes, SmallDisk, job, working
from tests.waiting import PATIENCE_S, until


class Clock:
    """The time as the thread reads it, which passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In place of the module `time`, in the thread's module alone."""
    clock = Clock()
    monkeypatch.setattr(model_thread, "time", clock)
    return clock


class Block:
    """Work that begins and does not end before it may."""

    def __init__(self) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()

    def __call__(self) -> list[Any]:
        """Run; as a step, to no token."""
        self.begun.set()
        assert self.may_end.wait(PATIENCE_S)
        return []


@pytest.fixture
def block() -> Iterator[Block]:
    """One that ends with the test."""
    block = Block()
    yield block
    block.may_end.set()


def test_work_of_which_nothing_is_heard_hangs(clock: Clock, block: Block) -> None:
    """After half an hour, and not before; where it ends after all the thread is good again."""
    assert 30 * 60 == HANG_S, "as deployment/README.md says"
    thread = ModelThread()
    thread.run(block)
    assert block.begun.wait(PATIENCE_S)
    clock.now += HANG_S - 1
    assert thread.alive
    clock.now += 1
    assert not thread.alive
    block.may_end.set()
    until(lambda: thread.alive)


@pytest.mark.parametrize("says", [ModelThread.beat, ModelThread.rest], ids=["gets on", "waits"])
def test_long_work_that_says_how_it_is_does_not_hang(
    clock: Clock, block: Block, says: Callable[[ModelThread], None]
) -> None:
    """It gets on, or waits for others: it is not given up, however long that takes."""
    thread = ModelThread()
    thread.run(block)
    assert block.begun.wait(PATIENCE_S)
    for _ in range(3):
        clock.now += HANG_S - 1
        says(thread)
        assert thread.alive


def test_a_thread_without_work_never_hangs(clock: Clock) -> None:
    """It waits for work for days."""
    thread = ModelThread()
    assert "done" == thread.call(lambda: "done")
    until(lambda: thread._heard is None)
    clock.now += 100 * HANG_S

    assert thread.alive


def test_a_worker_whose_step_hangs_is_not_alive(
    model: FederatedModel, ledger: Ledger, spool: SmallDisk, notes: Notes, clock: Clock, block: Block
) -> None:
    """Serve replaces its replica; an idle worker waits for as long as nobody asks, and one that decodes gets on."""
    with working(model, ledger, spool, notes) as worker:
        assert isinstance(Caller(worker, job("quick"), ledger).end(), Finished)
        until(lambda: worker._thread._heard is None)
        clock.now += 100 * HANG_S
        assert worker.alive
        worker._batch.step = block  # type: ignore[method-assign]
        caller = Caller(worker, job("hangs"), ledger, look=False)
        assert block.begun.wait(PATIENCE_S)
        assert worker.alive
        clock.now += HANG_S
        assert not worker.alive
        worker._batch.step = list  # type: ignore[method-assign]
        block.may_end.set()
        worker.cancel("hangs")
    assert not caller.events


def test_a_scorer_that_hangs_is_replaced(
    tmp_path: Path, clock: Clock, block: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process answers, but its health does not hold: Serve ends it, and what it was asked is asked of another."""
    monkeypatch.setattr(BundleScorer, "score", lambda *_: block())
    monkeypatch.setattr("deployment.replica.scoring.scorer.listen_on_own_address", lambda: None)
    scorer = Scorer(Settings(bundle=tmp_path))
    scorer.check_health()
    threading.Thread(target=scorer._thread.call, args=(lambda: scorer._scorer.score(None),), daemon=True).start()  # type: ignore[arg-type]
    assert block.begun.wait(PATIENCE_S)
    scorer.check_health()
    clock.now += HANG_S
    with pytest.raises(WorkerDiedError, match="hangs"):
        scorer.check_health()


def test_a_scorer_says_that_it_gets_on(model: FederatedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the turns of one response, so that a long one is no hang; nor is a bundle that takes long to read."""
    said: list[str] = []
    monkeypatch.setattr(bundle_scorer, "_TURN_S", 0.0)
    scorer = BundleScorer(
        Settings(bundle=model.bundle.path), lambda: said.append("gets on"), lambda: said.append("reads")
    )

    folder = model.bundle.path
    response = UnscoredResponse(folder, manifest_sha256(folder), (5, 6, 7), (8, 9, 10), 0.0, token_level=False)

    assert not isinstance(scorer.score(response), Exception)
    assert ["reads", *["gets on"] * (len(said) - 1)] == said
    assert len(said) > 5
