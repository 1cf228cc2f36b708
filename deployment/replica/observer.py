"""Who is told how requests fare in a replica, and several workers' news added up for it."""

import threading
from collections.abc import Sequence
from typing import Protocol


class ScoringObserver(Protocol):
    """Who is told how scoring fares."""

    def note_attribution(self, seconds: float) -> None:
        """A response was attributed, in so long."""

    def note_unscored(self, responses: int, seconds: float) -> None:
        """So many responses wait for their score, the oldest of them for so long."""


class Observer(ScoringObserver, Protocol):
    """Who is told how requests fare. Outcomes are `finished`, `cancelled`, `refused` and `failed`."""

    def note_step(self, first_s: Sequence[float], between_s: Sequence[float]) -> None:
        """A step brought one token to each of some requests: the first one so long after the request, or a next one."""

    def load(self, running: int, waiting: int) -> None:
        """So many requests are being decoded, and so many wait."""

    def note_end(self, outcome: str, seconds: float) -> None:
        """A request ended this long after it came."""


class SharedObserver:
    """One observer of several workers: what each has under way is added up."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._lock = threading.Lock()
        self._parts: list[ObserverPart] = []

    def part(self) -> "ObserverPart":
        """The observer of one more worker, until it is closed."""
        part = ObserverPart(self, self._observer)
        with self._lock:
            self._parts.append(part)
        return part

    def drop(self, part: "ObserverPart") -> None:
        """Count no more what a worker has told that has ended."""
        with self._lock:
            self._parts = [each for each in self._parts if each is not part]
        self.tell()

    def tell(self) -> None:
        """Tell what all have under way."""
        with self._lock:
            loads = [each.loads for each in self._parts]
            unscored = [each.unscored for each in self._parts]
            self._observer.load(sum(running for running, _ in loads), sum(waiting for _, waiting in loads))
            self._observer.note_unscored(
                sum(each for each, _ in unscored), max((lag_s for _, lag_s in unscored), default=0.0)
            )


class ObserverPart:
    """The observer of one worker; closed once that has ended."""

    def __init__(self, whole: SharedObserver, observer: Observer) -> None:
        self._whole = whole
        self.note_step = observer.note_step
        self.note_attribution = observer.note_attribution
        self.note_end = observer.note_end
        self.loads = 0, 0
        self.unscored = 0, 0.0

    def close(self) -> None:
        """What was told, or still is, no longer counts."""
        self._whole.drop(self)

    def load(self, running: int, waiting: int) -> None:
        """As in `Observer`."""
        self.loads = running, waiting
        self._whole.tell()

    def note_unscored(self, responses: int, seconds: float) -> None:
        """As in `Observer`."""
        self.unscored = responses, seconds
        self._whole.tell()
