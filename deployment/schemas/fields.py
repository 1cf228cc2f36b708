"""Kinds of fields that several requests and answers share.

Credit, tokens and money are decimal text on the wire, as in statements, since a reader of JSON may keep numbers as
doubles, which lose integers beyond 2^53 (RFC 7493, section 2.2). What is counted one by one (receipts, leaves, periods)
and moments cannot come to that, and are integers up to `LARGEST`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

from rewards.files.strict_json import JsonObject
from rewards.store.reasons import MOST_CHARACTERS, is_telling

LARGEST = 2**53 - 1
"""The largest integer that every reader of JSON keeps exact."""
_WHOLE = r"^(0|-?[1-9][0-9]*)$"
_NO_NUL = r"^[^\x00]+$"  # PostgreSQL's texts hold everything else


def _require_telling(reason: str) -> str:
    if not is_telling(reason):
        raise ValueError(f"must be printable text that says why, on one line, not {reason!r}")
    return reason


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=_NO_NUL)]
"""An id or a name of something."""

Reason = Annotated[
    str, Field(min_length=1, max_length=MOST_CHARACTERS, pattern=_NO_NUL), AfterValidator(_require_telling)
]
"""Why, for whoever reads the books."""

Count = Annotated[int, Field(ge=0, le=LARGEST)]
"""How many, or a number that something has in its order."""

Moment = Annotated[int, Field(ge=0, le=LARGEST)]
"""Microseconds since 1970, UTC."""

Digits = Annotated[int, Field(ge=0, le=4)]
"""Decimal places of a currency."""


def _read(value: Any) -> Any:
    """A whole number from its text; what is no text is judged as it is."""
    if not isinstance(value, str):
        return value
    if re.fullmatch(_WHOLE, value) is None:
        raise ValueError(f"must be a whole number as decimal text, not {value!r}")
    return int(value)


Whole = Annotated[
    int,
    BeforeValidator(_read),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _WHOLE}),
]
"""Micro-credits, tokens or minor units: an integer here, and decimal text on the wire."""


def spell(document: Any) -> Any:
    """A document as it may be sent: an integer that not every reader of JSON keeps exact becomes decimal text."""
    if isinstance(document, Mapping):
        return {name: spell(value) for name, value in document.items()}
    if isinstance(document, Sequence) and not isinstance(document, str | bytes):
        return [spell(value) for value in document]
    return str(document) if isinstance(document, int) and abs(document) > LARGEST else document


Document = Annotated[JsonObject, PlainSerializer(spell, return_type=JsonObject)]
"""A document of the books as it stands there; `spell` where a number is too large."""
