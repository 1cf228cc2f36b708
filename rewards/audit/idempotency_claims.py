"""Claims: each row against its own checksum, for claims end and so stand in no log. One that is gone does not show."""

from __future__ import annotations

from sqlalchemy import select
from sqlmodel import col

from rewards.audit import hashing
from rewards.audit.report import DifferenceError
from rewards.audit.source import Source
from rewards.store.tables import ClaimRow

_KEY = ("application", "key_sha256", "attempt")


def check(source: Source) -> None:
    """Hold every claim against its checksum.

    Raises:
        DifferenceError: one was altered.
    """
    for row in source.rows(select(ClaimRow).order_by(*(col(getattr(ClaimRow, name)) for name in _KEY))):
        stored_sha256, expected = row.pop("row_sha256"), hashing.checksum(row)
        if stored_sha256 != expected:
            key = tuple(row[name] for name in _KEY)
            raise DifferenceError("claims", key, "row_sha256", actual=stored_sha256, expected=expected)
