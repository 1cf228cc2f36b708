"""What one account is paid: from its gross, with debts, holdbacks, holds and the minimum, to payout and balance.

Each completes a `Line` whose gross is known. Knows no other account.
"""

from __future__ import annotations

from dataclasses import replace

from rewards.errors import CreditError
from rewards.settlement.account_line import Line
from rewards.settlement.balances import Balance
from rewards.settlement.policy import Policy


def pay_client(
    line: Line,
    opening: Balance,
    clawback: int,
    *,
    ordinal: int,
    policy: Policy,
    on_hold: bool = False,
    recovered: int = 0,
) -> Line:
    """The line of a client, completed from its gross to its payout and to what it carries on.

    A claw-back or an old debt is set off against everything that falls due, then against the holdbacks still kept,
    oldest first; the rest is carried as a debt. What remains to be paid waits when the client is on hold, and is
    carried over when it is below the minimum.
    """
    released = sum(amount for release, amount in opening.holdbacks if release <= ordinal)
    released_hold = 0 if on_hold else opening.held
    holdback = int(line.gross * policy.holdback_percent // 100)
    payable = line.gross + opening.carry + released + released_hold + recovered - clawback - holdback
    kept = [each for each in opening.holdbacks if each[0] > ordinal]
    if holdback:
        kept.append((ordinal + policy.holdback_release_after, holdback))
    kept, drawn = _draw(sorted(kept), max(-payable, 0))
    payable += drawn
    held = max(payable, 0) if on_hold else 0
    payout = 0 if on_hold or payable < policy.least_payout else payable
    return replace(
        line,
        carried_in=opening.carry,
        released_holdback=released,
        released_hold=released_hold,
        drawn_holdback=drawn,
        recovered=recovered,
        clawback=clawback,
        holdback=holdback,
        held=held,
        payout=payout,
        carried_out=payable - held - payout,
        held_total=opening.held - released_hold + held,
        holdbacks=tuple(kept),
    )


def pay_commons(line: Line, opening: Balance, recovered: int) -> Line:
    """The line of the commons, completed: it has no minimum, no holdback and no hold.

    Where rounding in favour of the clients left it below zero, it owes those few units and makes them good first.
    """
    due = line.gross + opening.carry + recovered
    return replace(line, carried_in=opening.carry, recovered=recovered, payout=max(due, 0), carried_out=min(due, 0))


def clawback(line: Line, reversed_credit: int) -> int:
    """What the first rule takes back when `reversed_credit` of the credit that `line` paid for was reversed.

    The part of the gross that the credit earned, rounded down; never more than the gross, and 0 where nothing was paid.

    Raises:
        CreditError: the reversed credit is negative.
    """
    if reversed_credit < 0:
        raise CreditError(f"reversed credit of {line.account!r} must be at least 0, not {reversed_credit}")
    if line.gross <= 0 or line.credit <= 0:
        return 0
    return min(line.gross, reversed_credit * line.gross // line.credit)


def _draw(holdbacks: list[tuple[int, int]], wanted: int) -> tuple[list[tuple[int, int]], int]:
    """Holdbacks, oldest first, after up to `wanted` was drawn from them, and what was drawn."""
    kept: dict[int, int] = {}
    drawn = 0
    for release, amount in holdbacks:
        taken = min(amount, wanted - drawn)
        drawn += taken
        if amount > taken:
            kept[release] = kept.get(release, 0) + amount - taken
    return list(kept.items()), drawn
