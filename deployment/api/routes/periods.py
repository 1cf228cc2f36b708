"""`/periods`: previewed, closed, disputed, made final, paid. What a settlement is, is `rewards`' business."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from deployment.api.dependencies import Caller, TheBooks, Visible
from deployment.api.paging import Listing, Paging, first_of
from deployment.books.explanations import explain_payout
from deployment.books.periods import (
    close_period,
    closed_period,
    closed_periods,
    dispute_period,
    finalise_period,
    note_payment,
    preview_period,
)
from deployment.http.cursors import place_of
from deployment.schemas.errors import failures
from deployment.schemas.explanations import PayoutExplanation
from deployment.schemas.fields import Name
from deployment.schemas.periods import Close, Dispute, Finalise, Payment, Period, Preview, Terms
from rewards.periods import NAME

router = APIRouter(tags=["periods"])
_LIST = "periods"

ClientId = Annotated[Name, Path(description="The client's id, or `commons`.")]
PeriodName = Annotated[str, Path(pattern=f"^{NAME}$", description="The period's name, as in 2026-11.")]


@router.get("/periods", summary="The closed periods, oldest first")
def periods(books: TheBooks, visible: Visible, paging: Annotated[Paging, Query()]) -> Listing[Period]:
    """Every closed period with its sums. A member's key sees its own line of each, others the whole settlement."""
    (after,) = place_of(_LIST, paging.cursor, int) or (0,)
    rest = closed_periods(books, visible, after=int(after), limit=paging.limit + 1)
    shown, cursor = first_of(_LIST, rest, paging.limit, lambda period: (period.ordinal,))
    return Listing(data=shown, next_cursor=cursor)


@router.get("/periods/{name}", summary="One closed period", responses=failures(404))
def period(books: TheBooks, visible: Visible, name: PeriodName) -> Period:
    """A closed period as it stands: its settlement is the final one, and the draft while there is none."""
    return closed_period(books, visible, name)


@router.get("/periods/{name}/explanation/{client}", summary="A client's payout, explained", responses=failures(404))
def explanation(books: TheBooks, visible: Visible, name: PeriodName, client: ClientId) -> PayoutExplanation:
    """Every line of the arithmetic, from credit to payout, also of `commons`. A member's key sees its own alone."""
    return explain_payout(books.ledger, visible, name, client)


@router.post("/periods/{name}/preview", summary="What closing it now would pay", responses=failures(409))
def preview(books: TheBooks, name: PeriodName, terms: Terms) -> Preview:
    """What `close` would store at this moment, or `finalise` where the period is a draft. Changes nothing.

    The difference is to the draft, or to the period before. A draft keeps its own policy and its own end.
    """
    return preview_period(books, name, terms.policy, terms.until_us)


@router.post("/periods/{name}/close", summary="Close it, once and for all", status_code=201, responses=failures(409))
def close(books: TheBooks, caller: Caller, name: PeriodName, request: Close) -> Period:
    """Settle what was booked since the last closed period, and keep it: as a draft, or as final without dispute days.

    Of any number of callers exactly one wins; for the others, and ever after, it is 409 and nothing changes.
    """
    return close_period(
        books, name, caller.key_id, policy=request.policy, until_us=request.until_us, expected=request.expected_sha256
    )


@router.post("/periods/{name}/dispute", summary="Mark a draft as disputed", responses=failures(404, 409))
def dispute(books: TheBooks, caller: Caller, name: PeriodName, request: Dispute) -> Period:
    """The period stays as it is until it is finalised, with the holds of that moment."""
    return dispute_period(books, name, request.reason, caller.key_id)


@router.post("/periods/{name}/finalise", summary="Make a draft final", responses=failures(404, 409))
def finalise(books: TheBooks, caller: Caller, name: PeriodName, request: Finalise | None = None) -> Period:
    """After its dispute days: settle it again with the holds of this moment, and write every client's statement."""
    return finalise_period(books, name, caller.key_id, expected=None if request is None else request.expected_sha256)


@router.post("/periods/{name}/pay", summary="Note that it was paid", responses=failures(404, 409))
def pay(books: TheBooks, caller: Caller, name: PeriodName, request: Payment) -> Period:
    """Moves no money; says in the books that somebody did, and how it is found elsewhere."""
    return note_payment(books, name, request.reference, caller.key_id)
