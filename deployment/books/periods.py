"""Closed periods as each may see them, what closing one would pay, and their moves. Settles nothing itself.

What a settlement is, and when a move is possible, is the business of `rewards.periods`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from deployment.books.books import Books
from deployment.errors import InvalidRequestError, NotFoundError, UnavailableError
from deployment.schemas.periods import Line, Move, Period, Preview, Settlement, settlement_answer
from rewards import periods
from rewards.errors import PolicyError
from rewards.settlement import document
from rewards.settlement.policy import Policy
from rewards.settlement.policy_file import load_policy
from rewards.store.events import Event


def closed_periods(books: Books, visible: str | None, *, after: int = 0, limit: int | None = None) -> list[Period]:
    """The closed periods in their order.

    Args:
        books: where they are.
        visible: the only client whose line may be shown; None shows the whole settlements.
        after: the ordinal after which they begin.
        limit: how many at most; None is all of them.
    """
    rest = [period for period in periods.all(books.ledger) if period.ordinal > after]
    return [_period_for(visible, period) for period in rest[:limit]]


def closed_period(books: Books, visible: str | None, name: str) -> Period:
    """A closed period as it stands, as whoever may see `visible` alone may see it.

    Raises:
        NotFoundError: none of that name is closed.
    """
    period = find_period(books, visible, name)
    if period is None:
        raise NotFoundError(f"no period {name!r} is closed", param="name", code="period_not_found")
    return period


def find_period(books: Books, visible: str | None, name: str) -> Period | None:
    """The same; None where none of that name is closed."""
    period = periods.get(books.ledger, name)
    return None if period is None else _period_for(visible, period)


def preview_period(
    books: Books, name: str, policy: Mapping[str, Any] | None = None, until_us: int | None = None
) -> Preview:
    """What closing a period would store at this moment, or finalising it where it is a draft. Changes nothing.

    A draft keeps its own policy and its own end. Raises as `policy_for`, and as `rewards.periods.preview`.
    """
    closed = periods.get(books.ledger, name) if policy is None else None
    settled_by = policy_for(books, policy) if closed is None else closed.settlement.policy
    preview = periods.preview(books.ledger, name, settled_by, until_us)
    return Preview(
        settlement=_settlement(preview.settlement),
        compared_with=preview.compared_with,
        difference=preview.difference,
    )


def close_period(
    books: Books,
    name: str,
    actor: str,
    *,
    policy: Mapping[str, Any] | None = None,
    until_us: int | None = None,
    expected: str | None = None,
) -> Period:
    """Settle what was booked since the last closed period, and keep it.

    Args:
        books: the ledger, and the service's own policy.
        name: of the period.
        actor: the id of the key that closes.
        policy: what to settle by; None takes the service's own.
        until_us: the end of the period in microseconds since 1970; None is this moment.
        expected: SHA-256 of the settlement that a preview showed; None takes whatever it comes to.

    Raises as `policy_for`, and as `rewards.periods.close`.
    """
    periods.close(books.ledger, name, policy_for(books, policy), actor, until_us, expected=expected)
    return closed_period(books, None, name)


def dispute_period(books: Books, name: str, reason: str, actor: str) -> Period:
    """Mark a draft as disputed.

    Raises:
        NotFoundError: none of that name is closed.
        PeriodError: it cannot be disputed.
    """
    closed_period(books, None, name)
    periods.dispute(books.ledger, name, reason, actor)
    return closed_period(books, None, name)


def finalise_period(books: Books, name: str, actor: str, *, expected: str | None = None) -> Period:
    """Settle a draft again with the holds of this moment, make that final, and write every client's statement.

    Args:
        books: the ledger.
        name: of the period.
        actor: the id of the key that finalises.
        expected: SHA-256 of the settlement that a preview showed; None takes whatever it comes to.

    Raises:
        NotFoundError: none of that name is closed.
        PeriodError: it cannot be finalised, or comes to another settlement.
    """
    closed_period(books, None, name)
    periods.finalise(books.ledger, name, actor, expected=expected)
    return closed_period(books, None, name)


def note_payment(books: Books, name: str, reference: str, actor: str) -> Period:
    """Note that a final period was paid. Moves no money.

    Raises:
        NotFoundError: none of that name is closed.
        PeriodError: it is not final, or is noted as paid already.
    """
    closed_period(books, None, name)
    periods.pay(books.ledger, name, reference, actor)
    return closed_period(books, None, name)


def policy_for(books: Books, sent: Mapping[str, Any] | None) -> Policy:
    """The policy that was sent, or else the service's own.

    Raises:
        InvalidRequestError: there is neither.
        PolicyError: the one that was sent is not valid.
        UnavailableError: the service's own cannot be read, or is not valid.
    """
    if sent is not None:
        return Policy.from_mapping(sent)
    if books.policy is None:
        raise InvalidRequestError(
            "policy is missing, and the service has none of its own: send one, or set `policy` in its settings",
            param="policy",
            code="missing_required_parameter",
        )
    try:
        return load_policy(books.policy)
    except PolicyError as error:  # the service's own fault, and not the caller's
        raise UnavailableError(f"the service's own policy: {error}", code="policy_unavailable") from error


def _period_for(visible: str | None, period: periods.Period) -> Period:
    """A period as it may be shown: with one client's line alone, or whole."""
    settlement = period.settlement
    own = next((line for line in settlement.lines if line.account == visible), None)
    is_whole = visible is None
    return Period(
        name=period.name,
        ordinal=period.ordinal,
        state=period.state,
        until_us=period.until_us,
        closed_at_us=period.closed_at_us,
        currency=settlement.policy.currency,
        minor_digits=settlement.policy.minor_digits,
        pool=settlement.pool,
        fee=settlement.fee,
        distributable=settlement.distributable,
        settlement_sha256=settlement.sha256,
        own=None if own is None else Line.model_validate(own.to_document()),
        moves=[_move(move, is_whole=is_whole) for move in period.moves],
        deferred=_count(period.deferred, is_whole=is_whole),
        left_out=_count(period.left_out, is_whole=is_whole),
        taken_in=_count(period.taken_in, is_whole=is_whole),
        settlement=_settlement(settlement) if is_whole else None,
    )


def _count(receipts: Sequence[Any], *, is_whole: bool) -> int | None:
    return len(receipts) if is_whole else None


def _move(move: Event, *, is_whole: bool) -> Move:
    note = move.document.get("reason") or move.document.get("reference")
    return Move(
        state=move.kind.removeprefix("period."), at_us=move.at_us, actor=move.actor, note=note if is_whole else None
    )


def _settlement(settlement: document.Settlement) -> Settlement:
    return settlement_answer(settlement.to_document() | {"sha256": settlement.sha256})
