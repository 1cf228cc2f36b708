"""Receipts as they were booked, and the reversal of a response's credit."""

from dataclasses import dataclass

from deployment.books.books import Books
from deployment.errors import ConflictError, NotFoundError
from deployment.schemas.receipts import Receipt


@dataclass(frozen=True)
class Reversal:
    """The receipt that takes a response's credit back, and whether it was booked now or had been before."""

    receipt: Receipt
    is_new: bool


def booked_receipt(books: Books, response_id: str) -> Receipt:
    """The receipt of one response, whole, as it was booked.

    Raises:
        NotFoundError: there is none.
    """
    receipt = books.ledger.receipt(response_id)
    if receipt is None:
        raise NotFoundError(f"no response {response_id!r} is booked", param="response_id", code="response_not_found")
    return Receipt.model_validate(receipt)


def reverse_response(books: Books, response_id: str, reason: str, actor: str) -> Reversal:
    """Book the counter-entries of a response, once: asked again, this is the first reversal, whatever the reason then.

    Args:
        books: the ledger.
        response_id: of the response; its receipt stays.
        reason: why, for whoever reads the books.
        actor: the id of the key that reverses.

    Raises:
        NotFoundError: no such response is booked.
        ConflictError: it is a reversal itself.
    """
    if booked_receipt(books, response_id).kind == "reversal":
        raise ConflictError(
            f"{response_id!r} is a reversal itself, and stays", param="response_id", code="not_reversible"
        )
    booked = books.ledger.reverse(response_id, reason, actor)
    return Reversal(booked_receipt(books, booked.response_id), is_new=not booked.replayed)
