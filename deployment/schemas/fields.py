"""Kinds of fields that several requests and answers share, each bounded by what the ledger can hold."""

from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["Count", "Micro", "Moment", "Name", "Reason"]

_LARGEST = 2**63 - 1
_NO_NUL = r"^[^\x00]+$"  # PostgreSQL's texts hold everything else


def _telling(reason: str) -> str:
    if not reason.strip() or not reason.isprintable():
        raise ValueError(f"must be printable text that says why, on one line, not {reason!r}")
    return reason


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=_NO_NUL)]
"""An id or a name of something."""

Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=_NO_NUL), AfterValidator(_telling)]
"""Why, for whoever reads the books."""

Count = Annotated[int, Field(ge=0, le=_LARGEST)]
"""How many, or a number that something has in its order."""

Moment = Annotated[int, Field(ge=0, le=_LARGEST)]
"""Microseconds since 1970, UTC."""

Micro = Annotated[int, Field(ge=-_LARGEST, le=_LARGEST)]
"""Micro-credits: one generated token is 1 000 000."""
