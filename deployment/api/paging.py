"""Lists in pages: how many rows a caller wants, and where a page begins. Knows no row.

A cursor tells the place after the last row of a page. It holds for the route that gave it; a caller keeps it as it is.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from deployment.errors import InvalidRequestError

__all__ = ["Cursor", "Limit", "Listing", "Paging", "cursor_at", "place_of"]

Row = TypeVar("Row")
_MOST = 2**63 - 1

Limit = Annotated[int, Query(ge=1, le=1000, description="The most rows of a page.")]
Cursor = Annotated[
    str | None,
    Query(max_length=2000, description="Where the page begins: `next_cursor` of the page before; none for the first."),
]


class Paging(BaseModel):
    """Which page of a list is wanted: the part of a query that every list has. A parameter it does not have is refused.

    What a list is narrowed by must stay the same from page to page.
    """

    model_config = ConfigDict(extra="forbid")

    limit: Limit = 100
    cursor: Cursor = None


class Listing(BaseModel, Generic[Row]):
    """One page of rows."""

    object: Literal["list"] = "list"
    data: list[Row]
    next_cursor: str | None = Field(description="For the page after this one; null where this is the last.")


def cursor_at(route: str, place: Sequence[int | str] | None) -> str | None:
    """The cursor of a place in a route's rows; None where there is no further page."""
    if place is None:
        return None
    text = json.dumps([route, *place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(route: str, cursor: str | None, *kinds: type[int | str]) -> tuple[int | str, ...] | None:
    """The place that a route's cursor stands for, one value of each kind; None where none was given.

    Raises:
        InvalidRequestError: it is no cursor, or one of another route.
    """
    if cursor is None:
        return None
    try:
        found = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or found[:1] != [route] or not _fits(found[1:], kinds):
        raise InvalidRequestError(
            "cursor must be the `next_cursor` of an earlier page of this list", param="cursor", code="invalid_cursor"
        )
    return tuple(found[1:])


def _fits(values: Sequence[object], kinds: Sequence[type[int | str]]) -> bool:
    return len(values) == len(kinds) and all(
        (type(value) is int and 0 <= value <= _MOST) if kind is int else (type(value) is str and _is_text(value))
        for value, kind in zip(values, kinds, strict=True)
    )


def _is_text(value: str) -> bool:
    """Whether a database takes it as a text: it holds neither a NUL nor half a character."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
