"""Closed periods as they are told to whoever may see all of them, and to a member."""

from pathlib import Path

import pytest

from deployment.books.books import Books
from deployment.books.periods import closed_period, closed_periods, find_period, policy_for, preview_period
from deployment.errors import InvalidRequestError, NotFoundError, UnavailableError
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.deployment.api.world import POLICY, make_world


@pytest.fixture
def books(ledger: Ledger, keys: KeyRing, tmp_path: Path) -> Books:
    """A final period and a draft."""
    return make_world(ledger, keys, tmp_path).books


def test_periods_come_in_their_order_from_a_place_on(books: Books) -> None:
    """All of them without a limit; after an ordinal, and no more than are wanted, with one."""
    assert ["first", "second"] == [period.name for period in closed_periods(books, None)]
    assert ["first"] == [period.name for period in closed_periods(books, None, limit=1)]
    assert ["second"] == [period.name for period in closed_periods(books, None, after=1)]
    assert [] == closed_periods(books, None, after=2)


def test_a_member_is_told_its_own_line_and_nothing_of_the_others(books: Books) -> None:
    """Neither the settlement nor how many receipts it left out, and of a move not why it was made."""
    whole, own = closed_period(books, None, "second"), closed_period(books, "bank", "second")

    assert whole.settlement is not None
    assert whole.own is None
    assert own.settlement is None
    assert own.own == next(line for line in whole.settlement.lines if line.account == "bank")
    assert (None, None, None) == (own.deferred, own.left_out, own.taken_in)
    assert {None} == {move.note for move in own.moves}
    assert own.settlement_sha256 == whole.settlement_sha256


def test_a_period_that_is_not_closed_is_none_or_not_found(books: Books) -> None:
    """Who asks whether there is one is told; who wants it is refused."""
    assert find_period(books, None, "third") is None
    with pytest.raises(NotFoundError, match="no period 'third' is closed"):
        closed_period(books, None, "third")


def test_a_draft_is_previewed_by_its_own_policy(books: Books) -> None:
    """The service's policy is read for an open period alone: a draft needs none."""
    without = Books(books.ledger, books.keys)

    assert "draft of second" == preview_period(without, "second").compared_with
    with pytest.raises(InvalidRequestError, match="policy is missing"):
        preview_period(without, "third")


def test_a_policy_of_the_service_that_cannot_be_read_is_no_fault_of_who_asks(books: Books, tmp_path: Path) -> None:
    """What was sent goes before the service's own; without it, a broken file is an outage and no bad request."""
    broken = tmp_path / "broken.yaml"
    broken.write_text("currency: [")
    asked = Books(books.ledger, books.keys, policy=broken)

    assert POLICY == policy_for(asked, POLICY.model_dump(mode="json", exclude_none=True))
    with pytest.raises(UnavailableError, match="the service's own policy"):
        policy_for(asked, None)
