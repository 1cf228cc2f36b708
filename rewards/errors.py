"""What can go wrong with credit, the ledger and settlement. Knows nothing of HTTP statuses or exit codes.

RewardsError
├── CreditError             an amount, a weight or a receipt that cannot be credited
├── PolicyError             a settlement policy that is not valid; names the field
├── KeyRingError            an unknown role, or a key that does not exist
├── SignatureError          a signature, a key or a signed text that is malformed or does not verify
├── LogError                a place in the Merkle log that does not exist
└── LedgerError             the ledger cannot be opened, read or written
    ├── ConflictError       a response id that is already booked with another payload
    ├── ReversalError       a response that cannot be reversed
    └── PeriodError         a period that cannot be previewed or closed
        ├── PeriodEmptyError    nothing was booked in its window
        └── PeriodClosedError   it is closed already; carries the stored settlement
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rewards.settlement import Settlement


class RewardsError(Exception):
    """Base of everything this package raises on bad input or an outage."""


class CreditError(RewardsError):
    """An amount, a weight or a receipt that cannot be credited; nothing was booked."""


class PolicyError(RewardsError):
    """A settlement policy that is not valid."""


class KeyRingError(RewardsError):
    """A key that cannot be created or revoked."""


class SignatureError(RewardsError):
    """A signature, a signing key or a signed text that is malformed, unknown or does not verify."""


class LogError(RewardsError):
    """A leaf or a size of the Merkle log that does not exist."""


class LedgerError(RewardsError):
    """The ledger cannot be opened, read or written."""


class ConflictError(LedgerError):
    """A response id that is already booked with another payload; nothing was written."""


class ReversalError(LedgerError):
    """A response that cannot be reversed; nothing was written."""


class PeriodError(LedgerError):
    """A period that cannot be previewed or closed; nothing was written."""


class PeriodEmptyError(PeriodError):
    """Nothing was booked in the window of the period."""


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
