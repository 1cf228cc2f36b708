"""What each client is told of a final period: one event `statement` for every registered client, paid or not.

The event's document is the body of the client's statement; it speaks of that client and of sums, of no other client.
Credit, tokens and money are decimal text, as readers of JSON lose integers beyond 2^53.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection

from rewards.files.strict_json import JsonObject
from rewards.periods.history import Period
from rewards.settlement.document import FIRST_RULE, Settlement
from rewards.settlement.lines import Line
from rewards.settlement.pending import NO_ERROR, Sampling
from rewards.store import clients, events

STATEMENT_KIND = "statement"
SCHEMA = "protoken.statement/2"
SAMPLED_SCHEMA = "protoken.statement/3"
"""Of periods in which responses were pending: as the second, with `sampling`."""
FIRST_SCHEMA = "protoken.statement/1"
"""Of periods that were settled by the first rule: without `recovered`, and without `standing`."""
MONEY_IN = ("gross", "carried_in", "released_holdback", "released_hold", "drawn_holdback", "recovered")
"""Lines of money that come to a client, in minor units."""
MONEY_OUT = ("clawback", "holdback", "held", "payout", "carried_out")
"""Lines of money that leave it; both sum to the same."""


def record(connection: Connection, period: Period, receipts: Mapping[str, int], actor: str) -> None:
    """Write the statements of a final period, in the transaction that made it final.

    Args:
        connection: of `Database.write`.
        period: with its final settlement.
        receipts: account -> receipts that credit it in the period.
        actor: who made it final.
    """
    assert period.final is not None
    common = _common(period)
    lines = {line.account: line for line in period.final.lines}
    for client, (consortium, name) in _registrations(connection).items():
        whose = {"consortium": consortium, "client": client, "name": name}
        body = {**whose, **common, **_own(lines[client], common["schema"]), "receipts": receipts.get(client, 0)}
        if period.final.rule != FIRST_RULE:
            body["standing"] = _standing(period.final, client)
        if period.final.sampling is not None:
            body["sampling"] = _sampling(period.final.sampling, client)
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
    if settlement.sampling is not None:
        return SAMPLED_SCHEMA
    return FIRST_SCHEMA if settlement.rule == FIRST_RULE else SCHEMA


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


def _own(line: Line, schema: str) -> JsonObject:
    """What only this client is told."""
    return {
        "credit": str(line.credit),
        "late_credit": str(line.late),
        "held_credit": str(line.held_credit),
        "share": f"{line.share.numerator}/{line.share.denominator}",
        "money": {name: str(getattr(line, name)) for name in (*money_in(schema), *MONEY_OUT)},
        "held_total": str(line.held_total),
        "holdbacks": [{"released_in": ordinal, "amount": str(amount)} for ordinal, amount in line.holdbacks],
        "residue": str(line.residue),
    }
