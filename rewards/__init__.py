"""Credit that is exact, a ledger that forgets nothing, and settlements that sum to the pool.

What comes in is plain: a response id, a number of generated tokens, and shares of clients that sum to 1 with the
base share. `receipt_amounts` turns them into integer micro-credits, one token = 1 000 000, that sum exactly; floats
end there. `Ledger.append` books a `Receipt`: whole or not at all, once per response id, durable before it returns.
Nothing booked is ever changed or deleted; the database itself refuses. `periods.close` settles what was booked since
the last close by a `Policy`: payouts are integers that sum to the pool, the same credit and policy give the same
bytes, and of two closers one wins. `KeyRing` keeps who may ask, without keeping their secrets.

This package knows nothing of models, attribution, HTTP or the command line. Everything it raises is a `RewardsError`.
"""

from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN, PENDING, Receipt, canonical_bytes, receipt_amounts, split
from rewards.errors import (
    ConflictError,
    CreditError,
    KeyRefusedError,
    KeyRingError,
    LedgerError,
    MoneyError,
    PeriodClosedError,
    PeriodEmptyError,
    PeriodError,
    PeriodMovedError,
    PolicyError,
    ReversalError,
    RewardsError,
)
from rewards.keys import ROLES, Key, KeyRing
from rewards.ledger import Booked, Ledger
from rewards.policy import Policy
from rewards.policy_file import load_policy
from rewards.settlement import Line, Settlement, settle
from rewards.writer import LedgerWriter

__all__ = [
    "COMMONS",
    "MICRO_CREDITS_PER_TOKEN",
    "PENDING",
    "ROLES",
    "Booked",
    "ConflictError",
    "CreditError",
    "Key",
    "KeyRefusedError",
    "KeyRing",
    "KeyRingError",
    "Ledger",
    "LedgerError",
    "LedgerWriter",
    "Line",
    "MoneyError",
    "PeriodClosedError",
    "PeriodEmptyError",
    "PeriodError",
    "PeriodMovedError",
    "Policy",
    "PolicyError",
    "Receipt",
    "ReversalError",
    "RewardsError",
    "Settlement",
    "canonical_bytes",
    "load_policy",
    "receipt_amounts",
    "settle",
    "split",
]
