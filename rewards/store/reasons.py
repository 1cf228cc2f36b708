"""Why something was done, as an event keeps it for whoever reads the books: what a reason must be."""

from __future__ import annotations

MOST_CHARACTERS = 1000
"""Enough for a paragraph; a longer story has a place of its own, which a reason can name."""


def is_telling(text: str) -> bool:
    """Whether a text says something, on one line and in letters that can be printed."""
    return bool(text.strip()) and text.isprintable()


def require_reason(reason: str, refused: type[Exception]) -> None:
    """Raise `refused` where a reason says nothing to whoever reads the books, or more than an event keeps."""
    if not is_telling(reason):
        raise refused(f"reason must be printable text that says why, not {reason!r}")
    if len(reason) > MOST_CHARACTERS:
        raise refused(f"reason must have at most {MOST_CHARACTERS} characters, not {len(reason)}")
