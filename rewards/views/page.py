"""A page of rows, and where the next one begins. Knows no query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True)
class Page(Generic[Row]):
    """Rows in their order, and the place of the last of them where there are more; None at the end."""

    rows: Sequence[Row]
    place: tuple[Any, ...] | None
