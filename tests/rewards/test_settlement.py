"""Payouts follow credit, sum to the pool to the unit, and come out the same every time."""

import json
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards import COMMONS, CreditError, Policy, Settlement, canonical_bytes, settle

NAMES = st.sampled_from([COMMONS, "bank", "clinic", "rider", "school", "é"])
CREDITS = st.dictionaries(NAMES, st.integers(min_value=0, max_value=10**15))
POLICIES = st.builds(
    Policy,
    pool=st.integers(min_value=1, max_value=10**12),
    currency=st.just("EUR"),
    commons=st.sampled_from(["retain", "distribute"]),
)


@settings(max_examples=150, deadline=None)
@given(CREDITS, POLICIES)
def test_payouts_sum_to_the_pool(credit, policy):
    """Payouts sum to the pool and shares to 1; each payout is within one unit of its share, and zero gets zero."""
    settlement = settle("2026-11", credit, policy, (0, 9))

    assert policy.pool == sum(line.payout for line in settlement.lines)
    assert 1 == sum(line.share for line in settlement.lines)
    assert sorted({*credit, COMMONS}) == [line.account for line in settlement.lines]
    for line in settlement.lines:
        assert abs(line.payout - line.share * policy.pool) < 1
        assert line.credit == credit.get(line.account, 0)
        assert line.payout == 0 or line.credit > 0 or (settlement.unclaimed and line.account == COMMONS)


@settings(max_examples=60, deadline=None)
@given(CREDITS, POLICIES, st.randoms(use_true_random=False))
def test_same_input_gives_the_same_bytes(credit, policy, random):
    """The document depends on nothing but credit, policy, name and window, and reads back as the same settlement."""
    shuffled = list(credit.items())
    random.shuffle(shuffled)
    settlement = settle("2026-11", credit, policy, (3, 9))
    stored = canonical_bytes(settlement.to_document())

    assert stored == canonical_bytes(settle("2026-11", dict(shuffled), policy, (3, 9)).to_document())
    assert settlement == Settlement.from_document(json.loads(stored))
    assert stored == canonical_bytes(Settlement.from_document(json.loads(stored)).to_document())


def payouts(credit, commons):
    """Account -> payout out of a pool of 100, and whether it was unclaimed."""
    settlement = settle("p", credit, Policy(pool=100, currency="EUR", commons=commons), (0, 1))
    return {line.account: line.payout for line in settlement.lines}, settlement.unclaimed


def test_a_retained_commons_is_paid_like_an_account():
    """With `retain`, the commons' part stays with the consortium's treasury."""
    assert ({"bank": 10, "clinic": 30, COMMONS: 60}, False) == payouts({"bank": 1, "clinic": 3, COMMONS: 6}, "retain")


def test_a_distributed_commons_goes_to_the_clients():
    """With `distribute`, the pool is shared among the clients alone, in proportion to their credit."""
    assert ({"bank": 25, "clinic": 75, COMMONS: 0}, False) == payouts(
        {"bank": 1, "clinic": 3, COMMONS: 6}, "distribute"
    )


@pytest.mark.parametrize("commons", ["retain", "distribute"])
@pytest.mark.parametrize("credit", [{}, {"bank": 0}, {"bank": 0, COMMONS: 0}])
def test_without_credit_the_commons_holds_the_pool_and_says_so(commons, credit):
    """When nobody has credit, the whole pool is the commons' and the settlement is marked unclaimed."""
    paid, unclaimed = payouts(credit, commons)

    assert (100, True) == (paid.pop(COMMONS), unclaimed)
    assert not any(paid.values())


def test_distributing_among_clients_without_credit_is_unclaimed():
    """With `distribute` and credit of the commons only, there is nobody to distribute to: the commons keeps it."""
    assert ({"bank": 0, COMMONS: 100}, True) == payouts({"bank": 0, COMMONS: 5}, "distribute")
    assert ({"bank": 0, COMMONS: 100}, False) == payouts({"bank": 0, COMMONS: 5}, "retain")


def test_document_holds_no_float():
    """Shares are written as exact fractions; a settlement has no float anywhere."""
    document = settle("p", {"bank": 1, "clinic": 2}, Policy(pool=100, currency="EUR"), (0, 1)).to_document()

    assert ["1/3", "2/3", "0/1"] == [line["share"] for line in document["lines"]]
    assert "." not in canonical_bytes(document).decode()


def test_exact_share_of_large_numbers():
    """Shares are exact where floats would not be."""
    credit = {"bank": 2**60 + 1, "clinic": 2**60}
    lines = settle("p", credit, Policy(pool=2**61 + 1, currency="EUR"), (0, 1)).lines

    assert {"bank": 2**60 + 1, "clinic": 2**60, COMMONS: 0} == {line.account: line.payout for line in lines}
    assert Fraction(2**60, 2**61 + 1) == lines[1].share


@pytest.mark.parametrize(
    ("credit", "named"),
    [({"bank": -1}, "bank"), ({"bank": 1.0}, "bank"), ({"bank": True}, "bank"), ({"pending": 5}, "pending")],
)
def test_what_is_no_credit_is_refused(credit, named):
    """Negative, float and pending credit is refused by account."""
    with pytest.raises(CreditError, match=named):
        settle("p", credit, Policy(pool=100, currency="EUR"), (0, 1))
