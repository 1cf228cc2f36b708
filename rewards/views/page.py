"""A page of rows, and where the next one begins. Knows no query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Rows in their order, and the place of the last of them where there are more; None at the end."""

    rows: Sequence[Item]
    place: tuple[Any, ...] | None
