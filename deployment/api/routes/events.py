"""`/events`: what happened besides receipts, as the events have it. Reads only."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from deployment.api.dependencies import TheBooks
from deployment.api.paging import Listing, Paging, first_of
from deployment.http.cursors import place_of
from deployment.schemas.fields import Name
from deployment.schemas.receipts import Event
from rewards.store import events

router = APIRouter(tags=["events"])
_LIST = "events"


class EventFilters(Paging):
    """Which events are meant, and which page of them."""

    kind: Name | None = Field(None, description="What happened, as in `period.final`, `key.created` or `call`.")
    subject: Name | None = Field(None, description="To what, as in a period's name or a key's id.")


@router.get("/events", summary="Events, oldest first")
def list_events(books: TheBooks, filters: Annotated[EventFilters, Query()]) -> Listing[Event]:
    """Moves of periods, holds, statements, calibrations, clients, keys and privileged calls, as they happened."""
    (after,) = place_of(_LIST, filters.cursor, int) or (0,)
    kinds = None if filters.kind is None else [filters.kind]
    with books.ledger.database.read() as connection:
        rest = events.find(connection, kinds=kinds, subject=filters.subject, after=int(after), limit=filters.limit + 1)
    shown, cursor = first_of(_LIST, rest, filters.limit, lambda event: (event.sequence,))
    return Listing(data=[Event.model_validate(vars(event)) for event in shown], next_cursor=cursor)
