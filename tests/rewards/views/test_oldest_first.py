"""Pages of receipts and entries, and sums of a selection, against lists of everything, on both databases."""

import itertools
from collections import Counter
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rewards import periods
from rewards.credit import COMMONS, Receipt, receipt_amounts
from rewards.ledger.ledger import Ledger
from rewards.periods import holds
from rewards.periods.history import read_history
from rewards.settlement.policy import Policy
from rewards.store.database import now_us
from rewards.views import oldest_first, selection
from rewards.views.selection import Selection
from tests.rewards.receipts import MEMBERS

POLICY = Policy(pool=10_000, currency="EUR")
HOUR_US = 3_600_000_000
SOON_US = 300_000_000  # as far as clocks may differ


def receipt(number: int, created_at_us: int | None = None) -> Receipt:
    """A receipt whose fields follow from its number; every third credits the commons alone."""
    shares = {"bank": 0.25, "clinic": 0.5} if number % 3 else {"bank": 0.0, "clinic": 0.0}
    response_id = f"r{number}"
    return Receipt(
        response_id=response_id,
        created_at_us=now_us() if created_at_us is None else created_at_us,
        application="shop" if number % 2 else "desk",
        consortium="demo" if number % 5 else "other",
        model_sha256=("a" if number < 7 else "b") * 64,
        method="credit",
        settings={},
        version="1",
        tokens=number,
        amounts=receipt_amounts(response_id, number, shares, 1 - sum(shares.values())),
        measurement={},
        duration_us=1,
    )


@pytest.fixture
def books(ledger: Ledger) -> Ledger:
    """Twelve receipts and two reversals of two consortia."""
    ledger.register("other", MEMBERS)
    ledger.append_many([receipt(number) for number in range(1, 13)])
    ledger.reverse("r4", "a test question", "tester")
    ledger.reverse("r5", "a test question", "tester")
    return ledger


def read_all(page, limit):
    """The rows of every page, one after the other, each page but the last as long as its limit."""
    rows, place = [], None
    while True:
        found = page(limit=limit, place=place)
        assert len(found.rows) == limit or (found.place is None and len(found.rows) <= limit)
        rows += found.rows
        place = found.place
        if place is None:
            return rows


def receipts_of(ledger, wanted, limit, account=None):
    with ledger.database.read() as connection:
        return read_all(partial(oldest_first.receipts, connection, wanted, account=account), limit)


def entries_of(ledger, wanted, limit, account=None):
    with ledger.database.read() as connection:
        return read_all(partial(oldest_first.entries, connection, wanted, account=account), limit)


@pytest.mark.long
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 14, 100])
def test_pages_of_receipts_are_the_receipts_that_fit_in_their_order(books, limit):
    """Under every filter, the pages one after the other are what a look at every receipt finds, none twice."""
    whole = books.receipts_after(0)
    for model, application, kind, account in itertools.product(
        (None, "demo", "b" * 64), (None, "shop"), (None, "reversal"), (None, "bank", COMMONS)
    ):
        wanted = Selection(model=model, applications=application and (application,), kind=kind)
        found = receipts_of(books, wanted, limit, account)
        assert [
            each
            for each in whole
            if model in (None, each.consortium, each.model_sha256)
            and application in (None, each.application)
            and kind in (None, each.kind)
            and (account is None or each.amounts[account] != 0)
        ] == found


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 1000])
def test_pages_of_entries_are_every_entry_once_also_where_a_page_ends_within_a_receipt(books, limit):
    """A page that ends between two entries of a receipt is followed by one that begins there."""
    whole = [
        (each.sequence, account, amount)
        for each in books.receipts_after(0)
        for account, amount in sorted(each.amounts.items())
    ]
    for account in (None, "clinic", COMMONS):
        found = entries_of(books, Selection(), limit, account)
        assert [each for each in whole if account in (None, each[1])] == [
            (row.sequence, row.account, row.amount) for row in found
        ]


@pytest.mark.long
@given(limit=st.integers(1, 5), moments=st.lists(st.integers(0, 3), max_size=8))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_booked_between_two_pages_is_neither_lost_nor_doubled(books, limit, moments):
    """Whoever pages on while receipts are booked reads, in the end, every entry once and in order."""
    found, place, rest = [], None, iter(moments)
    while True:
        for _ in range(next(rest, 0)):
            books.append(receipt(int(books.last_sequence()) + 1))
        with books.database.read() as connection:
            page = oldest_first.entries(connection, Selection(), limit=limit, place=place)
        found += page.rows
        place = page.place
        if place is None:
            break

    assert entries_of(books, Selection(up_to=found[-1].sequence), 1000) == found
    assert found[-1].sequence == books.last_sequence()


@given(
    limit=st.integers(1, 9),
    after=st.integers(0, 14),
    up_to=st.integers(0, 16),
    excluded=st.frozensets(st.integers(1, 14)),
    included=st.frozensets(st.integers(1, 14)),
    account=st.sampled_from([None, "bank"]),
    model=st.sampled_from([None, "demo", "b" * 64]),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pages_and_sums_of_any_selection_agree_with_a_look_at_every_receipt(
    books, limit, after, up_to, excluded, included, account, model
):
    """Late arrivals before the window, and receipts left out of it, are each in or out of pages and sums alike."""
    wanted = Selection(
        after,
        up_to,
        frozenset(each for each in excluded if after < each <= up_to),
        frozenset(each for each in included if each <= after),
        model=model,
    )
    found = entries_of(books, wanted, limit, account)
    with books.database.read() as connection:
        sums = selection.totals(connection, wanted, account)
    fitting = [
        each
        for each in books.receipts_after(0)
        if wanted.holds(each.sequence) and model in (None, each.consortium, each.model_sha256)
    ]

    assert [(each.sequence, name) for each in fitting for name in sorted(each.amounts) if account in (None, name)] == [
        (row.sequence, row.account) for row in found
    ]
    assert (len(fitting), sum(each.tokens for each in fitting)) == (sums.receipts, sums.tokens)
    credit = Counter()
    for row in found:
        credit[row.account] += row.amount
    assert +credit == +Counter(sums.credit)


def test_what_lies_before_the_window_is_read_in_several_statements(books, monkeypatch):
    """However many receipts are named one by one, no statement names more than the database takes."""
    monkeypatch.setattr("rewards.store.queries._AT_ONCE", 2)
    wanted = Selection(9, 14, frozenset({11}), frozenset({1, 2, 3, 5, 8}))
    for limit in (1, 2, 3, 10):
        found = receipts_of(books, wanted, limit)
        assert [1, 2, 3, 5, 8, 10, 12, 13, 14] == [row.sequence for row in found]
    with books.database.read() as connection:
        sums = selection.totals(connection, wanted, "bank")
    assert (9, 1 + 2 + 3 + 5 + 8 + 10 + 12 - 4 - 5) == (sums.receipts, sums.tokens)


def test_the_sums_of_a_period_are_those_it_was_settled_by(ledger, monkeypatch):
    """With late receipts, held ones, and reversals of the same and of an earlier period."""
    ledger.register("other", MEMBERS)
    for number in range(1, 9):  # 3 and 6 are made after the end and belong to the next period
        ledger.append(receipt(number, now_us() + (SOON_US if number in (3, 6) else 0)))
    ledger.reverse("r2", "a test question", "tester")
    holds.place(ledger, "response", "r7", "a question", "tester")
    periods.close(ledger, "first", POLICY, "tester", until_us=now_us())
    ledger.append(receipt(9))
    ledger.reverse("r1", "of the first period", "tester")
    ledger.reverse("r9", "of the same", "tester")
    ledger.append(receipt(11))
    holds.release(ledger, "hold-1", "answered", "tester")
    with ledger.database.read() as connection:
        there = read_history(connection)
        still_open = selection.totals(connection, selection.of_open_period(connection, there.periods[-1]))
    monkeypatch.setattr("rewards.periods.period_end.now_us", lambda *_: now_us() + 2 * SOON_US)
    periods.close(ledger, "second", POLICY, "tester")
    with ledger.database.read() as connection:
        there = read_history(connection)
        sums = [
            selection.totals(connection, selection.of_period(connection, period, there.before(period.ordinal)))
            for period in there.periods
        ]

    assert [(3, 6), ()] == [period.deferred for period in there.periods]
    assert [(7,), ()] == [period.left_out for period in there.periods]
    for period, found in zip(there.periods, sums, strict=True):
        settled = {line.account: line.credit for line in period.settlement.lines}
        assert (period.settlement.tokens, settled) == (found.tokens, {"rider": 0} | dict(found.credit))
    assert sums[1].tokens - 7 == still_open.tokens  # whether what was held comes back is known when it closes


def test_a_reversal_in_the_grace_hours_is_of_no_period(ledger, monkeypatch):
    """The next period takes back in money: the reversal is in neither sum, and in that of all time."""
    end_us = now_us()

    def at(hours):
        moment = end_us + round(hours * HOUR_US)
        for module in ("periods.transitions", "periods.period_end", "store.events", "ledger.ledger"):
            monkeypatch.setattr(f"rewards.{module}.now_us", lambda *_: moment)
        return moment

    ledger.append_many([receipt(1, at(-1)), receipt(2, at(-1))])
    at(0.25)
    ledger.reverse("r1", "a test question", "tester")
    at(0.5)
    ledger.append(receipt(4, at(-1)))
    at(2)
    policy = Policy(pool=10_000, currency="EUR", grace_hours=1)
    first = periods.close(ledger, "first", policy, "tester", until_us=end_us)
    ledger.append(receipt(7))
    with ledger.database.read() as connection:
        there = read_history(connection)
        still_open = selection.of_open_period(connection, there.periods[-1])
        open_tokens = selection.totals(connection, still_open).tokens
    second = periods.close(ledger, "second", policy, "tester")

    assert (3,) == there.periods[0].deferred
    assert (1 + 2 + 4, 7, 7) == (first.tokens, second.tokens, open_tokens)
    assert ["r7"] == [row.response_id for row in receipts_of(ledger, still_open, 1)]
    assert 1 - 1 + 2 + 4 + 7 == ledger.tokens()


def test_models_are_told_with_their_receipts_and_tokens(books):
    """A consortium's models come in the order in which they first answered."""
    with books.database.read() as connection:
        found = oldest_first.models(connection)

    assert [("demo", "a", 6), ("other", "a", 2), ("demo", "b", 5), ("other", "b", 1)] == [
        (each.consortium, each.model_sha256[0], each.receipts) for each in found
    ]
    assert sum(range(1, 13)) - 4 - 5 == sum(each.tokens for each in found)


def test_a_member_of_postgresql_sees_its_own_entries_even_where_nothing_narrows_them(postgresql_url):
    """Queries that forget to name the client find nothing of others: the database is the second wall."""
    ledger = Ledger(postgresql_url)
    ledger.append_many([receipt(number) for number in (1, 2, 3, 4)])
    with ledger.database.read(member="bank") as connection:
        rows = read_all(partial(oldest_first.entries, connection, Selection(), with_application=False), 3)
        sums = selection.totals(connection, Selection(), "clinic")

    assert {"bank"} == {row.account for row in rows}
    assert 4 == len(rows)
    assert {} == sums.credit
    ledger.close()
