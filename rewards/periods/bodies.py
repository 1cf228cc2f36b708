"""What each client is told of a final period: one event `statement` for every registered client, paid or not.

The event's document is the body of the client's statement; it speaks of that client and of sums, of no other client.
Credit, tokens and money are decimal text, as readers of JSON lose integers beyond 2^53.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rewards import clients, events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from rewards.periods.book import Period
    from rewards.settlement import Line

KIND = "statement"
SCHEMA = "protoken.statement/1"
MONEY_IN = ("gross", "carried_in", "released_holdback", "released_hold", "drawn_holdback")
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
    for client, (consortium, name) in _registered(connection).items():
        whose = {"consortium": consortium, "client": client, "name": name}
        body = {**whose, **common, **_own(lines[client]), "receipts": receipts.get(client, 0)}
        subject = f"{period.name}/{client}"
        events.record(connection, KIND, subject, actor, body, once=f"{KIND}:{subject}")


def _registered(connection: Connection) -> dict[str, tuple[str, str]]:
    """Client -> its consortium and display name; one who is in several consortia has one account, and both named."""
    found: dict[str, tuple[str, str]] = {}
    for consortium, members in clients.registered(connection).items():
        for client, name in members.items():
            others, first = found.get(client, ("", name))
            found[client] = (f"{others}, {consortium}" if others else consortium, first)
    return found


def _common(period: Period) -> dict[str, Any]:
    """What every client of the period is told alike."""
    settlement = period.final
    assert settlement is not None
    return {
        "schema": SCHEMA,
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


def _own(line: Line) -> dict[str, Any]:
    """What only this client is told."""
    return {
        "credit": str(line.credit),
        "late_credit": str(line.late),
        "held_credit": str(line.held_credit),
        "share": f"{line.share.numerator}/{line.share.denominator}",
        "money": {name: str(getattr(line, name)) for name in (*MONEY_IN, *MONEY_OUT)},
        "held_total": str(line.held_total),
        "holdbacks": [{"released_in": ordinal, "amount": str(amount)} for ordinal, amount in line.holdbacks],
        "residue": str(line.residue),
    }
