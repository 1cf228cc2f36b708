"""What each client is told of a final period: one event `statement` for every registered client, paid or not.

The event's document is the body of the client's statement; it speaks of that client and of sums, of no other client.
Credit, tokens and money are decimal text, as readers of JSON lose integers beyond 2^53.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from rewards.credit import MICRO_CREDITS_PER_TOKEN
from rewards.files.strict_json import JsonObject
from rewards.periods.history import Period
from rewards.periods.period_totals import PeriodContents, ReversedResponse
from rewards.settlement.account_line import Line
from rewards.settlement.document import FIRST_RULE, Settlement
from rewards.settlement.pending import NO_ERROR, Sampling
from rewards.store import clients, events

STATEMENT_KIND = "statement"
SCHEMA = "protoken.statement/4"
"""Explains itself: says what its shares and parts are of, the policy, reversed responses, claw-backs and rounding."""
FIRST_SCHEMA = "protoken.statement/1"
"""Of periods that were settled by the first rule: without `recovered`, and without `standing`."""
SECOND_SCHEMA = "protoken.statement/2"
"""Of periods of the second rule before statements explained themselves; what it calls share is the part of now."""
SAMPLED_SCHEMA = "protoken.statement/3"
"""As the second, with `sampling`: of periods in which responses were pending."""
SCHEMAS = (FIRST_SCHEMA, SECOND_SCHEMA, SAMPLED_SCHEMA, SCHEMA)
MONEY_IN = ("gross", "carried_in", "released_holdback", "released_hold", "drawn_holdback", "recovered")
"""Lines of money that come to a client, in minor units."""
MONEY_OUT = ("clawback", "holdback", "held", "payout", "carried_out")
"""Lines of money that leave it; both sum to the same."""
SHARE_OF = "all credit of the period, that of the commons included"
"""What the share of a statement is of; it is told of no money."""
PART_OF = "what is distributable, by the policy's allocation and within its caps"
"""What the part of a statement is of."""
ROUNDING = {
    "pool": "a price is rounded down, and the rest carried",
    "fee": "rounded down, and the rest carried",
    "part": "largest remainder, in trillionths of a minor unit",
    "gross": "largest remainder, with what earlier periods' rounding owes",
    "holdback": "rounded down",
}
"""By which rule what is rounded, to whole minor units where nothing else is said."""
_OF_OTHERS = ("caps", "fees")  # of a policy: they speak of other clients, and of applications


def record(
    connection: Connection, period: Period, earlier: tuple[Period, ...], contents: PeriodContents, actor: str
) -> None:
    """Write the statements of a final period, in the transaction that made it final.

    Args:
        connection: of `Database.write`.
        period: with its final settlement.
        earlier: every period before.
        contents: what it was settled over.
        actor: who made it final.
    """
    assert period.final is not None
    common = _common(period)
    lines = {line.account: line for line in period.final.lines}
    for client, (consortium, name) in _registrations(connection).items():
        whose = {"consortium": consortium, "client": client, "name": name}
        body = {**whose, **common, **_own(lines[client]), "receipts": contents.receipts.get(client, 0)}
        if period.final.rule == FIRST_RULE:
            body |= _first_own(lines[client], period.final, client)
        else:
            body |= _told_terms(period, earlier, lines[client], contents.reversals.get(client, ()))
        subject = f"{period.name}/{client}"
        events.record(connection, STATEMENT_KIND, subject, actor, body, once=f"{STATEMENT_KIND}:{subject}")


def _registrations(connection: Connection) -> dict[str, tuple[str, str]]:
    """Client -> its consortium and display name; one who is in several consortia has one account, and both named."""
    registrations: dict[str, tuple[str, str]] = {}
    for consortium, members in clients.registrations(connection).items():
        for client, name in members.items():
            others, first = registrations.get(client, ("", name))
            registrations[client] = (f"{others}, {consortium}" if others else consortium, first)
    return registrations


def _common(period: Period) -> JsonObject:
    """What every client of the period is told alike."""
    settlement = period.final
    assert settlement is not None
    return {
        "schema": _schema(settlement),
        "period": period.name,
        "ordinal": period.ordinal,
        "state": period.state,
        "window": {"after": period.window[0], "up_to": period.window[1]},
        "until_us": period.until_us,
        "closed_at_us": period.closed_at_us,
        "final_at_us": period.moves[-1].at_us,
        "moves": [
            {"state": move.kind.removeprefix("period."), "at_us": move.at_us, "actor": move.actor}
            for move in period.moves
        ],
        "tokens": str(settlement.tokens),
        "currency": settlement.policy.currency,
        "minor_digits": settlement.policy.minor_digits,
        "pool": str(settlement.pool),
        "fee": str(settlement.fee),
        "distributable": str(settlement.distributable),
        "settlement_sha256": settlement.sha256,
    }


def money_in(schema: str) -> tuple[str, ...]:
    """The lines of money that come to a client, in a statement of that schema."""
    return tuple(name for name in MONEY_IN if schema != FIRST_SCHEMA or name != "recovered")


def _schema(settlement: Settlement) -> str:
    if settlement.rule != FIRST_RULE:
        return SCHEMA
    return FIRST_SCHEMA if settlement.sampling is None else SAMPLED_SCHEMA


def _told_terms(
    period: Period, earlier: tuple[Period, ...], line: Line, reversals: Iterable[ReversedResponse]
) -> JsonObject:
    """What the client is told so that the statement needs nobody to explain it."""
    settlement, client = period.settlement, line.account
    policy = settlement.policy.model_dump(exclude_none=True)
    own = settlement.policy.model_copy(update={"cap_percent": settlement.policy.cap(client)})
    return {
        "money": {name: str(getattr(line, name)) for name in (*MONEY_IN, *MONEY_OUT)},
        "share": _fraction(line.credit, settlement.tokens * MICRO_CREDITS_PER_TOKEN, SHARE_OF),
        "part": _fraction(line.share.numerator, line.share.denominator, PART_OF),
        "policy": {name: value for name, value in policy.items() if name not in _OF_OTHERS},
        "cap_percent": own.model_dump()["cap_percent"],
        "clawbacks": _clawbacks(period, earlier, client),
        "reversed": [
            {"response_id": each.response_id, "period": each.period, "credit": str(each.credit)} for each in reversals
        ],
        "rounding": ROUNDING,
        "standing": _standing(settlement, client),
        "sampling": None if settlement.sampling is None else _sampling(settlement.sampling, client),
    }


def _fraction(numerator: int, denominator: int, of: str) -> JsonObject:
    return {"numerator": str(numerator), "denominator": str(denominator), "of": of}


def _clawbacks(period: Period, earlier: Iterable[Period], client: str) -> list[JsonObject]:
    """What is taken back of the client, by the earlier period, each in the currency of that."""
    currencies = {each.name: each.settlement.policy.money for each in earlier}
    return [
        {
            "period": name,
            "currency": currencies[name].code,
            "minor_digits": currencies[name].digits,
            "amount": str(amounts[client]),
        }
        for name, amounts in sorted(period.clawbacks.items())
        if client in amounts
    ]


def _sampling(sampling: Sampling, client: str) -> JsonObject:
    """What was measured of how many, and what that leaves open of the client's share of the period's credit."""
    responses, measured = sampling.responses
    return {
        "responses": responses,
        "measured_responses": measured,
        "pending_credit": str(sampling.pending_credit),
        "settled_credit": str(sampling.settled.get(client, 0)),
        "standard_error": sampling.standard_errors.get(client, NO_ERROR),
        "untold_credit": str(sampling.untold_credit),
    }


def _standing(settlement: Settlement, client: str) -> list[JsonObject]:
    """What stands for the client in other currencies, each as `Purse` writes it down, money as text."""
    return [
        {
            "currency": currency.code,
            "minor_digits": currency.digits,
            "residue": str(balance.residue),
            "carry": str(balance.carry),
            "held": str(balance.held),
            "holdbacks": [{"released_in": ordinal, "amount": str(amount)} for ordinal, amount in balance.holdbacks],
            "clawback": str(balance.clawback),
        }
        for currency, purse in sorted(settlement.standing.items())
        if (balance := purse.open_balances.get(client)) is not None
    ]


def _own(line: Line) -> JsonObject:
    """What only this client is told, by either rule."""
    return {
        "credit": str(line.credit),
        "late_credit": str(line.late),
        "held_credit": str(line.held_credit),
        "held_total": str(line.held_total),
        "holdbacks": [{"released_in": ordinal, "amount": str(amount)} for ordinal, amount in line.holdbacks],
        "residue": str(line.residue),
    }


def _first_own(line: Line, settlement: Settlement, client: str) -> JsonObject:
    """What only this client is told of a period of the first rule, as it was told then."""
    body: JsonObject = {
        "share": f"{line.share.numerator}/{line.share.denominator}",
        "money": {name: str(getattr(line, name)) for name in (*money_in(_schema(settlement)), *MONEY_OUT)},
    }
    if settlement.sampling is not None:
        body["sampling"] = _sampling(settlement.sampling, client)
    return body
