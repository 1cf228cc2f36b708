"""`/entries`: the lines that credit is made of. Reads only."""

from typing import Annotated, cast

from fastapi import APIRouter, Query

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.filters import EntryFilters, narrow
from deployment.api.paging import Listing
from deployment.http.cursors import cursor_at, place_of
from deployment.schemas.credit import Entry
from deployment.schemas.errors import failures
from rewards.store.receipts import BookedEntry
from rewards.views import oldest_first

router = APIRouter(tags=["credit"])
_LIST = "entries"


@router.get("/entries", summary="Entries, oldest first", responses=failures(404))
def entries(books: TheBooks, visible: Visible, filters: Annotated[EntryFilters, Query()]) -> Listing[Entry]:
    """Each account's credit of each receipt, in the order of booking, then of accounts.

    Summed by account they are `/credit` under the same filters. What is booked while a caller pages on comes on a later
    page. A member's key sees its own entries, and not which application asked.
    """
    place = cast("tuple[int, str] | None", place_of(_LIST, filters.cursor, int, str))
    wanted = narrow(books, visible, filters)
    with books.ledger.database.read(member=visible) as connection:
        page = oldest_first.entries(
            connection,
            wanted.selection,
            limit=filters.limit,
            place=place,
            account=wanted.account,
            with_application=visible is None,
        )
    return Listing(data=[_entry(entry) for entry in page.rows], next_cursor=cursor_at(_LIST, page.place))


def _entry(entry: BookedEntry) -> Entry:
    return Entry.model_validate({**vars(entry), "credit": entry.amount})
