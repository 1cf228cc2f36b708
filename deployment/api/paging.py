"""Lists in pages: how many rows a caller wants, and where a page begins. Knows no row."""

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from deployment.http.cursors import Cursor, cursor_at

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=1000, description="The most rows of a page.")]


class Paging(BaseModel):
    """Which page of a list is wanted: the part of a query that every list has. A parameter it does not have is refused.

    What a list is narrowed by must stay the same from page to page.
    """

    model_config = ConfigDict(extra="forbid")

    limit: Limit = 100
    cursor: Cursor = None


class Listing(BaseModel, Generic[Item]):
    """One page of rows."""

    object: Literal["list"] = "list"
    data: list[Item]
    next_cursor: str | None = Field(description="For the page after this one; null where this is the last.")


def first_of(
    route: str, rows: Sequence[Item], limit: int, place: Callable[[Item], Sequence[int | str]]
) -> tuple[Sequence[Item], str | None]:
    """The first `limit` of the rows that are left of a list, and the cursor of the others; None where there are none.

    Args:
        route: whose rows they are.
        rows: from the place on where the page begins.
        limit: how many at most.
        place: of a row, in the route's order.
    """
    shown = rows[:limit]
    return shown, cursor_at(route, place(shown[-1])) if len(rows) > limit else None
