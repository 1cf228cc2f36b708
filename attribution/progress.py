"""How long work tells how far it is; a progress bar is one listener, silence another."""

from typing import Protocol


class Progress(Protocol):
    """Told how long a stage of the work is, and each time a piece of it is done."""

    def start(self, description: str, total: int) -> None:
        """A new stage of `total` pieces begins."""

    def advance(self) -> None:
        """One piece is done."""


class NoProgress:
    """Hears and says nothing."""

    def start(self, description: str, total: int) -> None:
        """Nothing."""

    def advance(self) -> None:
        """Nothing."""
