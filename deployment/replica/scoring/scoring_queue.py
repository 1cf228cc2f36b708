"""Responses that ended and wait for their score: worked on in pieces, between the steps of those that still speak.

Runs in the thread that owns the model. A response of which memory ran out is scored again, with less of it. Knows no
receipt, and not what an application is told.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import Protocol

import torch

from attribution.model import FederatedModel
from attribution.records import AttributedResponse, Generation
from attribution.scoring.credit_preset import Effort
from attribution.scoring.interruptible import Pieces
from deployment.replica.observer import ScoringObserver
from deployment.replica.scoring.scoring_order import ScoringOrder, ScoringTask

_TELL_EVERY_S = 1.0
_STEPS_A_TURN = 3
_PART_OF_A_STEP = 0.8  # a turn ends with the piece under way, and so a little later
CAPTURED_BYTES = 1 << 28
"""What waiting responses may keep together of their decoding, which saves a part of the work of scoring them."""


class Attribute(Protocol):
    """`credit_in_pieces` or `paper_in_pieces` of `attribution.attribute`, or what stands in for them."""

    def __call__(
        self, model: FederatedModel, generation: Generation, *, token_level: bool, effort: Effort
    ) -> Pieces[AttributedResponse]:
        """Scores and shares of a generation, in pieces."""


class Scoring(Protocol):
    """What a worker and its recorder ask of whoever scores; owned by the worker's thread."""

    def __len__(self) -> int:
        """Responses that wait for their score."""

    def put(self, task: ScoringTask) -> None:
        """Take a response."""

    def advance(self, seconds: float) -> None:
        """Let scores come, for about so long at most, while nobody is decoded."""

    def advance_after(self, step_s: float, *, is_reading: bool, piled_up: bool) -> None:
        """Let scores come between two steps of decoding, the last of which took so long, and read a prompt or not."""

    def finish(self, seconds: float) -> None:
        """Let what is left be scored, for so long at most."""

    def abandon(self) -> None:
        """Score nothing more; whoever waits is told."""


class ScoringQueue:
    """Scores in the `ScoringOrder`; what has begun goes on, unless an application waits for another.

    Args:
        model: what generated the responses.
        attribute: scores one.
        effort: how exactly.
        observer: is told how long each score took, and how many responses wait.
    """

    def __init__(self, model: FederatedModel, attribute: Attribute, effort: Effort, observer: ScoringObserver) -> None:
        self._model = model
        self._attribute = attribute
        self._effort = effort
        self._observer = observer
        self._told = 0, 0.0
        self._steps = 0  # of decoding, since the last turn
        self._step_s = math.inf  # the last that read no prompt
        self._waiting = ScoringOrder()
        self._begun: dict[bool, ScoringTask] = {}  # the one for which an application waits, and the other

    def __len__(self) -> int:
        return len(self._waiting) + len(self._begun)

    @property
    def lag_s(self) -> float:
        """How long the response that has waited longest has waited; 0 when none does."""
        oldest = min((task.since for task in self._tasks()), default=None)
        return 0.0 if oldest is None else time.monotonic() - oldest

    def put(self, task: ScoringTask) -> None:
        """Take a response; where too much is kept of those that wait, of this one only its ids are."""
        if sum(each.generation.captured_bytes for each in (*self._tasks(), task)) > CAPTURED_BYTES:
            task.generation = task.generation.without_captures()
        self._waiting.put(task)
        self._tell()

    def advance(self, seconds: float) -> None:
        """Work for so long, and where there is work for one piece at least."""
        until = time.perf_counter() + seconds
        while task := self._next():
            if self._advance(task):
                del self._begun[task.urgent]
            self._tell()
            if time.perf_counter() >= until:
                return

    def finish(self, seconds: float) -> None:
        """Work on what is left, for so long."""
        self.advance(seconds)

    def advance_after(self, step_s: float, *, is_reading: bool, piled_up: bool) -> None:
        """Work after every third step of decoding, for four fifths of what a step takes.

        So most tokens come as soon as without, and none after twice the time. After each step where an application
        waits for a score, or where responses pile up. A step that read a part of a prompt too (`is_reading`) took
        longer, and nobody waits for a score after it unless they pile up.
        """
        self._steps += 1
        if not is_reading:
            self._step_s = step_s
        is_due = self._steps >= _STEPS_A_TURN or self._waiting.is_urgent or True in self._begun
        if piled_up or (is_due and not is_reading):
            self._steps = 0
            self.advance(_PART_OF_A_STEP * min(step_s, self._step_s))

    def abandon(self) -> None:
        """Score nothing more; whoever waits is told."""
        left, self._waiting, self._begun = list(self._tasks()), ScoringOrder(), {}
        for task in left:
            task.abandoned()

    def _tasks(self) -> Iterator[ScoringTask]:
        return chain(self._begun.values(), self._waiting)

    def _next(self) -> ScoringTask | None:
        """What is worked on now."""
        for urgent in (True, False):
            if urgent not in self._begun and (task := self._waiting.take(urgent=urgent)):
                self._begun[urgent] = task
            if urgent in self._begun:
                return self._begun[urgent]
        return None

    def _tell(self) -> None:
        """Tell how many wait, when that changes, and once a second while some do."""
        number, now, (before, at) = len(self), time.monotonic(), self._told
        if number != before or now > at + _TELL_EVERY_S:
            self._told = number, now
            self._observer.note_unscored(number, self.lag_s)

    def _advance(self, task: ScoringTask) -> bool:
        """One piece; whether it was the last."""
        begun = time.perf_counter()
        outcome: AttributedResponse | Exception
        try:
            if task.work is None:
                effort = replace(self._effort, memory_bytes=0) if task.frugal else self._effort
                task.work = self._attribute(self._model, task.generation, token_level=task.token_level, effort=effort)
            next(task.work)
        except StopIteration as end:
            outcome = end.value
        except torch.AcceleratorError:
            raise  # a device that is lost for everybody is no response's failure: the next process scores them all
        except (MemoryError, torch.OutOfMemoryError) as error:
            if not task.frugal:
                task.frugal, task.work = True, None
                return False
            outcome = error
        except Exception as error:  # noqa: BLE001 - this response's, whatever it is
            outcome = error
        else:
            task.seconds += time.perf_counter() - begun
            return False
        if not isinstance(outcome, Exception):
            self._observer.note_attribution(task.seconds + time.perf_counter() - begun)
        task.work = None
        task.done(outcome)
        return True
