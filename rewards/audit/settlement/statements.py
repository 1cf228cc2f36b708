"""What a client's statement of a final period must say, from the period's settlement and its events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

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


_ROUNDING = {
    "fee": "rounded down, and the rest carried",
    "gross": "largest remainder, with what earlier periods' rounding owes",
    "holdback": "rounded down",
    "part": "largest remainder, in trillionths of a minor unit",
    "pool": "a price is rounded down, and the rest carried",
}
_SHARE_OF = "all credit of the period, that of the commons included"
_PART_OF = "what is distributable, by the policy's allocation and within its caps"

Reversals = Sequence[tuple[int, str, str, Mapping[str, int]]]
Currencies = Mapping[str, tuple[str, int]]


def statement(
    period: Document,
    settlement: ExpectedSettlement,
    moves: Sequence[Document],
    client: str,
    reversals: Reversals,
    currencies: Currencies,
    *,
    is_explained: bool,
) -> Document:
    """The statement of a client, but for whose it is and for the number of receipts.

    Args:
        period: document of the final period.
        settlement: its settlement.
        moves: its events up to the one that made it final.
        client: whose line.
        reversals: that count in the period, as `Count` has them.
        currencies: earlier period -> the currency that it was settled in.
        is_explained: whether it is of the fourth schema, which explains itself; the first rule had none of those.
    """
    told = settlement.document
    common = {
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
        **_own(settlement, client),
    }
    if not is_explained:
        return {**common, **_before(settlement, client)}
    return {
        **common,
        **_told_terms(settlement, client),
        "clawbacks": _clawbacks(period, client, currencies),
        "reversed": [
            {"response_id": response, "period": name or settlement.name, "credit": str(taken[client])}
            for _, response, name, taken in reversals
            if client in taken
        ],
    }


def _own(settlement: ExpectedSettlement, client: str) -> Document:
    line = settlement.lines[client]
    return {
        "late_credit": line["late"],
        **{name: line[name] for name in ("credit", "held_credit", "residue")},
        "money": {name: str(line[name]) for name in (*_MONEY, *(() if settlement.rule == 1 else ("recovered",)))},
        "held_total": str(line["held_total"]),
        "holdbacks": [{**each, "amount": str(each["amount"])} for each in line["holdbacks"]],
    }


def _before(settlement: ExpectedSettlement, client: str) -> Document:
    """What statements had before they explained themselves."""
    told, is_first = settlement.document, settlement.rule == 1
    return {
        "schema": f"protoken.statement/{3 if 'sampling' in told else 1 if is_first else 2}",
        "share": settlement.lines[client]["share"],
        **({} if is_first else {"standing": _standing(settlement, client)}),
        **({"sampling": _sampling(told["sampling"], client)} if "sampling" in told else {}),
    }


def _told_terms(settlement: ExpectedSettlement, client: str) -> Document:
    """What a statement says of its period so that nobody need explain it."""
    told, line, policy = settlement.document, settlement.lines[client], settlement.policy
    numerator, _, denominator = line["share"].partition("/")
    return {
        "schema": "protoken.statement/4",
        "share": {"numerator": line["credit"], "denominator": str(told["tokens"] * 10**6), "of": _SHARE_OF},
        "part": {"numerator": numerator, "denominator": denominator, "of": _PART_OF},
        "policy": {name: policy[name] for name in policy if name not in ("caps", "fees")},
        "cap_percent": policy["caps"].get(client, policy["cap_percent"]),
        "rounding": _ROUNDING,
        "standing": _standing(settlement, client),
        "sampling": _sampling(told["sampling"], client) if "sampling" in told else None,
    }


def _clawbacks(period: Document, client: str, currencies: Currencies) -> list[Document]:
    """What is taken back of the client, an entry for each earlier period, in the order of their names."""
    return [
        {
            "period": name,
            "currency": currencies[name][0],
            "minor_digits": currencies[name][1],
            "amount": str(period["clawbacks"][name][client]),
        }
        for name in sorted(period["clawbacks"])
        if client in period["clawbacks"][name]
    ]


def _sampling(sampling: Document, client: str) -> Document:
    """What a client is told of the responses that were not measured."""
    measured, pending = (sum(each[name] for each in sampling["strata"]) for name in ("measured", "pending"))
    return {
        "responses": measured + pending,
        "measured_responses": measured,
        "pending_credit": str(sum(int(each["pending_credit"]) for each in sampling["strata"])),
        "settled_credit": sampling["settled"].get(client, "0"),
        "standard_error": sampling["standard_errors"].get(client, "0.000000000000"),
        "untold_credit": sampling["untold_credit"],
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
