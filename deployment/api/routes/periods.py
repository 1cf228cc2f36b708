"""`/periods`: previewed, closed, disputed, made final, paid. What a settlement is, is `rewards`' business."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from deployment.api.dependencies import Caller, TheBooks, Visible
from deployment.api.paging import Listing, Paging, cursor_at, place_of
from deployment.books.books import Books
from deployment.errors import InvalidRequestError, NotFoundError, UnavailableError
from deployment.schemas.errors import failures
from deployment.schemas.periods import Close, Dispute, Finalise, Line, Move, Payment, Period, Preview, Settlement, Terms
from rewards import periods as moves
from rewards.errors import PolicyError
from rewards.settlement.policy import Policy
from rewards.settlement.policy_file import load_policy
from rewards.settlement.rule import Settlement as Settled
from rewards.store.events import Event

__all__ = ["close", "dispute", "finalise", "pay", "period", "periods", "policy_of", "preview", "router"]

router = APIRouter(tags=["periods"])
_LIST = "periods"

PeriodName = Annotated[str, Path(pattern=f"^{moves.NAME}$", description="The period's name, as in 2026-11.")]


@router.get("/periods", summary="The closed periods, oldest first")
def periods(books: TheBooks, visible: Visible, asked: Annotated[Paging, Query()]) -> Listing[Period]:
    """Every closed period with its sums. A member's key sees its own line of each, others the whole settlement."""
    (after,) = place_of(_LIST, asked.cursor, int) or (0,)
    rest = [period for period in moves.all(books.ledger) if period.ordinal > int(after)]
    shown = rest[: asked.limit]
    return Listing(
        data=[_shown(period, visible) for period in shown],
        next_cursor=cursor_at(_LIST, (shown[-1].ordinal,) if len(rest) > asked.limit else None),
    )


@router.get("/periods/{name}", summary="One closed period", responses=failures(404))
def period(books: TheBooks, visible: Visible, name: PeriodName) -> Period:
    """A closed period as it stands: its settlement is the final one, and the draft while there is none."""
    return _found(books, name, visible)


@router.post("/periods/{name}/preview", summary="What closing it now would pay", responses=failures(409))
def preview(books: TheBooks, name: PeriodName, asked: Terms) -> Preview:
    """What `close` would store at this moment, or `finalise` where the period is a draft. Changes nothing.

    The difference is to the draft, or to the period before. A draft keeps its own policy and its own end.
    """
    closed = moves.get(books.ledger, name) if asked.policy is None else None
    policy = policy_of(books, asked) if closed is None else closed.settlement.policy
    found = moves.preview(books.ledger, name, policy, asked.until_us)
    return Preview(
        settlement=_settlement(found.settlement), compared_with=found.compared_with, difference=found.difference
    )


@router.post("/periods/{name}/close", summary="Close it, once and for all", status_code=201, responses=failures(409))
def close(books: TheBooks, caller: Caller, name: PeriodName, asked: Close) -> Period:
    """Settle what was booked since the last closed period, and keep it: as a draft, or as final without dispute days.

    Of any number of callers exactly one wins; for the others, and ever after, it is 409 and nothing changes.
    """
    policy = policy_of(books, asked)
    moves.close(books.ledger, name, policy, caller.key_id, asked.until_us, expected=asked.expected_sha256)
    return _found(books, name, None)


@router.post("/periods/{name}/dispute", summary="Mark a draft as disputed", responses=failures(404, 409))
def dispute(books: TheBooks, caller: Caller, name: PeriodName, asked: Dispute) -> Period:
    """The period stays as it is until it is finalised, with the holds of that moment."""
    _found(books, name, None)
    moves.dispute(books.ledger, name, asked.reason, caller.key_id)
    return _found(books, name, None)


@router.post("/periods/{name}/finalise", summary="Make a draft final", responses=failures(404, 409))
def finalise(books: TheBooks, caller: Caller, name: PeriodName, asked: Finalise | None = None) -> Period:
    """After its dispute days: settle it again with the holds of this moment, and write every client's statement."""
    _found(books, name, None)
    moves.finalise(books.ledger, name, caller.key_id, expected=None if asked is None else asked.expected_sha256)
    return _found(books, name, None)


@router.post("/periods/{name}/pay", summary="Note that it was paid", responses=failures(404, 409))
def pay(books: TheBooks, caller: Caller, name: PeriodName, asked: Payment) -> Period:
    """Moves no money; says in the books that somebody did, and how it is found elsewhere."""
    _found(books, name, None)
    moves.pay(books.ledger, name, asked.reference, caller.key_id)
    return _found(books, name, None)


def policy_of(books: Books, asked: Terms) -> Policy:
    """The policy that was sent, or else the service's own.

    Raises:
        InvalidRequestError: there is neither.
        PolicyError: the one that was sent is not valid.
        UnavailableError: the service's own cannot be read, or is not valid.
    """
    if asked.policy is not None:
        return Policy.from_mapping(asked.policy)
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


def _found(books: Books, name: str, visible: str | None) -> Period:
    found = moves.get(books.ledger, name)
    if found is None:
        raise NotFoundError(f"no period {name!r} is closed", param="name", code="period_not_found")
    return _shown(found, visible)


def _shown(found: moves.Period, visible: str | None) -> Period:
    """A period as a caller may see it."""
    settlement = found.settlement
    own = next((line for line in settlement.lines if line.account == visible), None)
    is_whole = visible is None
    return Period(
        name=found.name,
        ordinal=found.ordinal,
        state=found.state,
        until_us=found.until_us,
        closed_at_us=found.closed_at_us,
        currency=settlement.policy.currency,
        minor_digits=settlement.policy.minor_digits,
        pool=settlement.pool,
        fee=settlement.fee,
        distributable=settlement.distributable,
        settlement_sha256=settlement.sha256,
        own=None if own is None else Line.model_validate(own.to_document()),
        moves=[_move(move, is_whole=is_whole) for move in found.moves],
        deferred=_count(found.deferred, is_whole=is_whole),
        left_out=_count(found.left_out, is_whole=is_whole),
        taken_in=_count(found.taken_in, is_whole=is_whole),
        settlement=_settlement(settlement) if is_whole else None,
    )


def _count(found: Sequence[Any], *, is_whole: bool) -> int | None:
    return len(found) if is_whole else None


def _move(move: Event, *, is_whole: bool) -> Move:
    note = move.document.get("reason") or move.document.get("reference")
    return Move(
        state=move.kind.removeprefix("period."), at_us=move.at_us, actor=move.actor, note=note if is_whole else None
    )


def _settlement(settled: Settled) -> Settlement:
    return Settlement.model_validate(settled.to_document() | {"sha256": settled.sha256})
