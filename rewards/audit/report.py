"""What an audit says: the first row that differs, or none, and what the rows add up to. Checks nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from rewards.audit import hashing
from rewards.audit.hashing import Document
from rewards.errors import RewardsError

_STEP_BACK_US = 10 * 60 * 1_000_000
"""By how much a stamp must be below the one before it to be right: the one before was of a clock that was wrong."""
_MOST_WRONG_US = 10 * 365 * 86_400 * 1_000_000
"""By how much a stamp may be below the very first one, which may have been of such a clock itself."""


class Stamps:
    """Stamps in the order of their rows: none is below the one before it, unless those before were of a wrong clock.

    Then it is far below that one: by more than a clock is set back in passing, and by less than no clock is wrong.
    """

    def __init__(self) -> None:
        self.last_us: int | None = None
        self._first_us = 0

    def follows(self, at_us: int) -> bool:
        """Whether the next row may have been stamped so."""
        if self.last_us is None:
            self._first_us = at_us
        elif at_us < self.last_us and not self._first_us - _MOST_WRONG_US <= at_us < self.last_us - _STEP_BACK_US:
            return False
        self.last_us = at_us
        return True


@dataclass(frozen=True)
class Difference:
    """A row that is not what it must be.

    Attributes:
        table: the table it stands in.
        key: its primary key; a tuple where the key has several columns.
        field: the column, or what is computed from the row.
        found: what is there; None when the row is missing.
        expected: what must be there; None when there must be no such row.
    """

    table: str
    key: Any
    field: str
    found: Any
    expected: Any

    def __str__(self) -> str:
        key = ", ".join(map(repr, self.key)) if isinstance(self.key, tuple) else repr(self.key)
        return f"{self.table}[{key}]: {self.field} is {self.found!r}, expected {self.expected!r}"


class DifferenceError(RewardsError):
    """A check found a difference. Stays within the audit, which turns it into a report."""

    def __init__(self, table: str, key: Any, field: str, *, actual: Any, expected: Any) -> None:
        self.difference = Difference(table, key, field, actual, expected)
        super().__init__(str(self.difference))


def canonical_object(table: str, key: Any, field: str, text: str) -> Document:
    """The JSON object in a column.

    Raises:
        DifferenceError: it is none, or is spelled otherwise than the books spell it.
    """
    try:
        document = json.loads(text)
        expected = hashing.canonical_text(document)
    except (ValueError, RecursionError):
        document, expected = None, "JSON"
    if expected != text or not isinstance(document, dict):
        raise DifferenceError(table, key, field, actual=text, expected=expected)
    return document


def first_difference(path: str, actual: Any, expected: Any) -> tuple[str, Any, Any] | None:
    """Where two JSON documents differ first, as in "document.lines[2].payout", and both values; None where nowhere."""
    if isinstance(actual, dict) and isinstance(expected, dict):
        for name in sorted({*actual, *expected}):
            if name not in actual or name not in expected:
                return f"{path}.{name}", actual.get(name), expected.get(name)
            inner = first_difference(f"{path}.{name}", actual[name], expected[name])
            if inner is not None:
                return inner
        return None
    if isinstance(actual, list) and isinstance(expected, list) and len(actual) == len(expected):
        for place, (one, other) in enumerate(zip(actual, expected, strict=True)):
            inner = first_difference(f"{path}[{place}]", one, other)
            if inner is not None:
                return inner
        return None
    return None if type(actual) is type(expected) and actual == expected else (path, actual, expected)


class AuditProgress(Protocol):
    """Who is told how far the audit is."""

    def start(self, description: str, total: int) -> None:
        """A stage of `total` pieces begins."""

    def advance(self) -> None:
        """One piece is done."""


@dataclass(frozen=True)
class Report:
    """The outcome of an audit.

    Attributes:
        difference: the first row that differs; None when the books are in order.
        counts: table -> number of rows.
        unsealed: receipts and events that are not in the log yet.
        balances: account -> micro-credits, added up anew; of all rows before the difference, where there is one.
        tokens: generated tokens, less those reversed, likewise.
        origin: the log's name; None before the first checkpoint.
        size: leaves of the log.
        root: the log's root, computed anew, as hex.
        keys: public keys by which signatures were checked, as `VerifyKey.encode` spells them.
        extends: size of the older checkpoint that the auditor holds, when one was given.
        lacks_write_ahead_log: it is a copy of a file without the -wal beside it, and so maybe of older books than it
            was made from; no row can tell.
    """

    difference: Difference | None
    counts: Mapping[str, int]
    unsealed: int = 0
    balances: Mapping[str, int] = field(default_factory=dict)
    tokens: int = 0
    origin: str | None = None
    size: int = 0
    root: str = ""
    keys: tuple[str, ...] = ()
    extends: int | None = None
    lacks_write_ahead_log: bool = False

    @property
    def is_ok(self) -> bool:
        """Whether no row differs."""
        return self.difference is None

    def to_document(self) -> Document:
        """Plain data for JSON: credit and tokens as decimal text, which no reader rounds."""
        return {
            "ok": self.is_ok,
            "difference": None if self.difference is None else vars(self.difference),
            "counts": dict(self.counts),
            "unsealed": self.unsealed,
            "balances": {account: str(amount) for account, amount in self.balances.items()},
            "tokens": str(self.tokens),
            "log": {"origin": self.origin, "size": self.size, "root": self.root, "extends": self.extends},
            "keys": list(self.keys),
            "lacks_write_ahead_log": self.lacks_write_ahead_log,
        }
