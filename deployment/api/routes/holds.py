"""`/holds`: what is not to be paid for the time being, a client's payouts or the credit of one response."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from deployment.api.dependencies import Caller, TheBooks
from deployment.api.paging import Listing, Paging, first_of
from deployment.books.holds import all_holds, place_hold, placed_hold, release_hold
from deployment.http.cursors import place_of
from deployment.schemas.errors import failures
from deployment.schemas.fields import Name
from deployment.schemas.holds import Hold, HoldRequest, Release

router = APIRouter(tags=["holds"])
_LIST = "holds"

HoldId = Annotated[Name, Path(description="The hold's id, as in hold-1.")]


class HoldFilters(Paging):
    """Which holds are meant, and which page of them."""

    active: bool | None = Field(None, description="Those that are not released alone, or the released ones alone.")


@router.get("/holds", summary="Holds, oldest first")
def holds(books: TheBooks, filters: Annotated[HoldFilters, Query()]) -> Listing[Hold]:
    """Every hold that was ever placed, in that order."""
    (after,) = place_of(_LIST, filters.cursor, int) or (0,)
    rest = [
        (number, hold)
        for number, hold in enumerate(all_holds(books), start=1)
        if number > int(after) and filters.active in (None, hold.released_at_us is None)
    ]
    shown, cursor = first_of(_LIST, rest, filters.limit, lambda numbered: (numbered[0],))
    return Listing(data=[hold for _, hold in shown], next_cursor=cursor)


@router.get("/holds/{hold_id}", summary="One hold", responses=failures(404))
def hold(books: TheBooks, hold_id: HoldId) -> Hold:
    """A hold as it stands."""
    return placed_hold(books, hold_id)


@router.post("/holds", summary="Place a hold", status_code=201, responses=failures(404, 409))
def place(books: TheBooks, caller: Caller, request: HoldRequest) -> Hold:
    """Hold a client's payouts or a response's credit; a draft period that it touches becomes disputed."""
    return place_hold(books, request.kind, request.target, request.reason, caller.key_id)


@router.post("/holds/{hold_id}/release", summary="End a hold", responses=failures(404, 409))
def release(books: TheBooks, caller: Caller, hold_id: HoldId, request: Release) -> Hold:
    """What was held counts in the period that is settled next."""
    return release_hold(books, hold_id, request.reason, caller.key_id)
