"""What can go wrong with credit, the ledger and settlement. Knows nothing of HTTP statuses or exit codes.

RewardsError
├── CreditError             an amount, a weight or a receipt that cannot be credited
├── PolicyError             a settlement policy that is not valid; names the field
├── MoneyError              a currency that is none, or a text that is no amount of it
├── KeyRingError            a key that cannot be made, rotated or revoked, or a pepper that is missing
│   └── KeyRefusedError         a presented key that opens nothing; carries the reason
├── SignatureError          a signature, a key or a signed text that is malformed or does not verify
├── ReusedKeyError          an idempotency key that was used for another request
├── LogError                a place in the Merkle log that does not exist, or a proof that does not fit
└── LedgerError             the ledger cannot be opened, read or written
    ├── LedgerLostError     it is not there any more, or not the one that was opened; carries which of these
    ├── LedgerRefusedError  the database itself refuses what was to be written, by a rule of the schema
    ├── ReceiptConflictError  a response id that is already booked with another payload
    ├── ReversalError       a response that cannot be reversed
    ├── HoldError           a hold that cannot be placed or released
    ├── PublicationError    a bundle that cannot be put in service, or taken back
    ├── CalibrationError    a calibration of a model that the ledger does not know
    ├── StatementError      a statement that does not exist, or is not in the Merkle log yet
    └── PeriodError         a period that cannot be previewed, closed or moved on
        ├── PeriodEmptyError    nothing was booked in its window
        ├── PeriodClosedError   it is closed already; carries the stored settlement (`rewards.periods.errors`)
        └── PeriodMovedError    it would be settled otherwise than was expected
"""

from __future__ import annotations


class RewardsError(Exception):
    """Base of everything this package raises on bad input or an outage."""


class CreditError(RewardsError):
    """An amount, a weight or a receipt that cannot be credited; nothing was booked."""


class PolicyError(RewardsError):
    """A settlement policy that is not valid."""


class MoneyError(RewardsError):
    """A code that is of no currency anybody is paid in, or a text that is no amount of money."""


class KeyRingError(RewardsError):
    """A key that cannot be made, rotated or revoked, or a pepper that is missing."""


class KeyRefusedError(KeyRingError):
    """A presented key that opens nothing.

    Attributes:
        reason: "unknown" (also where malformed or wrong), or, told only to who has the secret, "expired" or "revoked".
    """

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message, reason)  # both, so that the error survives pickling
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[0])


class SignatureError(RewardsError):
    """A signature, a signing key or a signed text that is malformed, unknown or does not verify."""


class ReusedKeyError(RewardsError):
    """An application's idempotency key that was used for another request; nothing was claimed."""


class LogError(RewardsError):
    """A leaf or a size of the Merkle log that does not exist, or a proof that does not lead to a signed root."""


class LedgerError(RewardsError):
    """The ledger cannot be opened, read or written."""


class LedgerLostError(LedgerError):
    """The ledger that was opened is not there any more, or something else has its name; waiting does not help.

    Attributes:
        code: `ledger_missing`, `ledger_replaced`, `ledger_log_missing` or `ledger_damaged`.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message, code)  # both, so that the error survives pickling
        self.code = code

    def __str__(self) -> str:
        return str(self.args[0])


class LedgerRefusedError(LedgerError):
    """The database refuses what was to be written, by a constraint or trigger of the schema; nothing was written."""


class ReceiptConflictError(LedgerError):
    """A response id that is already booked with another payload; nothing was written."""


class ReversalError(LedgerError):
    """A response that cannot be reversed; nothing was written."""


class HoldError(LedgerError):
    """A hold that cannot be placed or released; nothing was written."""


class PublicationError(LedgerError):
    """A bundle that cannot be put in service, or taken back; nothing was written."""


class CalibrationError(LedgerError):
    """A calibration of a model that the ledger does not know, or of nothing; nothing was written."""


class StatementError(LedgerError):
    """A statement that does not exist, or that is not in the Merkle log yet."""


class PeriodError(LedgerError):
    """A period that cannot be previewed, closed or moved on; nothing was written."""


class PeriodEmptyError(PeriodError):
    """Nothing was booked in the window of the period, or nothing by which its pool could be earned."""


class PeriodMovedError(PeriodError):
    """The period comes to another settlement than was expected; nothing was written."""
