"""Scoring in the thread of the model, for a worker that decodes elsewhere and runs in a thread of its own.

A `ScoringQueue` belongs to one thread. This one stands before it: tasks go over to the model's thread, outcomes come
back and are told in the worker's, where the books are made. Scoring never holds up a token.
"""

from collections.abc import Callable
from typing import TypeVar

from attribution.scoring.interruptible import Pieces, run
from deployment.errors import ServiceError
from deployment.replica.engines.model_thread import ModelThread
from deployment.replica.scoring.remote_scoring import ScoringElsewhere
from deployment.replica.scoring.scoring_order import ScoringTask
from deployment.replica.scoring.scoring_queue import ScoringQueue

_TURN_S = 0.02
_Result = TypeVar("_Result")


class ScorerLostError(ServiceError):
    """The model's thread has ended or hangs, as when its device is lost: nothing is scored any more."""


class ScoringThread(ScoringElsewhere):
    """Scoring as a worker knows it; owned by the worker's thread.

    Args:
        queue: is worked on in the model's thread alone.
        thread: the model's.
    """

    def __init__(self, queue: ScoringQueue, thread: ModelThread) -> None:
        super().__init__()
        self._queue = queue
        self._thread = thread
        self._is_turning = False  # in the model's thread: a turn is to come

    def call(self, work: Callable[[], Pieces[_Result]]) -> _Result:
        """The result of other work of the model, from any thread; scores wait for it, one of its calls at a time."""
        return self._thread.call(lambda: run(work()))

    def _take(self, task: ScoringTask) -> None:
        self._queue.put(task)
        if not self._is_turning:
            self._is_turning = True
            self._thread.run(self._turn)

    def _turn(self) -> None:
        """Score for a while, behind what else came for this thread meanwhile."""
        self._queue.advance(_TURN_S)
        self._is_turning = bool(len(self._queue))
        if self._is_turning:
            self._thread.run(self._turn)

    def _send(self, task: ScoringTask) -> None:
        self._thread.run(lambda: self._take(task))

    def _end(self) -> None:
        """The model's thread has nothing else to do."""
        self._thread.end_with(lambda: None)

    def _look(self) -> None:
        """Raises a ScorerLostError where the thread has ended, or hangs."""
        if not self._thread.alive:
            raise ScorerLostError("the thread in which the model scores has ended, or hangs")
