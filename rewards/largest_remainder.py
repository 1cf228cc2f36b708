"""Exact division of whole units, and who gets the one that is left over. Knows no float, no credit and no money."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256


def divide(total: int, weights: Mapping[str, int], salt: str) -> dict[str, int]:
    """Split `total` in proportion to integer weights ≥ 0, by largest remainder; of any size.

    Each account gets the whole part of its exact quota; the units left over go one each to the largest remainders. The
    result sums to `total`, is within one of each exact quota, and gives a weight of zero exactly zero.
    At least one weight must be positive.
    """
    whole = sum(weights.values())
    assert total >= 0 and whole > 0 and min(weights.values()) >= 0
    amounts, remainders = {}, {}
    for account, weight in weights.items():
        amounts[account], remainders[account] = divmod(total * weight, whole)
    spare = total - sum(amounts.values())
    if spare:
        for account in largest_first(remainders, salt)[:spare]:
            amounts[account] += 1
    assert sum(amounts.values()) == total
    return amounts


def largest_first(numbers: Mapping[str, int], salt: str) -> list[str]:
    """Accounts by number, largest first; equal ones by SHA-256(salt, 0x00, account), so that no name is favoured."""
    return sorted(numbers, key=lambda account: (-numbers[account], _tie_break(salt, account), account))


def _tie_break(salt: str, account: str) -> bytes:
    return sha256(salt.encode() + b"\x00" + account.encode()).digest()
