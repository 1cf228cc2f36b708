"""What a form asks to be done is done where it was confirmed, or a sentence says why not."""

import pytest

from deployment.console.moves import Refusal, attempt
from deployment.errors import NotFoundError
from deployment.schemas.periods import Dispute
from rewards.errors import HoldError, LedgerError


def refuse(error: Exception) -> str:
    """A move that cannot be made."""
    raise error


def test_a_move_that_was_not_confirmed_is_not_made() -> None:
    """It is not even tried, and the sentence says what is missing."""
    made: list[str] = []

    assert Refusal("Nothing was done: tick the box to confirm it.", 400) == attempt(lambda: made.append("a move"), "")
    assert [] == made


def test_a_move_gives_what_comes_of_it() -> None:
    """Once it was confirmed, by whatever text the box has."""
    assert "hold-1" == attempt(lambda: "hold-1", "yes")


@pytest.mark.parametrize(
    ("error", "refusal"),
    [
        (HoldError("hold-1 was released before"), Refusal("Nothing was done: hold-1 was released before.", 409)),
        (NotFoundError("there is no hold 'hold-7'"), Refusal("Nothing was done: there is no hold 'hold-7'.", 404)),
    ],
)
def test_what_the_books_refuse_is_told_as_a_sentence(error: Exception, refusal: Refusal) -> None:
    """With the status that the operator API would give."""
    assert refusal == attempt(lambda: refuse(error), "yes")


def test_what_was_typed_wrong_is_named_by_its_field() -> None:
    """As it is on a page that was filled in by hand, without the checker's own words."""
    refusal = attempt(lambda: Dispute(reason="\x07"), "yes")

    assert isinstance(refusal, Refusal)
    assert refusal.problem.startswith("Nothing was done: reason: must be printable")
    assert 400 == refusal.status


def test_a_ledger_that_is_away_is_no_refusal_of_the_move() -> None:
    """It goes on to whoever answers for the whole console."""
    with pytest.raises(LedgerError, match="away"):
        attempt(lambda: refuse(LedgerError("away")), "yes")
