"""JSON that is verified, read so that no other reader can read it otherwise. Knows no document."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

JsonObject = dict[str, Any]
"""A JSON object of no fixed form, or of one that its reader checks."""


def load(text: str | bytes) -> Any:
    """A JSON document.

    Raises:
        ValueError: it is none, not in UTF-8, nested without end, or holds what readers take differently: a name that an
            object gives twice, NaN or an infinity.
    """
    whole = text.decode() if isinstance(text, bytes) else text  # else the parser would guess at UTF-16 and UTF-32 too
    try:
        return json.loads(whole, object_pairs_hook=_require_unique, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _require_unique(pairs: list[tuple[str, Any]]) -> JsonObject:
    document = dict(pairs)
    if len(document) != len(pairs):
        times = Counter(name for name, _ in pairs)
        twice = next(name for name in times if times[name] > 1)
        raise ValueError(f"an object gives {twice!r} twice, of which readers take one or the other")
    return document


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number of JSON")
