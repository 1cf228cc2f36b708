"""Base64 in one spelling only, so that no altered character of a signature or a proof passes unnoticed."""

from __future__ import annotations

import base64
from typing import Any

from rewards.errors import SignatureError


def base64_text(value: bytes) -> str:
    """Standard base64 with padding (RFC 4648, section 4)."""
    return base64.b64encode(value).decode()


def base64_bytes(text: Any, size: int | None, what: str) -> bytes:
    """Bytes of a text that is spelled as `base64_text` would, of `size` bytes where that is given.

    Raises:
        SignatureError: it is spelled otherwise, or of another size; `what` names it.
    """
    try:
        value = base64.b64decode(text, validate=True)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"the {what} is not base64") from error
    if base64_text(value) != text or (size is not None and len(value) != size):
        raise SignatureError(f"the {what} is not the base64 of {size or 'its'} bytes")
    return value
