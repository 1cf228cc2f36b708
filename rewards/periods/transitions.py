"""The moves of a period: previewed at will, closed once as a draft, disputed, made final, paid. Their only writer.

Knows when a move is possible and what is settled over; how is `rewards.settlement.settle`'s business. Each move is one
event, with who made it and when. What takes long, adding up a window, is done before the ledger is held for writing,
and again only if a period, a hold or the clients have changed meanwhile; a window that is fixed by sequence numbers
cannot.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from rewards.errors import PeriodEmptyError, PeriodError, PeriodMovedError
from rewards.ledger.ledger import Ledger
from rewards.moments import DAY_US, Clock, text_of
from rewards.periods import policy_fit, statement_bodies
from rewards.periods.errors import PeriodClosedError
from rewards.periods.history import History, Period, add_hash, read_history, read_period
from rewards.periods.period_end import freeze, time_closed_us
from rewards.periods.preparation import PreparedSettlement, prepare_settlement, settle_again, take_as_final
from rewards.periods.previews import Preview, compare
from rewards.sampled_credit import keys
from rewards.settlement.document import Settlement
from rewards.settlement.policy import MOST_DISPUTE_DAYS, Policy
from rewards.store import clients, events
from rewards.store.database import now_us
from rewards.store.reasons import MOST_CHARACTERS, is_telling, require_reason

POSSIBLE = {"draft": ("disputed", "finalised"), "disputed": ("finalised",), "final": ("paid",), "paid": ()}
"""State -> what can be done with a period in it."""
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
"""What a period may be called."""


def preview(
    ledger: Ledger, name: str, policy: Policy, until_us: int | None = None, *, at_us: int | None = None
) -> Preview:
    """What `close` would store at this moment, or `finalise` if the period is a draft. Writes nothing.

    Args and errors are those of `close`; a draft keeps its own policy and its own end. With `at_us` it is rehearsed for
    a moment to come, as if nothing more were booked until then; a draft before it whose dispute days are over by then
    is taken as finalised at that moment, with the holds of now.

    Raises:
        PeriodClosedError: the period is final.
        PeriodError: also where `at_us` is over.
    """
    with ledger.database.read() as connection:
        history = read_history(connection)
        now = now_us(connection)
        if at_us is not None and at_us < now:
            raise PeriodError(f"only a moment to come can be rehearsed, and {text_of(at_us)} is over")
        period = history.find(name)
        if period is None:
            history, finalised = (history, None) if at_us is None else _rehearse_final(connection, history, name, at_us)
            draft = _draft(connection, history, name, policy, until_us, at_us)
            final_from_us = (now if at_us is None else at_us) + _dispute_us(policy)
            before = history.before(draft.ordinal)
            return replace(compare(draft.settlement, before, "final of", final_from_us), taken_as_final=finalised)
        if period.final is not None:
            raise _already_closed(period)
        final_from_us = _final_from_us(connection, period, now)
        return compare(settle_again(connection, history, period).settlement, period, "draft of", final_from_us)


def close(
    ledger: Ledger,
    name: str,
    policy: Policy,
    actor: str,
    until_us: int | None = None,
    *,
    expected: str | None = None,
) -> Settlement:
    """Settle what was booked since the last closed period, and keep it as a draft, or as final without dispute days.

    Of any number of closers exactly one wins.

    Args:
        ledger: the ledger.
        name: letters, digits, dot, dash and underscore, at most 64, as in "2026-11".
        policy: what to settle by.
        actor: who closes: a key id, or "command line".
        until_us: the end of the period in microseconds since 1970; this moment when None. What was made before it and
            booked within the policy's grace hours is in, what was made later is the next period's.
        expected: SHA-256 of the settlement that a preview showed; None takes whatever it comes to.

    Raises:
        PeriodClosedError: the name is closed already; carries the stored settlement.
        PeriodEmptyError: no receipt counts in the window, and nothing falls due, now or later; or the policy has a
            `pool`, which the commons would have whole.
        PeriodMovedError: it comes to another settlement than was expected; nothing is written.
        PeriodError: the name is not valid, the period before is not final, or the grace hours are not over.
        PolicyError: the policy names a client or an application that the ledger does not know.
        LedgerError: the entries of the window do not sum to its tokens; somebody wrote past the ledger.
    """

    def prepare(connection: Connection, history: History) -> PreparedSettlement:
        return _draft(connection, history, name, policy, until_us)

    def write(connection: Connection, history: History, prepared: PreparedSettlement) -> None:
        _record_draft(connection, history, name, actor, prepared)
        if policy.dispute_days == 0:
            _record_final(connection, history, name, actor, prepared)

    return _write(ledger, prepare, write, expected)


def finalise(ledger: Ledger, name: str, actor: str, *, expected: str | None = None) -> Settlement:
    """Settle a draft's window again with the holds of this moment, make that final, and write every client's statement.

    Raises:
        PeriodMovedError: it comes to another settlement than was expected (as in `close`); nothing is written.
        PeriodError: there is no such draft, or its dispute days are not over.
    """

    def prepare(connection: Connection, history: History) -> PreparedSettlement:
        period = _require(history, name, "finalised")
        now = now_us(connection)
        opens_us = _final_from_us(connection, period, now)
        if now < opens_us:
            raise PeriodError(f"period {name!r} may be disputed until {text_of(opens_us)}, and finalised from then on")
        return settle_again(connection, history, period)

    def write(connection: Connection, history: History, prepared: PreparedSettlement) -> None:
        _record_final(connection, history, name, actor, prepared)

    return _write(ledger, prepare, write, expected)


def dispute(ledger: Ledger, name: str, reason: str, actor: str) -> None:
    """Mark a draft as disputed.

    Raises:
        PeriodError: there is no such draft, it is disputed already, or the reason says nothing or is too long.
    """
    require_reason(reason, PeriodError)
    with ledger.database.write() as connection:
        _require(read_history(connection), name, "disputed")
        mark_disputed(connection, name, reason, actor)


def pay(ledger: Ledger, name: str, reference: str, actor: str) -> None:
    """Note that a final period was paid.

    Args:
        ledger: the ledger.
        name: the period's name.
        reference: by which the payment is found elsewhere, as in a bank's number.
        actor: who says so.

    Raises:
        PeriodError: the period is not final or is paid already, or the reference says nothing or is too long.
    """
    if not is_telling(reference) or len(reference) > MOST_CHARACTERS:
        raise PeriodError(
            "reference must be printable text by which the payment is found, of at most"
            f" {MOST_CHARACTERS} characters, not {reference!r}"
        )
    with ledger.database.write() as connection:
        _require(read_history(connection), name, "paid")
        events.record(connection, "period.paid", name, actor, {"reference": reference}, once=f"period.paid:{name}")


def mark_disputed(connection: Connection, name: str, reason: str, actor: str) -> None:
    """Write the event; whether the move is possible, the caller has seen in the same transaction."""
    events.record(connection, "period.disputed", name, actor, {"reason": reason}, once=f"period.disputed:{name}")


def _write(
    ledger: Ledger,
    prepare: Callable[[Connection, History], PreparedSettlement],
    write: Callable[[Connection, History, PreparedSettlement], None],
    expected: str | None,
) -> Settlement:
    with ledger.database.read() as connection:
        earlier, members = read_history(connection), clients.in_order(connection)
        prepared = prepare(connection, earlier)
    with ledger.database.write() as connection:
        history = read_history(connection)
        if history.last_event != earlier.last_event or clients.in_order(connection) != members:
            prepared = prepare(connection, history)  # a client that came meanwhile has a line, and a statement, too
        if expected not in (None, prepared.settlement.sha256):
            name = prepared.settlement.period
            raise PeriodMovedError(f"period {name!r} comes to another settlement by now than was expected; look again")
        write(connection, history, prepared)
    return prepared.settlement


def _draft(
    connection: Connection,
    history: History,
    name: str,
    policy: Policy,
    until_us: int | None,
    at_us: int | None = None,
) -> PreparedSettlement:
    """The next period, settled as of now, or of a moment that is rehearsed."""
    if re.fullmatch(NAME, name) is None:
        raise PeriodError(f"period name {name!r} must be 1 to 64 letters, digits, dots, dashes or underscores")
    period = history.find(name)
    if period is not None:
        raise _already_closed(period)
    previous = history.periods[-1] if history.periods else None
    if previous is not None and previous.final is None:
        raise PeriodError(
            f"period {name!r} cannot be closed while {previous.name!r} before it is {previous.state}: "
            "finalise that first"
        )
    policy_fit.require_fit(connection, policy)
    frame = freeze(connection, previous, policy, until_us, at_us)
    prepared = prepare_settlement(connection, history, name, len(history.periods) + 1, frame, policy)
    moment = "" if until_us is None else f" that was made before {text_of(until_us)}"
    if prepared.is_empty:
        what = "all responses are held that were" if prepared.contents.left_out else "nothing was"
        raise PeriodEmptyError(
            f"period {name!r} is empty: {what} booked since receipt {frame.after}{moment}, and nothing in "
            f"{policy.currency} falls due"
        )
    if policy.pool and prepared.contents.is_empty:
        raise PeriodEmptyError(
            f"period {name!r} would pay nobody but the commons: no response counts that was booked since receipt "
            f"{frame.after}{moment}; with pool: 0 it pays what falls due"
        )
    return prepared


def _rehearse_final(connection: Connection, history: History, name: str, at_us: int) -> tuple[History, str | None]:
    """The history as it would be if the last draft were finalised at a moment to come, and that draft's name."""
    previous = history.periods[-1] if history.periods else None
    if previous is None or previous.final is not None:
        return history, None
    opens_us = _final_from_us(connection, previous, at_us)
    if at_us < opens_us:
        raise PeriodError(
            f"period {name!r} cannot be closed at {text_of(at_us)}: {previous.name!r} before it is {previous.state}, "
            f"and can be finalised from {text_of(opens_us)} on"
        )
    return take_as_final(connection, history, previous), previous.name


def _dispute_us(policy: Policy) -> int:
    return min(policy.dispute_days, MOST_DISPUTE_DAYS) * DAY_US


def _final_from_us(connection: Connection, period: Period, now: int) -> int:
    """From when on a draft can be made final."""
    policy = period.draft.policy
    return time_closed_us(connection, period, Clock(now, policy.skew_us)) + _dispute_us(policy)


def _record_draft(
    connection: Connection, history: History, name: str, actor: str, prepared: PreparedSettlement
) -> None:
    """Write the draft, which reveals the sampling keys of before it; new ones are committed to and take their place."""
    previous = history.before(prepared.ordinal)
    revealed = keys.reveal(connection, 0 if previous is None else previous.moves[0].sequence)
    document = prepared.document([key.document for key in revealed])
    events.record(connection, "period.draft", name, actor, add_hash(document), once=f"period.draft:{name}")
    if revealed:
        keys.renew(connection, actor)


def _record_final(
    connection: Connection, history: History, name: str, actor: str, prepared: PreparedSettlement
) -> None:
    draft = read_period(connection, name)  # which may have been written just now
    assert draft is not None
    document = prepared.document(draft.sampling_keys)
    events.record(connection, "period.final", name, actor, add_hash(document), once=f"period.final:{name}")
    period = read_period(connection, name)
    assert period is not None
    assert period.final == prepared.settlement  # what is read back is what was meant
    statement_bodies.record(connection, period, history.periods[: period.ordinal - 1], prepared.contents, actor)


def _require(history: History, name: str, move: str) -> Period:
    """The period, if it can make the move."""
    period = history.find(name)
    if period is None:
        closed = ", ".join(each.name for each in history.periods)
        raise PeriodError(f"no period {name!r} was closed; there are: {closed or 'none'}")
    possible = POSSIBLE[period.state]
    if move not in possible:
        raise PeriodError(
            f"period {name!r} is {period.state} and cannot be {move}; "
            f"it can be: {' or '.join(possible) or 'nothing else'}"
        )
    return period


def _already_closed(period: Period) -> PeriodClosedError:
    after, up_to = period.window
    return PeriodClosedError(
        f"period {period.name!r} is closed already ({period.state}, receipts {after + 1} to {up_to})", period.settlement
    )
