"""Dividing whole numbers, written a second time: the largest remainder, and whole units with residues carried.

Same words as `rewards.settlement.rounding`, no code in common. Knows no policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256

COMMONS = "commons"
TRILLION = 10**12


def divide(total: int, weights: Mapping[str, int], salt: str) -> dict[str, int]:
    """`total` in proportion to the weights; what is left goes one by one to the largest remainders."""
    whole = sum(weights.values())
    parts = {account: total * weight // whole for account, weight in weights.items()}
    remainders = {account: total * weight % whole for account, weight in weights.items()}
    while sum(parts.values()) < total:
        first = _first(remainders, salt)
        parts[first] += 1
        del remainders[first]
    return parts


def round_to_units(due: Mapping[str, int], residues: Mapping[str, int], salt: str) -> dict[str, int]:
    """Minor units for trillionths that are due, such that no client's residue reaches a unit; the rest is the commons'.

    A client that is due no fraction gets what it is due. Of the others, one whose fraction and residue make a unit or
    more gets one more; then the units that are left go to the largest sums of fraction and residue above zero, among
    which the commons stands with its own, whatever that is.
    """
    total = sum(due.values()) // TRILLION
    units = {account: amount // TRILLION for account, amount in due.items()}
    sums = {account: amount % TRILLION + residues[account] for account, amount in due.items()}
    broken = {account for account in due if account != COMMONS and due[account] % TRILLION}
    for client in broken:
        units[client] += sums[client] >= TRILLION
    waiting = {client: sums[client] for client in broken if 0 < sums[client] < TRILLION}
    waiting[COMMONS] = sums[COMMONS]
    while waiting and sum(units.values()) < total:
        first = _first(waiting, salt)
        units[first] += 1
        del waiting[first]
    units[COMMONS] += total - sum(units.values())
    return units


def _first(numbers: Mapping[str, int], salt: str) -> str:
    """The account with the largest number; of equal ones that with the smallest SHA-256(salt, 0x00, account)."""
    return min(
        numbers, key=lambda account: (-numbers[account], sha256(f"{salt}\0{account}".encode()).digest(), account)
    )
