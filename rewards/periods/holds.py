"""Holds: what is not to be paid for the time being, a client's payout or the credit of one response. Pays nothing.

A hold lasts until it is released. What it means for a period is said where periods are settled: a held response's
credit counts in the period that is settled next after its release, a held client's payout waits.
"""

from __future__ import annotations

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards import periods
from rewards.errors import HoldError
from rewards.ledger.ledger import Ledger
from rewards.periods.history import History, Hold, read_history, read_holds
from rewards.periods.period_totals import period_of_receipt
from rewards.periods.transitions import mark_disputed
from rewards.store import clients, events
from rewards.store.reasons import require_reason
from rewards.store.tables import ReceiptRow

KINDS = ("client", "response")


def place(ledger: Ledger, kind: str, target: str, reason: str, actor: str) -> str:
    """Hold a client's payouts or a response's credit; a draft period that it touches becomes disputed.

    Args:
        ledger: the ledger.
        kind: "client" or "response".
        target: id of a registered client, or of a booked response.
        reason: why, for whoever reads the books.
        actor: who says so: a key id, or "command line".

    Returns:
        The id of the hold, for its release.

    Raises:
        HoldError: another kind, an unknown target, one that is held already, a response that is reversed or paid for
            already, or a reason that says nothing or is too long.
    """
    if kind not in KINDS:
        raise HoldError(f"a hold is on a {' or a '.join(KINDS)}, not on a {kind!r}")
    require_reason(reason, HoldError)
    with ledger.database.write() as connection:
        history = read_history(connection)
        for hold in history.holds:
            if (hold.kind, hold.target, hold.released_at_us) == (kind, target, None):
                raise HoldError(f"{kind} {target!r} is held already, by {hold.hold_id}: {hold.reason}")
        touched = (
            _client_draft(connection, history, target) if kind == "client" else _draft(connection, history, target)
        )
        hold_id = f"hold-{len(history.holds) + 1}"
        document = {"kind": kind, "target": target, "reason": reason}
        events.record(connection, "hold.placed", hold_id, actor, document, once=f"hold.placed:{hold_id}")
        if touched is not None and touched.state == "draft":
            mark_disputed(connection, touched.name, f"{hold_id} was placed on {kind} {target}: {reason}", actor)
    return hold_id


def release(ledger: Ledger, hold_id: str, reason: str, actor: str) -> None:
    """End a hold, once.

    Raises:
        HoldError: there is no such hold, it was released before, or the reason says nothing or is too long.
    """
    require_reason(reason, HoldError)
    with ledger.database.write() as connection:
        known = {hold.hold_id: hold for hold in read_holds(connection)}
        if hold_id not in known:
            placed = [hold.hold_id for hold in known.values() if hold.released_at_us is None]
            raise HoldError(f"there is no hold {hold_id!r}; active are: {', '.join(placed) or 'none'}")
        if known[hold_id].released_at_us is not None:
            raise HoldError(f"{hold_id} was released before")
        events.record(connection, "hold.released", hold_id, actor, {"reason": reason}, once=f"hold.released:{hold_id}")


def active_holds(connection: Connection) -> tuple[Hold, ...]:
    """The holds that are not released, in the order of placing."""
    return tuple(hold for hold in read_holds(connection) if hold.released_at_us is None)


def all_holds(ledger: Ledger) -> tuple[Hold, ...]:
    """Every hold, released ones too, in the order of placing."""
    with ledger.database.read() as connection:
        return read_holds(connection)


def _client_draft(connection: Connection, history: History, client: str) -> periods.Period | None:
    """The last period, which a hold on a registered client touches while it is a draft."""
    known = [each for members in clients.registrations(connection).values() for each in members]
    if client not in known:
        raise HoldError(f"no client {client!r} is registered; registered are: {', '.join(known) or 'none'}")
    return history.periods[-1] if history.periods else None


def _draft(connection: Connection, history: History, response_id: str) -> periods.Period | None:
    """The period in which a response counts that can still be held; None while it counts in none."""
    query = select(col(ReceiptRow.sequence), col(ReceiptRow.kind)).where(col(ReceiptRow.response_id) == response_id)
    row = connection.execute(query).one_or_none()
    if row is None or row.kind != "response":
        raise HoldError(f"no response {response_id!r} is booked that could be held")
    reversal = select(col(ReceiptRow.sequence)).where(col(ReceiptRow.reverses) == response_id)
    if connection.execute(reversal).one_or_none() is not None:
        raise HoldError(f"response {response_id!r} is reversed already; there is nothing left to hold")
    period = period_of_receipt(row.sequence, history.periods)
    if period is not None and period.final is not None:
        raise HoldError(
            f"response {response_id!r} was settled in period {period.name!r}, which is {period.state}: reverse it "
            "instead, and its payout is taken back in the next period"
        )
    return period
