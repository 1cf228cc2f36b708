"""Text from outside, made harmless where it is shown: it keeps to its line and its direction.

A label, a display name or a model's token may hold anything: line breaks that forge a line of a log, escape sequences
that a terminal obeys, or controls that turn the direction of what follows. Spreadsheets have `spreadsheet_cells`.
What is stored stays as it is; only what is shown is changed. Letters of every script stay, and the joiners that some
need. Knows no page and no table.
"""

from __future__ import annotations

import re

_LINES = "\t\n"
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # controls
    "\u2028\u2029"  # separators of lines and paragraphs
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction
    "\ufeff\U000e0000-\U000e007f\ud800-\udfff]"  # a mark of byte order, invisible tags, halves of characters
)


def one_line(text: str) -> str:
    """The text on one line: a harmful character is shown as its escape, a line break as a backslash and an n."""
    return _HARMFUL.sub(_escape, text)


def many_lines(text: str) -> str:
    """The text with its line breaks and tabs, and no other harmful character."""
    return _HARMFUL.sub(lambda match: match[0] if match[0] in _LINES else _escape(match), text)


def json_line(text: str) -> str:
    """A JSON text that was written on one line, whose strings hold no harmful character; it reads back as the same."""
    return _HARMFUL.sub(_json_escape, text)


def json_lines(text: str) -> str:
    """A JSON text that was written on many lines, likewise."""
    return _HARMFUL.sub(lambda match: match[0] if match[0] == "\n" else _json_escape(match), text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[place : place + 4]}" for place in range(0, len(units), 4))
