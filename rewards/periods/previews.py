"""What a preview shows: a settlement that nobody wrote, beside another. Settles nothing."""

from __future__ import annotations

from dataclasses import dataclass

from rewards.periods.history import Period
from rewards.settlement.document import Settlement


@dataclass(frozen=True)
class Preview:
    """What a close, or of a draft the finalising, would store at this moment.

    Attributes:
        settlement: the settlement.
        compared_with: what it is compared with, as in "draft of 2026-11"; None when there is nothing to compare with.
        difference: account -> minor units that its payout is above (or, negative, below) that.
        final_from_us: from when on it could be made final: a draft after its dispute days, which for what is no draft
            yet begin when it would be closed.
        taken_as_final: the draft before it that is taken as finalised at the moment that is rehearsed; None where none
            is.
    """

    settlement: Settlement
    compared_with: str | None
    difference: dict[str, int]
    final_from_us: int
    taken_as_final: str | None = None


def compare(settlement: Settlement, other: Period | None, what: str, final_from_us: int) -> Preview:
    """A settlement beside another period's, or beside its own draft, where the currency is the same."""
    if other is None or other.settlement.policy.money != settlement.policy.money:
        return Preview(settlement, None, {}, final_from_us)
    before = {line.account: line.payout for line in other.settlement.lines}
    now = {line.account: line.payout for line in settlement.lines}
    difference = {
        account: now.get(account, 0) - before.get(account, 0) for account in sorted(before.keys() | now.keys())
    }
    return Preview(settlement, f"{what} {other.name}", difference, final_from_us)
