"""Which of the responses that wait for their score is scored next.

Those first for which an application waits: of these, the application's that was scored least, so that one application's
flood keeps no other waiting. Then those of which nobody waits, in the same order. Not thread-safe.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

from attribution.records import AttributedResponse, Generation
from attribution.scoring.interruptible import Pieces
from deployment.replica.fair_queue import FairQueue

ScoreListener = Callable[[AttributedResponse | Exception], None]
"""Is told what a response scored, or why it cannot be scored; must not raise."""


@dataclass
class ScoringTask:
    """A response that waits for its score.

    Attributes:
        generation: what was generated.
        token_level: whether each token is scored too.
        urgent: whether an application waits for it: it comes before those of which nobody waits.
        done: is told once, from the thread that scores.
        abandoned: is called instead where it will not be scored here.
        application: whose it is, by the id of its key.
        weight: the application's, as of a `FairQueue`.
        seconds: how long it has been worked on.
    """

    generation: Generation
    token_level: bool
    urgent: bool
    done: ScoreListener
    abandoned: Callable[[], None]
    application: str = ""
    weight: int = 1
    since: float = field(default_factory=time.monotonic)
    seconds: float = 0.0
    frugal: bool = False
    work: Pieces[AttributedResponse] | None = None

    @property
    def tokens(self) -> int:
        """Of the prompt and the response, by which an application is held to have been served."""
        return len(self.generation.prompt_token_ids) + len(self.generation.token_ids)


class ScoringOrder:
    """Tasks that wait, and which of them is next."""

    def __init__(self) -> None:
        self._lines: dict[bool, FairQueue[ScoringTask]] = {True: FairQueue(), False: FairQueue()}
        self._numbers = count()

    def __len__(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def __iter__(self) -> Iterator[ScoringTask]:
        return (task for line in self._lines.values() for task in line)

    @property
    def is_urgent(self) -> bool:
        """Whether an application waits for one of them."""
        return len(self._lines[True]) > 0

    def put(self, task: ScoringTask) -> None:
        """Let a task wait."""
        line = self._lines[task.urgent]
        line.put(task.application, str(next(self._numbers)), task, cost=task.tokens, weight=task.weight)

    def take(self, *, urgent: bool) -> ScoringTask | None:
        """The next task of those for which an application waits, or of the others; None where there is none."""
        line = self._lines[urgent]
        return line.take() if len(line) else None
