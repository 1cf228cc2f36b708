"""The operator API under `/api/v1`: credit, shares and receipts, read from the ledger and from nothing else.

Reads only. Who may call is `security`'s business; what a share is worth is `rewards.settlement`'s.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request

from deployment.errors import NotFoundError
from rewards import MICRO_CREDITS_PER_TOKEN, Ledger, periods

__all__ = ["router"]


def _ledger(request: Request) -> Ledger:
    ledger: Ledger = request.app.state.ledger
    return ledger


TheLedger = Annotated[Ledger, Depends(_ledger)]
router = APIRouter(prefix="/api/v1")


@router.get("/shares")
def shares(ledger: TheLedger) -> dict[str, Any]:
    """Each account's credit and share in the open period: what was booked since the last one was closed.

    `credit` is in micro-credits; the shares are floats for reading, and a settlement computes its own from integers.
    """
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
def credit(ledger: TheLedger) -> dict[str, Any]:
    """All that was ever booked: receipts, tokens, and micro-credits by account, which sum to tokens * 1 000 000."""
    up_to = ledger.last_sequence()
    return {
        "object": "credit",
        "receipts": up_to,
        "tokens": ledger.tokens(up_to=up_to),
        "balances": ledger.balances(up_to=up_to),
    }


@router.get("/receipts/{response_id}")
def receipt(ledger: TheLedger, response_id: str) -> dict[str, Any]:
    """The receipt of one response, whole, as it was booked."""
    found = ledger.receipt(response_id)
    if found is None:
        raise NotFoundError(f"no response {response_id!r} is booked", param="response_id", code="response_not_found")
    return {"object": "receipt", **found}
