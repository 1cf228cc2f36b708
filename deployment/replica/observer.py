"""Who is told how requests fare in a replica."""

from collections.abc import Sequence
from typing import Protocol


class Observer(Protocol):
    """Who is told how requests fare. Outcomes are `finished`, `cancelled`, `refused` and `failed`."""

    def note_step(self, first_s: Sequence[float], between_s: Sequence[float]) -> None:
        """A step brought one token to each of some requests: the first one so long after the request, or a next one."""

    def note_attribution(self, seconds: float) -> None:
        """A response was attributed, in so long."""

    def load(self, running: int, waiting: int) -> None:
        """So many requests are being decoded, and so many wait."""

    def note_unscored(self, responses: int, seconds: float) -> None:
        """So many responses wait for their score, the oldest of them for so long."""

    def note_end(self, outcome: str, seconds: float) -> None:
        """A request ended this long after it came."""
