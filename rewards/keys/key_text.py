"""A bearer key as text, `ptk_<key id>_<secret>`: drawn at random, written, and read again."""

from __future__ import annotations

import re
import secrets

_PRESENTED = re.compile(r"ptk_(?P<key_id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")

_ANYWHERE = re.compile(r"(ptk_)[0-9a-f]{12}_[A-Za-z0-9_-]*")  # also with too long a secret, or too short a one


def draw() -> tuple[str, str]:
    """A new key id and its secret, of 256 random bits, so that a fast hash of it is enough."""
    return secrets.token_hex(6), secrets.token_urlsafe(32)


def write(key_id: str, secret: str) -> str:
    """The key as it is presented."""
    return f"ptk_{key_id}_{secret}"


def read(presented: str) -> tuple[str, str] | None:
    """Key id and secret of what was presented; None where it is no key."""
    match = _PRESENTED.fullmatch(presented)
    return None if match is None else (match["key_id"], match["secret"])


def blank(text: str) -> str:
    """The text with every key in it made unreadable, for what is written down of requests."""
    return _ANYWHERE.sub(r"\1...", text)
