"""Holds as they are told, placed and released. What a hold does is the business of `rewards.periods.holds`."""

from deployment.books.books import Books
from deployment.errors import NotFoundError
from deployment.schemas.holds import Hold
from rewards.periods import history, holds


def all_holds(books: Books) -> list[Hold]:
    """Every hold that was ever placed, in that order."""
    return [_hold_of(hold) for hold in holds.all_holds(books.ledger)]


def placed_hold(books: Books, hold_id: str) -> Hold:
    """A hold as it stands.

    Raises:
        NotFoundError: there is none of that id.
    """
    for hold in holds.all_holds(books.ledger):
        if hold.hold_id == hold_id:
            return _hold_of(hold)
    raise NotFoundError(f"there is no hold {hold_id!r}", param="hold_id", code="hold_not_found")


def place_hold(books: Books, kind: str, target: str, reason: str, actor: str) -> Hold:
    """Hold a client's payouts or a response's credit; a draft period that it touches becomes disputed.

    Args:
        books: the ledger.
        kind: "client" or "response".
        target: the id of a client or of a response.
        reason: why, for whoever reads the books.
        actor: the id of the key that places it.

    Raises:
        NotFoundError: no such client is registered, or no such response booked.
        HoldError: it cannot be held.
    """
    _require_target(books, kind, target)
    return placed_hold(books, holds.place(books.ledger, kind, target, reason, actor))


def release_hold(books: Books, hold_id: str, reason: str, actor: str) -> Hold:
    """End a hold: what was held counts in the period that is settled next.

    Raises:
        NotFoundError: there is none of that id.
        HoldError: it was released before.
    """
    placed_hold(books, hold_id)
    holds.release(books.ledger, hold_id, reason, actor)
    return placed_hold(books, hold_id)


def _require_target(books: Books, kind: str, target: str) -> None:
    if kind == "client":
        is_there = any(target in members for members in books.ledger.clients().values())
    else:
        is_there = books.ledger.is_booked(target)
    if not is_there:
        raise NotFoundError(
            f"there is no {kind} {target!r} that could be held", param="target", code=f"{kind}_not_found"
        )


def _hold_of(hold: history.Hold) -> Hold:
    return Hold(
        id=hold.hold_id,
        kind=hold.kind,
        target=hold.target,
        reason=hold.reason,
        actor=hold.actor,
        placed_at_us=hold.placed_at_us,
        released_at_us=hold.released_at_us,
    )
