"""The newest receipts and entries first: the same rows as in the order of booking, backwards, on both databases."""

from functools import partial

import pytest

from rewards.credit import COMMONS
from rewards.ledger.ledger import Ledger
from rewards.views import newest_first
from tests.rewards.receipts import MEMBERS
from tests.rewards.views.test_oldest_first import read_all, receipt


@pytest.fixture
def books(ledger: Ledger) -> Ledger:
    """Nine receipts of two applications and a reversal."""
    ledger.register("other", MEMBERS)
    ledger.append_many([receipt(number) for number in range(1, 10)])
    ledger.reverse("r4", "a test question", "tester")
    return ledger


@pytest.mark.long
@pytest.mark.parametrize("limit", [1, 2, 3, 10, 100])
@pytest.mark.parametrize("application", [None, "shop", "nobody"])
@pytest.mark.parametrize("account", [None, "bank", COMMONS])
def test_pages_of_receipts_are_every_receipt_that_fits_newest_first(books, limit, application, account):
    """Under every filter the pages one after the other are what a look at every receipt finds, backwards."""
    with books.database.read() as connection:
        found = read_all(partial(newest_first.receipts, connection, application=application, account=account), limit)

    assert [
        each
        for each in reversed(books.receipts_after(0))
        if application in (None, each.application) and (account is None or each.amounts[account] != 0)
    ] == found


@pytest.mark.parametrize("limit", [1, 3, 100])
def test_pages_of_a_clients_entries_are_all_of_them_newest_first(books, limit):
    """A client's entries come backwards, each with its amount and without the application."""
    with books.database.read(member="bank") as connection:
        rows = read_all(partial(newest_first.entries, connection, "bank"), limit)

    assert [
        (each.response_id, each.amounts["bank"]) for each in reversed(books.receipts_after(0)) if "bank" in each.amounts
    ] == [(row.response_id, row.amount) for row in rows]
    assert {"bank"} == {row.account for row in rows}
    assert {None} == {row.application for row in rows}


def test_one_entry_of_a_client_is_found_by_its_response(books):
    """A client's entry of a response is found by the response's id, and none where it has none."""
    with books.database.read(member="bank") as connection:
        one = newest_first.entries(connection, "bank", limit=1, response_id="r2")
        none = newest_first.entries(connection, "bank", limit=1, response_id="r-none")

    assert [("r2", 500_000)] == [(row.response_id, row.amount) for row in one.rows]
    assert ([], None) == (none.rows, none.place)


def test_reversed_responses_are_told_with_their_reversals(books):
    """Of some responses, those that were reversed are named with the receipt that took them back."""
    (reversal,) = [each.response_id for each in books.receipts_after(0) if each.kind == "reversal"]
    with books.database.read() as connection:
        assert {"r4": reversal} == newest_first.reversals(connection, ["r3", "r4", "r-none"])
        assert newest_first.reversals(connection, []) == {}
    with books.database.read(member="bank") as connection:  # who has an entry in both
        assert {"r4": reversal} == newest_first.reversals(connection, ["r3", "r4"])
