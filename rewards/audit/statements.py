"""What a client's statement of a final period must say, from the period's settlement and its events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rewards.settlement import Settlement

_MONEY = (
    "gross",
    "carried_in",
    "released_holdback",
    "released_hold",
    "drawn_holdback",
    "clawback",
    "holdback",
    "held",
    "payout",
    "carried_out",
)


def statement(
    period: dict[str, Any], settlement: Settlement, moves: Sequence[dict[str, Any]], client: str
) -> dict[str, Any]:
    """The statement of a client, but for whose it is and for the number of receipts.

    Args:
        period: document of the final period.
        settlement: its settlement.
        moves: its events up to the one that made it final.
        client: whose line.
    """
    line = next(line for line in settlement.lines if line.account == client)
    is_first = settlement.rule == 1
    standing = {} if is_first else {"standing": _standing(settlement, client)}
    return {
        "schema": f"protoken.statement/{1 if is_first else 2}",
        "period": settlement.period,
        "ordinal": settlement.ordinal,
        "state": "final",
        "window": period["window"],
        "until_us": period["until_us"],
        "closed_at_us": moves[0]["at_us"],
        "final_at_us": moves[-1]["at_us"],
        "moves": [
            {"state": str(move["kind"]).removeprefix("period."), "at_us": move["at_us"], "actor": move["actor"]}
            for move in moves
        ],
        "tokens": str(settlement.tokens),
        "currency": settlement.policy.currency,
        "minor_digits": settlement.policy.minor_digits,
        "pool": str(settlement.pool),
        "fee": str(settlement.fee),
        "distributable": str(settlement.distributable),
        "settlement_sha256": settlement.sha256,
        "credit": str(line.credit),
        "late_credit": str(line.late),
        "held_credit": str(line.held_credit),
        "share": f"{line.share.numerator}/{line.share.denominator}",
        "money": {name: str(getattr(line, name)) for name in (*_MONEY, *(() if is_first else ("recovered",)))},
        "held_total": str(line.held_total),
        "holdbacks": [{"released_in": ordinal, "amount": str(amount)} for ordinal, amount in line.holdbacks],
        "residue": str(line.residue),
        **standing,
    }


def _standing(settlement: Settlement, client: str) -> list[dict[str, Any]]:
    """What stands for the client in each other currency, in their order; nothing where nothing does."""
    found = []
    for currency in sorted(settlement.standing):
        balance = settlement.standing[currency].balances.get(client)
        if balance is not None:
            amounts = {name: str(getattr(balance, name)) for name in ("residue", "carry", "held", "clawback")}
            holdbacks = [{"released_in": ordinal, "amount": str(amount)} for ordinal, amount in balance.holdbacks]
            found.append({"currency": currency[0], "minor_digits": currency[1], **amounts, "holdbacks": holdbacks})
    return found
