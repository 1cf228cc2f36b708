"""`/holds`: what is not to be paid for the time being, a client's payouts or the credit of one response."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field

from deployment.api.dependencies import Caller, TheBooks
from deployment.api.paging import Listing, Paging, cursor_at, place_of
from deployment.books.books import Books
from deployment.errors import NotFoundError
from deployment.schemas.errors import failures
from deployment.schemas.fields import Name
from deployment.schemas.holds import Hold, HoldRequest, Release
from rewards.periods import holds as held

__all__ = ["router"]

router = APIRouter(tags=["holds"])
_LIST = "holds"

HoldId = Annotated[Name, Path(description="The hold's id, as in hold-1.")]


class HoldFilters(Paging):
    """Which holds are meant, and which page of them."""

    active: bool | None = Field(None, description="Those that are not released alone, or the released ones alone.")


@router.get("/holds", summary="Holds, oldest first")
def holds(books: TheBooks, asked: Annotated[HoldFilters, Query()]) -> Listing[Hold]:
    """Every hold that was ever placed, in that order."""
    (after,) = place_of(_LIST, asked.cursor, int) or (0,)
    rest = [
        (number, hold)
        for number, hold in enumerate(held.all_holds(books.ledger), start=1)
        if number > int(after) and asked.active in (None, hold.released_at_us is None)
    ]
    shown = rest[: asked.limit]
    return Listing(
        data=[_shown(hold) for _, hold in shown],
        next_cursor=cursor_at(_LIST, (shown[-1][0],) if len(rest) > asked.limit else None),
    )


@router.get("/holds/{hold_id}", summary="One hold", responses=failures(404))
def hold(books: TheBooks, hold_id: HoldId) -> Hold:
    """A hold as it stands."""
    return _found(books, hold_id)


@router.post("/holds", summary="Place a hold", status_code=201, responses=failures(404, 409))
def place(books: TheBooks, caller: Caller, asked: HoldRequest) -> Hold:
    """Hold a client's payouts or a response's credit; a draft period that it touches becomes disputed."""
    _require_target(books, asked)
    return _found(books, held.place(books.ledger, asked.kind, asked.target, asked.reason, caller.key_id))


@router.post("/holds/{hold_id}/release", summary="End a hold", responses=failures(404, 409))
def release(books: TheBooks, caller: Caller, hold_id: HoldId, asked: Release) -> Hold:
    """What was held counts in the period that is settled next."""
    _found(books, hold_id)
    held.release(books.ledger, hold_id, asked.reason, caller.key_id)
    return _found(books, hold_id)


def _require_target(books: Books, asked: HoldRequest) -> None:
    if asked.kind == "client":
        is_there = any(asked.target in members for members in books.ledger.clients().values())
    else:
        is_there = books.ledger.is_booked(asked.target)
    if not is_there:
        raise NotFoundError(
            f"there is no {asked.kind} {asked.target!r} that could be held",
            param="target",
            code=f"{asked.kind}_not_found",
        )


def _found(books: Books, hold_id: str) -> Hold:
    for each in held.all_holds(books.ledger):
        if each.hold_id == hold_id:
            return _shown(each)
    raise NotFoundError(f"there is no hold {hold_id!r}", param="hold_id", code="hold_not_found")


def _shown(hold: held.Hold) -> Hold:
    return Hold(
        id=hold.hold_id,
        kind=hold.kind,
        target=hold.target,
        reason=hold.reason,
        actor=hold.actor,
        placed_at_us=hold.placed_at_us,
        released_at_us=hold.released_at_us,
    )
