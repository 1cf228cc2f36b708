"""`/shares` and `/credit`: who earned what, in the open period and of all time. Reads only.

What a share is worth is `rewards.settlement`'s business.
"""

from typing import Any

from fastapi import APIRouter

from deployment.operator.books import TheBooks
from rewards import MICRO_CREDITS_PER_TOKEN, periods

__all__ = ["router"]


router = APIRouter(tags=["credit"])


@router.get("/shares")
def shares(books: TheBooks) -> dict[str, Any]:
    """Each account's credit and share in the open period: what was booked since the last one was closed.

    `credit` is in micro-credits; the shares are floats for reading, and a settlement computes its own from integers.
    """
    ledger = books.ledger
    closed = periods.all(ledger)
    after = closed[-1].window[1] if closed else 0
    up_to = ledger.last_sequence()
    tokens = ledger.tokens(after=after, up_to=up_to)
    credit = ledger.balances(after=after, up_to=up_to)
    return {
        "object": "shares",
        "period": {
            "previous": closed[-1].name if closed else None,
            "opened_at_us": closed[-1].closed_at_us if closed else None,
            "first_sequence": after + 1,
            "last_sequence": up_to,
        },
        "tokens": tokens,
        "accounts": [
            {"account": account, "credit": amount, "share": amount / (tokens * MICRO_CREDITS_PER_TOKEN)}
            for account, amount in credit.items()
        ],
    }


@router.get("/credit")
def credit(books: TheBooks) -> dict[str, Any]:
    """All that was ever booked: receipts, tokens, and micro-credits by account, which sum to tokens * 1 000 000."""
    ledger = books.ledger
    up_to = ledger.last_sequence()
    return {
        "object": "credit",
        "receipts": up_to,
        "tokens": ledger.tokens(up_to=up_to),
        "balances": ledger.balances(up_to=up_to),
    }
