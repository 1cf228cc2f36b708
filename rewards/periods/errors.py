"""The error that carries a settlement, apart from `rewards.errors`, which knows none."""

from __future__ import annotations

from rewards.errors import PeriodError
from rewards.settlement.document import Settlement


class PeriodClosedError(PeriodError):
    """The period is closed already.

    Attributes:
        settlement: the settlement that was stored when it was closed.
    """

    def __init__(self, message: str, settlement: Settlement) -> None:
        super().__init__(message, settlement)  # both, so that the error survives pickling
        self.settlement = settlement

    def __str__(self) -> str:
        return str(self.args[0])
