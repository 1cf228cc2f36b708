"""What a client's statement of a final period must say, from the period's settlement and its events."""

from __future__ import annotations

from collections.abc import Sequence

from rewards.audit.hashing import Document
from rewards.audit.settlement.document import ExpectedSettlement

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


def statement(period: Document, settlement: ExpectedSettlement, moves: Sequence[Document], client: str) -> Document:
    """The statement of a client, but for whose it is and for the number of receipts.

    Args:
        period: document of the final period.
        settlement: its settlement.
        moves: its events up to the one that made it final.
        client: whose line.
    """
    line, told = settlement.lines[client], settlement.document
    is_first = settlement.rule == 1
    standing = {} if is_first else {"standing": _standing(settlement, client)}
    return {
        "schema": f"protoken.statement/{3 if 'sampling' in told else 1 if is_first else 2}",
        "period": settlement.name,
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
        **{name: str(told[name]) for name in ("tokens", "pool", "fee", "distributable")},
        **{name: settlement.policy[name] for name in ("currency", "minor_digits")},
        "settlement_sha256": settlement.sha256,
        "late_credit": line["late"],
        **{name: line[name] for name in ("credit", "held_credit", "share", "residue")},
        "money": {name: str(line[name]) for name in (*_MONEY, *(() if is_first else ("recovered",)))},
        "held_total": str(line["held_total"]),
        "holdbacks": [{**each, "amount": str(each["amount"])} for each in line["holdbacks"]],
        **standing,
        **(_sampling(told["sampling"], client) if "sampling" in told else {}),
    }


def _sampling(sampling: Document, client: str) -> Document:
    """What a client is told of the responses that were not measured."""
    measured, pending = (sum(each[name] for each in sampling["strata"]) for name in ("measured", "pending"))
    return {
        "sampling": {
            "responses": measured + pending,
            "measured_responses": measured,
            "pending_credit": str(sum(int(each["pending_credit"]) for each in sampling["strata"])),
            "settled_credit": sampling["settled"].get(client, "0"),
            "standard_error": sampling["standard_errors"].get(client, "0.000000000000"),
            "untold_credit": sampling["untold_credit"],
        }
    }


def _standing(settlement: ExpectedSettlement, client: str) -> list[Document]:
    """What stands for the client in each other currency, in their order; nothing where nothing does."""
    entries = []
    for (code, digits), purse in sorted(settlement.standing.items()):
        if client in purse.accounts:
            own = purse.accounts[client]
            amounts = {name: str(getattr(own, name)) for name in ("residue", "carry", "held", "clawback")}
            holdbacks = [{"released_in": each, "amount": str(own.holdbacks[each])} for each in sorted(own.holdbacks)]
            entries.append({"currency": code, "minor_digits": digits, **amounts, "holdbacks": holdbacks})
    return entries
