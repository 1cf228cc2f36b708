"""Whole minor units whose roundings never add up against a client. Knows no policy."""

from __future__ import annotations

from collections.abc import Mapping

from rewards.credit import COMMONS
from rewards.largest_remainder import largest_first

UNIT = 10**12
"""Trillionths in a minor unit of the currency: entitlements and residues are integers of trillionths."""


def whole_units(entitlements: Mapping[str, int], residues: Mapping[str, int], salt: str) -> dict[str, int]:
    """Minor units for each account, by largest remainder with the residues of earlier periods carried.

    What an account is entitled to beyond whole units, and its residue, together are its standing. Units that remain
    after everybody got the whole part of the entitlement go one each: first to every client whose standing is one unit
    or more, then to the largest standings above zero, the commons among them; equal standings are ordered as
    `largest_remainder` does. The commons absorbs the difference to the sum, so that it alone may get more than the next
    unit, or less than none. Without residues this is the plain largest remainder.

    Proof that every client gets its entitlement rounded down or up, and that its residue stays below one unit: let
    |r| < 1 be the residue and 0 ≤ f < 1 the fraction of the entitlement, s = r + f. Rounded down, the residue becomes
    s ≥ r > -1, which is below 1 unless s ≥ 1: those are rounded up. Rounded up, it becomes s - 1 < r < 1, which is
    above -1 unless s ≤ 0: those are rounded down. Without a fraction s = r, and the entitlement is paid as it is.

    Args:
        entitlements: account -> trillionths ≥ 0, the commons among them; they sum to whole units.
        residues: account -> trillionths owed to it from earlier, below one unit either way for clients; 0 if absent.
        salt: of the tie-break.

    Returns:
        Account -> minor units, in the order of `entitlements`, which sum to the entitlements.
    """
    total, fraction = divmod(sum(entitlements.values()), UNIT)
    assert fraction == 0
    units = {account: entitlement // UNIT for account, entitlement in entitlements.items()}
    standings = {account: residues.get(account, 0) + each % UNIT for account, each in entitlements.items()}
    open_clients = [account for account, each in entitlements.items() if account != COMMONS and each % UNIT]
    forced = [client for client in open_clients if standings[client] >= UNIT]
    free = {client: standings[client] for client in open_clients if 0 < standings[client] < UNIT}
    free[COMMONS] = standings[COMMONS]
    spare = max(0, total - sum(units.values()) - len(forced))
    for account in [*forced, *largest_first(free, salt)[:spare]]:
        units[account] += 1
    units[COMMONS] += total - sum(units.values())
    return units
