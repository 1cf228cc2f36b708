"""Which responses are measured: a keyed hash of a response's id, held against a fraction. Pure; knows no database.

A response is measured if and only if

    HMAC-SHA256(key, response id as UTF-8), as a big-endian number, * 1 000 000 < fraction in millionths * 2^256

so each is with the same probability, whatever it says and whoever asked. Without the key nobody can tell beforehand;
with it, once it is revealed, everybody can check it. What a receipt says of it stands in its measurement, as
`"sampling": {"fraction": "0.1", "key_sha256": …, "measured": …}`; of a consortium that measures everything it says
nothing, as receipts always did.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from hashlib import sha256
from typing import Any

from rewards.credit import SAMPLING
from rewards.errors import CreditError

WHOLE = 1_000_000
"""The fraction 1 in millionths: everything is measured."""
KEY_BYTES = 32
_DIGITS = 6
_HASH_BITS = 256


def is_measured(response_id: str, key: bytes, millionths: int) -> bool:
    """Whether a response is measured, by the rule above."""
    digest = hmac.digest(key, response_id.encode(), "sha256")
    return int.from_bytes(digest, "big") * WHOLE < millionths << _HASH_BITS


def millionths_of(fraction: Decimal | int | str) -> int:
    """A fraction in millionths.

    Raises:
        CreditError: it is no decimal above 0 and up to 1 with at most 6 digits after the point.
    """
    try:
        scaled = Decimal(fraction).scaleb(_DIGITS)
        if scaled == scaled.to_integral_value() and 0 < scaled <= WHOLE:
            return int(scaled)
    except InvalidOperation:
        pass
    raise CreditError(f"credit fraction must be above 0 and up to 1 with at most {_DIGITS} digits, not {fraction!r}")


def fraction_text(millionths: int) -> str:
    """The one spelling of a fraction: "0.1", "1"."""
    whole, rest = divmod(millionths, WHOLE)
    return f"{whole}.{rest:0{_DIGITS}}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class SamplingRule:
    """What decides for one consortium at one time; the default measures everything.

    Attributes:
        millionths: the credit fraction.
        key: 32 secret bytes; None where everything is measured. It is not shown, and must not be logged.

    Raises:
        CreditError: the fraction is not above 0 and up to 1, or lacks a key of 32 bytes, or has one that it needs not.
    """

    millionths: int = WHOLE
    key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if type(self.millionths) is not int or not 0 < self.millionths <= WHOLE:
            raise CreditError(f"credit fraction must be 1 to {WHOLE} millionths, not {self.millionths!r}")
        if (self.key is None) != (self.millionths == WHOLE) or (self.key is not None and len(self.key) != KEY_BYTES):
            raise CreditError(f"a credit fraction below 1 needs a key of {KEY_BYTES} bytes, and 1 needs none")

    @property
    def fraction(self) -> str:
        """The credit fraction as decimal text."""
        return fraction_text(self.millionths)

    @property
    def key_sha256(self) -> str | None:
        """What the books commit to: SHA-256 (hex) of the key; None without one."""
        return None if self.key is None else sha256(self.key).hexdigest()

    def is_measured(self, response_id: str) -> bool:
        """Whether a response is measured."""
        return self.key is None or is_measured(response_id, self.key, self.millionths)

    def evidence(self, response_id: str) -> Mapping[str, Any]:
        """What the measurement of the response's receipt says of it; nothing where everything is measured."""
        if self.key is None:
            return {}
        chosen = {"fraction": self.fraction, "key_sha256": self.key_sha256, "measured": self.is_measured(response_id)}
        return {SAMPLING: chosen}
