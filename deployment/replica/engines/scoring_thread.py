"""Scoring in the thread of the model, for a worker that decodes elsewhere and runs in a thread of its own.

A `ScoringQueue` belongs to one thread. This one stands before it: tasks go over to the model's thread, outcomes come
back and are told in the worker's, where the books are made. Scoring never holds up a token.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import TypeVar

from attribution.records import AttributedResponse
from attribution.scoring.pieces import Pieces, run
from deployment.errors import ServiceError
from deployment.replica.engines.model_thread import ModelThread
from deployment.replica.scoring_queue import ScoringQueue, ScoringTask

_TURN_S = 0.02
_Result = TypeVar("_Result")


class ScorerLostError(ServiceError):
    """The model's thread has ended, as when its device is lost: nothing is scored any more."""


class ScoringThread:
    """Scoring as a worker knows it; owned by the worker's thread.

    Args:
        queue: is worked on in the model's thread alone.
        thread: the model's.
    """

    def __init__(self, queue: ScoringQueue, thread: ModelThread) -> None:
        self._queue = queue
        self._thread = thread
        self._is_turning = False  # in the model's thread: a turn is to come
        self._pending: dict[int, ScoringTask] = {}
        self._outcomes: SimpleQueue[tuple[int, AttributedResponse | Exception]] = SimpleQueue()
        self._number = 0

    def __len__(self) -> int:
        """Responses whose outcome was not told yet."""
        return len(self._pending)

    def put(self, task: ScoringTask) -> None:
        """Take a response."""
        self._number += 1
        number = self._number
        self._pending[number] = task
        sent = replace(task, done=lambda outcome: self._outcomes.put((number, outcome)))
        self._thread.run(lambda: self._take(sent))

    def advance(self, seconds: float) -> None:
        """Tell the outcomes that there are, and where there is none wait so long for one.

        Raises:
            ScorerLostError: none will come.
        """
        self._require_thread()
        try:
            told = self._outcomes.get(timeout=seconds) if self._pending else self._outcomes.get_nowait()
            while True:
                self._tell(*told)
                told = self._outcomes.get_nowait()
        except Empty:
            return

    def advance_after(self, step_s: float, *, is_reading: bool, piled_up: bool) -> None:  # noqa: ARG002 - none matters
        """Tell the outcomes that there are."""
        self._require_thread()
        while not self._outcomes.empty():
            self._tell(*self._outcomes.get())

    def finish(self, seconds: float) -> None:
        """Wait so long for what is not scored yet.

        Raises:
            ScorerLostError: it will not be.
        """
        until = time.monotonic() + seconds
        while self._pending and (left := until - time.monotonic()) > 0:
            self.advance(min(left, _TURN_S))

    def abandon(self) -> None:
        """Tell whoever waits that nothing more is scored here, and let the model's thread end."""
        pending, self._pending = self._pending, {}
        for task in pending.values():
            task.abandoned()
        self._thread.end_with(lambda: None)

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

    def _tell(self, number: int, outcome: AttributedResponse | Exception) -> None:
        task = self._pending.pop(number, None)
        if task is not None:
            task.done(outcome)

    def _require_thread(self) -> None:
        if not self._thread.alive:
            raise ScorerLostError("the thread in which the model scores has ended")
