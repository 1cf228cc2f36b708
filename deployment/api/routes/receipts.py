"""`/receipts`: the credit of responses as it was booked, and its reversal."""

from typing import Annotated, cast

from fastapi import APIRouter, Path, Query, Response

from deployment.api.dependencies import Caller, TheBooks
from deployment.api.filters import ReceiptFilters, narrow
from deployment.api.paging import Listing
from deployment.books.receipts import booked_receipt, reverse_response
from deployment.http.cursors import cursor_at, place_of
from deployment.schemas.errors import failures
from deployment.schemas.fields import Name
from deployment.schemas.receipts import Receipt, ReversalRequest
from rewards.views import oldest_first

router = APIRouter(tags=["receipts"])
_LIST = "receipts"

ResponseId = Annotated[Name, Path(description="The id of the response, as the application was told it.")]


@router.get("/receipts", summary="Receipts, oldest first", responses=failures(404))
def receipts(books: TheBooks, filters: Annotated[ReceiptFilters, Query()]) -> Listing[Receipt]:
    """Receipts whole, in the order of booking; with `client`, those that give it credit or take some back."""
    place = cast("tuple[int] | None", place_of(_LIST, filters.cursor, int))
    wanted = narrow(books, None, filters)
    with books.ledger.database.read() as connection:
        page = oldest_first.receipts(
            connection, wanted.selection, limit=filters.limit, place=place, account=wanted.account
        )
    return Listing(data=[Receipt.model_validate(row) for row in page.rows], next_cursor=cursor_at(_LIST, page.place))


@router.get("/receipts/{response_id}", summary="One receipt", responses=failures(404))
def receipt(books: TheBooks, response_id: ResponseId) -> Receipt:
    """The receipt of one response, whole, as it was booked."""
    return booked_receipt(books, response_id)


@router.post(
    "/receipts/{response_id}/reversal",
    summary="Reverse a response's credit",
    status_code=201,
    responses={
        200: {"model": Receipt, "description": "It was reversed already, by this receipt."},
        **failures(404, 409),
    },
)
def reverse(
    books: TheBooks, caller: Caller, response: Response, response_id: ResponseId, request: ReversalRequest
) -> Receipt:
    """Book the counter-entries of a response: every amount and its tokens, negated. The receipt itself stays.

    Once: asked again, whatever the reason then, the answer is the first reversal. A period that was closed with the
    response in it stays as it is; what it paid is taken back in money when the next one is closed.
    """
    reversal = reverse_response(books, response_id, request.reason, caller.key_id)
    response.status_code = 201 if reversal.is_new else 200
    return reversal.receipt
