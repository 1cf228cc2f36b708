"""Cursors: a place in a list as a text that whoever got it keeps as it is. Knows no row.

A cursor tells the place after the last row of a page. It holds for the list that gave it.
"""

import base64
import binascii
import json
from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from deployment.errors import InvalidRequestError

_MOST = 2**63 - 1

Cursor = Annotated[
    str | None,
    Query(max_length=2000, description="Where the page begins: `next_cursor` of the page before; none for the first."),
]


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
        place = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        place = None
    if not isinstance(place, list) or place[:1] != [route] or not _fits(place[1:], kinds):
        raise InvalidRequestError(
            "cursor must be the `next_cursor` of an earlier page of this list", param="cursor", code="invalid_cursor"
        )
    return tuple(place[1:])


def _fits(values: Sequence[object], kinds: Sequence[type[int | str]]) -> bool:
    return len(values) == len(kinds) and all(
        (type(value) is int and 0 <= value <= _MOST) if kind is int else (type(value) is str and _is_text(value))
        for value, kind in zip(values, kinds, strict=True)
    )


def _is_text(value: str) -> bool:
    """Whether a database takes it as a text: it holds neither a NUL nor half a character."""
    return "\0" not in value and not any("\ud800" <= letter <= "\udfff" for letter in value)
