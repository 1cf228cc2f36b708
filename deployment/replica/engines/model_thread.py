"""The one thread of a process in which torch works: it loads the model, decodes with it and scores.

Of two threads each would have a team of its own for parallel loops (OpenMP), and the teams together more threads than
there are processors: a step was measured to take 77 ms instead of 47. Knows no model.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

_Result = TypeVar("_Result")
HANG_S = 1800.0
"""Work of which nothing was heard for so long hangs, as on a device that no longer answers: it will never be done."""


class ModelThread:
    """Runs what it is given, one thing after the other. It is a daemon: it keeps no process from ending."""

    def __init__(self) -> None:
        self._work: SimpleQueue[Callable[[], object]] = SimpleQueue()
        self._heard: float | None = None  # of what runs; None while nothing does
        self._thread = threading.Thread(target=self._run, name="protoken-worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether anything that is given to it will be run: it has not ended, and what it runs does not hang."""
        heard = self._heard
        return self._thread.is_alive() and (heard is None or time.monotonic() < heard + HANG_S)

    def beat(self) -> None:
        """Work that takes long says that it gets on."""
        self._heard = time.monotonic()

    def rest(self) -> None:
        """Work says that it waits for others, however long that takes."""
        self._heard = None

    def run(self, work: Callable[[], object]) -> None:
        """Run some work, behind what is to be run already; the thread ends where it raises."""
        self._work.put(work)

    def call(self, work: Callable[[], _Result]) -> _Result:
        """The result of some work, waited for; raises what it raises."""
        answer: Future[_Result] = Future()

        def run() -> None:
            try:
                answer.set_result(work())
            except BaseException as error:  # noqa: BLE001 - whoever waits is told
                answer.set_exception(error)

        self._work.put(run)
        return answer.result()

    def end_with(self, work: Callable[[], object]) -> None:
        """Run some work as the last thing: when it returns, or raises, the thread ends."""

        def run() -> None:
            try:
                work()
            finally:
                self._work.put(_end)

        self._work.put(run)

    def join(self, timeout_s: float) -> None:
        """Wait for the thread to end."""
        self._thread.join(timeout_s)

    def _run(self) -> None:
        while (work := self._work.get()) is not _end:
            self.beat()
            work()
            self.rest()


def _end() -> None:
    """What a thread does last."""
