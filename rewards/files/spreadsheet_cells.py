"""Cells of CSV for spreadsheets, which would take what somebody named a key for a formula, and compute it."""

from __future__ import annotations

from typing import Any

from rewards.files.plain_text import one_line

_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")


def cell(value: Any) -> Any:
    """A cell of a table for spreadsheets: a text that one would take for a formula has an apostrophe before it.

    A number stays one. As OWASP advises: `=`, `+`, `-` and `@`, wide ones too, also behind spaces; a line break or tab,
    which would begin another cell, is shown as its escape.
    """
    if not isinstance(value, str):
        return value
    begins = value.lstrip()
    risky = begins.startswith(_FORMULA) or one_line(value[:1]) != value[:1]
    return f"'{one_line(value)}" if risky else one_line(value)
