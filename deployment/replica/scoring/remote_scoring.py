"""Scoring that is not done in the worker's thread: tasks go, and outcomes are told where the books are made."""

import time
from abc import ABC, abstractmethod
from dataclasses import replace
from queue import Empty, SimpleQueue

from attribution.records import AttributedResponse
from deployment.replica.scoring.scoring_order import ScoringTask

_TURN_S = 0.02


class ScoringElsewhere(ABC):
    """Scoring as a worker knows it; owned by the worker's thread."""

    def __init__(self) -> None:
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
        # Scored from its ids, and kept for as long as it takes: without what decoding remembered.
        kept = self._pending[number] = replace(task, generation=task.generation.without_captures())
        self._send(replace(kept, done=lambda outcome: self._outcomes.put((number, outcome))))

    def advance(self, seconds: float) -> None:
        """Tell the outcomes that there are, and where there is none wait so long for one."""
        self._look()
        try:
            told = self._outcomes.get(timeout=seconds) if self._pending else self._outcomes.get_nowait()
            while True:
                self._tell(*told)
                told = self._outcomes.get_nowait()
        except Empty:
            self._look()

    def advance_after(self, step_s: float, *, is_reading: bool, piled_up: bool) -> None:  # noqa: ARG002 - none matters
        """Tell the outcomes that there are."""
        self._look()
        while not self._outcomes.empty():
            self._tell(*self._outcomes.get())
        self._look()

    def finish(self, seconds: float) -> None:
        """Wait so long for what is not scored yet."""
        until = time.monotonic() + seconds
        while self._pending and (left := until - time.monotonic()) > 0:
            self.advance(min(left, _TURN_S))

    def abandon(self) -> None:
        """Tell whoever waits that nothing more is scored here."""
        pending, self._pending = self._pending, {}
        for task in pending.values():
            task.abandoned()
        self._end()

    @property
    def lag_s(self) -> float:
        """How long the response that has waited longest has waited; 0 when none does."""
        oldest = min((task.since for task in self._pending.values()), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    @abstractmethod
    def _send(self, task: ScoringTask) -> None:
        """Let a response be scored; its `done` may be told from any thread."""

    @abstractmethod
    def _look(self) -> None:
        """Called before and after outcomes are told; raises where none will come any more."""

    @abstractmethod
    def _end(self) -> None:
        """Nothing waits any more, and nothing more will be sent."""

    def _tell(self, number: int, outcome: AttributedResponse | Exception) -> None:
        task = self._pending.pop(number, None)
        if task is not None:
            task.done(outcome)
