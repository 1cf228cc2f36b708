"""Sums of what the books hold are exact beyond 64 bits, on both databases."""

import pytest
from sqlalchemy import column, select, values
from sqlalchemy.types import BigInteger

from rewards import periods
from rewards.audit.replay import audit
from rewards.ledger.usage import tokens_of
from rewards.settlement.policy import Policy
from rewards.store.sums import exact_sum
from rewards.views import oldest_first
from rewards.views.contribution import Contribution
from tests.rewards.receipts import make_receipt

MOST = 9_000_000_000_000


@pytest.mark.parametrize(
    "numbers",
    [(2**63 - 1, 2**63 - 1, 2**63 - 1), (-(2**63), -(2**63), 5), (-1, 1), (-1, -(2**32), 2**32 - 1), (0,), (2**31, -7)],
)
def test_a_sum_is_pythons(ledger, numbers):
    """Of either sign, at both ends of 64 bits and around the halves."""
    rows = values(column("number", BigInteger), name="rows").data([(each,) for each in numbers]).cte()
    with ledger.database.read() as connection:
        total = connection.execute(select(exact_sum(rows.c.number))).scalar_one()
        none = connection.execute(select(exact_sum(rows.c.number)).where(rows.c.number == 77)).scalar_one()

    assert (sum(numbers), int, None) == (total, type(total), none)


@pytest.mark.parametrize("allocation", ["pro_rata", "user_centric"])
def test_books_of_more_credit_than_64_bits_are_read_closed_and_audited(ledger, url, allocation):
    """Two receipts as large as there may be, and one that is reversed: nothing that adds them up fails."""
    for name in ("r1", "r2", "r3"):
        ledger.append(make_receipt(name, MOST, {"bank": 1.0}))
    ledger.reverse("r3", "too much", "me")
    application = "0123456789ab"
    terms = {"pool": 1000} if allocation == "pro_rata" else {"allocation": allocation, "fees": {application: 1000}}
    credit = 2 * MOST * 1_000_000
    contribution = Contribution(ledger.database)
    contribution.catch_up()
    with ledger.database.read() as connection:
        used = tokens_of(connection, application)
        models = oldest_first.models(connection)

    assert (2 * MOST, 4) == used
    assert (2 * MOST, credit) == (ledger.tokens(), ledger.balances()["bank"])
    assert [2 * MOST] == [each.tokens for each in models]
    assert credit == contribution.now.open.credit["bank"]
    settlement = periods.close(ledger, "p1", Policy.from_mapping({"currency": "EUR", **terms}), "me")
    assert {"bank": 1000} == {line.account: line.payout for line in settlement.lines if line.payout}
    assert audit(url).is_ok
