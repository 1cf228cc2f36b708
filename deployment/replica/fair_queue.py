"""Who is served next: the application that was served least, by tokens, and within one application who came first.

A virtual counter per application, as in Sheng et al., "Fairness in Serving Large Language Models" (OSDI 2024, arXiv
2401.00588): a prompt counts when it is taken, each generated token as it comes, both divided by the key's weight; an
application that comes back from idleness begins where those that wait stand, so that idleness saves nothing up. Places
to wait in are shared out by a threshold that falls as they fill (Choudhury and Hahne, "Dynamic queue length thresholds
for shared-memory packet switches", IEEE/ACM Transactions on Networking 6, 1998). Pure: knows no model and no thread.
"""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")

LEFT_FOR_OTHERS = 2
"""An application may wait in as many places as twice those still free: in two thirds of them when it is alone."""
LONGEST_WAIT_S = 60
"""More than this nobody is told to wait: by then what was measured is old."""
MEMORY_S = 30.0
"""How long the pace of service is remembered: what was measured so long ago counts a third (1/e)."""


def has_room(*, own: int, waiting: int, places: int) -> bool:
    """Whether one more job of an application that has `own` jobs among the `waiting` may wait."""
    return waiting < places and own < LEFT_FOR_OTHERS * (places - waiting)


@dataclass
class _Line(Generic[Item]):
    """What one application has waiting, in the order it came: by key, its item and its cost."""

    weight: int
    jobs: dict[str, tuple[Item, int]] = field(default_factory=dict)


class FairQueue(Generic[Item]):
    """Items that wait, each under a key of its own. Not thread-safe.

    Args:
        clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._lines: dict[str, _Line[Item]] = {}
        self._applications: dict[str, str] = {}  # key of an item -> whose it is
        self._served: dict[str, float] = {}  # application -> tokens by weight; one that is not here stands at the floor
        self._floor = 0.0
        self._last = ""  # whose item was taken last
        self._pace = _Pace(clock)

    def __len__(self) -> int:
        return len(self._applications)

    def __iter__(self) -> Iterator[Item]:
        return (item for line in self._lines.values() for item, _ in line.jobs.values())

    def count(self, application: str) -> int:
        """How many items of an application wait."""
        line = self._lines.get(application)
        return 0 if line is None else len(line.jobs)

    def put(self, application: str, key: str, item: Item, *, cost: int, weight: int = 1) -> None:
        """Let an item wait. Taking it costs so many tokens, counted by the weight that its application has now."""
        assert key not in self._applications, f"{key} waits already"
        if not self._lines:
            self._pace.begin()
        if application not in self._lines:
            here = self._lines or [self._last]
            self._floor = max(self._floor, min(self._served.get(each, 0.0) for each in here))
            self._forget()
            self._served[application] = max(self._floor, self._served.get(application, 0.0))
        line = self._lines.setdefault(application, _Line(weight))
        line.weight = weight
        line.jobs[key] = item, cost
        self._applications[key] = application

    def peek(self) -> Item:
        """The next item to serve, which goes on waiting.

        Raises:
            ValueError: nothing waits.
        """
        return next(iter(self._lines[self._next_application()].jobs.values()))[0]

    def take(self) -> Item:
        """The next item to serve.

        Raises:
            ValueError: nothing waits.
        """
        application = self._next_application()
        line = self._lines[application]
        self._floor = max(self._floor, self._served[application])
        item, cost = self._withdraw(next(iter(line.jobs)))
        self.charge(application, cost, line.weight)
        self._last = application
        return item

    def discard(self, key: str) -> Item | None:
        """Let an item wait no more, and return it; None where none waits under that key."""
        return self._withdraw(key)[0] if key in self._applications else None

    def clear(self) -> None:
        """Let nothing wait."""
        for key in list(self._applications):
            self._withdraw(key)

    def charge(self, application: str, tokens: int, weight: int = 1) -> None:
        """An application, of that weight, was served so many tokens."""
        self._served[application] = self._served.get(application, self._floor) + tokens / weight

    def note_ends(self, number: int) -> None:
        """So many of those that were taken have ended: there is room for as many that wait."""
        self._pace.note(number)

    def wait_s(self) -> int:
        """In how many seconds all that waits is likely to be served, by the pace of late; 1 to LONGEST_WAIT_S."""
        return max(1, min(LONGEST_WAIT_S, math.ceil(len(self) * self._pace.interval_s())))

    def _next_application(self) -> str:
        return min(self._lines, key=lambda each: self._served[each])

    def _withdraw(self, key: str) -> tuple[Item, int]:
        application = self._applications.pop(key)
        job = self._lines[application].jobs.pop(key)
        if not self._lines[application].jobs:
            del self._lines[application]
        if not self._lines:
            self._pace.end()
        return job

    def _forget(self) -> None:
        """Who stands no higher than the floor would begin there anyway: there may be many in the life of a queue."""
        for name in [name for name, served in self._served.items() if served <= self._floor]:
            if name not in self._lines and name != self._last:
                del self._served[name]


class _Pace:
    """How long it takes, of late, from one end to the next, counted only while somebody waits for one."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends = self._seconds = 0.0  # both fade
        self._since: float | None = None  # up to when `_seconds` counts; None while nobody waits

    def begin(self) -> None:
        """Somebody waits from now on."""
        self._since = self._clock()

    def end(self) -> None:
        """Nobody waits any more."""
        self._advance()
        self._since = None

    def note(self, ends: int) -> None:
        """So many ended now."""
        if self._since is not None:
            self._advance()
            self._ends += ends

    def interval_s(self) -> float:
        """Seconds from end to end; where none came yet, as long as one was waited for."""
        self._advance()
        return self._seconds / max(1.0, self._ends)

    def _advance(self) -> None:
        if self._since is None:
            return
        now = self._clock()
        passed, self._since = now - self._since, now
        fading = math.exp(-passed / MEMORY_S)
        self._ends, self._seconds = self._ends * fading, self._seconds * fading + passed
