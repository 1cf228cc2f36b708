"""`/receipts`: the credit of responses as it was booked."""

from typing import Any

from fastapi import APIRouter

from deployment.errors import NotFoundError
from deployment.operator.books import TheBooks

__all__ = ["router"]

router = APIRouter(tags=["receipts"])


@router.get("/receipts/{response_id}")
def receipt(books: TheBooks, response_id: str) -> dict[str, Any]:
    """The receipt of one response, whole, as it was booked."""
    found = books.ledger.receipt(response_id)
    if found is None:
        raise NotFoundError(f"no response {response_id!r} is booked", param="response_id", code="response_not_found")
    return {"object": "receipt", **found}
