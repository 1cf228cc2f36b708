"""Who is entitled to what: prices, fees, caps, the commons, and the fees of single applications."""

import re

import pytest
from hypothesis import given

from rewards.credit import COMMONS
from rewards.errors import CreditError
from rewards.settlement.allocation import PeriodCredit, allocate
from rewards.settlement.policy import Policy
from rewards.settlement.rounding import UNIT
from tests.rewards.settlement.settlement_cases import cases, policies, windows


def parts(credit, *, tokens=1, by_application=None, tokens_by_application=None, **policy):
    """Account -> minor units, as a float for reading, of what is distributable."""
    window = PeriodCredit((0, 1), tokens, credit, by_application, tokens_by_application)
    allocation = allocate("p", window, Policy(currency="EUR", **policy))
    return {account: part / UNIT for account, part in allocation.parts.items()}


@cases
@given(policies(), windows())
def test_parts_are_whole_and_capped(policy, window):
    """Parts sum to the whole, caps hold, nobody without positive credit has a part, the fee is rounded down."""
    allocation = allocate("p", window.credit, policy)

    assert allocation.whole == sum(allocation.parts.values()) == max(allocation.distributable, 1) * UNIT
    assert 0 <= allocation.pool * policy.fee_percent / 100 - allocation.fee < 1
    for account, part in allocation.parts.items():
        assert part >= 0
        if account != COMMONS:
            assert part * 100 <= allocation.whole * policy.cap(account)
            assert part == 0 or window.credit.credit[account] > 0
    assert not allocation.unclaimed or allocation.parts == {COMMONS: allocation.whole}


def test_a_price_makes_the_pool():
    """The pool is price times tokens, rounded down; more reversals than tokens make it 0, not negative."""
    assert {"bank": 2999} == parts({"bank": 1}, tokens=1_499_999, price_per_million_tokens=2000)
    policy = Policy(currency="JPY", minor_digits=0, price_per_million_tokens=2000)
    assert 0 == allocate("p", PeriodCredit((0, 1), -5, {"bank": 1}), policy).pool


def test_shares_of_an_empty_pool_are_shares_of_one_unit():
    """Without money there are still shares: the parts are those of one minor unit."""
    assert {"bank": 0.25, COMMONS: 0.75} == parts({"bank": 1, COMMONS: 3}, pool=0)
    assert {"bank": 0.25, COMMONS: 0.75} == parts({"bank": 1, COMMONS: 3}, pool=100, fee_percent=100)


def test_the_fee_comes_first():
    """The fee is a part of the pool, rounded down, and credit shares the rest."""
    assert {"bank": 49, COMMONS: 49} == parts({"bank": 1, COMMONS: 1}, pool=100, fee_percent="2.999999")


def test_negative_credit_counts_as_none():
    """A client whose net credit is negative has no part, and takes nothing from others."""
    assert {"clinic": 100} == parts({"bank": -50, "clinic": 1, COMMONS: -1}, pool=100)


def test_an_excess_is_shared_among_the_uncapped_and_may_reach_the_next_cap():
    """40 of bank's 70 go to clinic and rider 2:1, which takes clinic over its own cap; the rest of that is rider's."""
    credit = {"bank": 70, "clinic": 20, "rider": 10}

    assert {"bank": 30, "clinic": 46.666666666667, "rider": 23.333333333333, COMMONS: 0} == parts(
        credit, pool=100, caps={"bank": 30}
    )
    assert {"bank": 30, "clinic": 40, "rider": 30, COMMONS: 0} == parts(
        credit, pool=100, cap_percent=40, caps={"bank": 30}
    )


def test_what_no_client_may_take_is_the_commons():
    """When every client is capped the rest goes to the commons, which has no cap."""
    assert {"bank": 30, "clinic": 30, COMMONS: 40} == parts({"bank": 8, "clinic": 8}, pool=100, cap_percent=30)
    assert {"bank": 0, COMMONS: 100} == parts({"bank": 8}, pool=100, cap_percent=0)


def test_the_commons_gains_nothing_from_an_excess_that_clients_may_take():
    """The commons keeps its own part: what exceeds a cap is shared among clients."""
    assert {"bank": 10, "clinic": 50, COMMONS: 40} == parts(
        {"bank": 50, "clinic": 10, COMMONS: 40}, pool=100, caps={"bank": 10}
    )


def test_a_cap_for_nobody_changes_nothing():
    """A cap of a client that never appears, and one that nobody reaches, leave the parts as they are."""
    credit = {"bank": 1, "clinic": 2}

    assert parts(credit, pool=100) == parts(credit, pool=100, cap_percent="66.666667", caps={"nobody": 1})


def user_centric(**policy):
    """Two applications: the shop used 1 000 000 tokens of bank, the desk 1 000 of clinic and commons."""
    by_application = {"shop": {"bank": 1_000_000}, "desk": {"clinic": 500, COMMONS: 500}}
    return parts(
        {"bank": 1_000_000, "clinic": 500, COMMONS: 500},
        tokens=1_001_000,
        by_application=by_application,
        tokens_by_application={"shop": 1_000_000, "desk": 1_000},
        allocation="user_centric",
        **policy,
    )


def test_each_fee_goes_to_those_whose_credit_its_payer_used():
    """Under `user_centric`, heavy use by one application takes nothing of what another pays."""
    assert {"bank": 100, "clinic": 450, COMMONS: 450} == user_centric(fees={"shop": 100, "desk": 900})
    assert {"bank": 100, "clinic": 900, COMMONS: 0} == user_centric(
        fees={"shop": 100, "desk": 900}, commons="distribute"
    )


def test_usage_without_a_fee_brings_nothing_and_a_fee_without_usage_is_the_commons():
    """Who pays nothing moves no money; what nobody earned is the commons'."""
    assert {"bank": 100, COMMONS: 0} == user_centric(fees={"shop": 100})
    assert {"bank": 100, COMMONS: 50} == user_centric(fees={"shop": 100, "idle": 50})


def test_an_application_brings_no_more_than_its_usage_is_worth():
    """Beyond the price of its own tokens, a fee goes to the commons: small use cannot move a large fee to a client."""
    assert {"bank": 100, "clinic": 5, COMMONS: 895} == user_centric(
        fees={"shop": 100, "desk": 900}, max_price_per_million_tokens=10_000
    )


def test_the_platform_fee_is_taken_of_every_fee_alike():
    """After a fee of 10 %, each application's money reaches its own, a tenth less."""
    assert {"bank": 90, "clinic": 405, COMMONS: 405} == user_centric(fees={"shop": 100, "desk": 900}, fee_percent=10)


def test_caps_hold_under_user_centric_too():
    """A client's cap is on its part of all fees together; the excess is shared among the others."""
    assert {"bank": 300, "clinic": 700, COMMONS: 0} == user_centric(
        fees={"shop": 900, "desk": 100}, commons="distribute", caps={"bank": 30}
    )


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"by_application": None}, "by application; they are missing"),
        ({"tokens_by_application": None}, "by application; they are missing"),
        (
            {"by_application": {"shop": {"bank": 4}}},
            "credit of 'bank' by application sums to 4, not to its credit of 5",
        ),
        ({"by_application": {"shop": {"bank": 5.0}}}, "credit from 'shop' of 'bank' must be an integer"),
        ({"tokens_by_application": {"shop": 2}}, "tokens by application sum to 2, not to 1"),
    ],
)
def test_user_centric_needs_credit_by_application_that_sums(change, named):
    """Credit and tokens by application must be there and sum to the period's, or nothing is settled."""
    whole = {"by_application": {"shop": {"bank": 5}}, "tokens_by_application": {"shop": 1}}
    with pytest.raises(CreditError, match=re.escape(named)):
        parts({"bank": 5}, allocation="user_centric", fees={"shop": 1}, **whole | change)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"credit": {"bank": 1.0}}, "credit of 'bank' must be an integer"),
        ({"credit": {"bank": True}}, "credit of 'bank' must be an integer"),
        ({"credit": {"": 1}}, "account of credit"),
        ({"credit": {"a\nb": 1}}, "account of credit"),
        ({"credit": {"pending": 5}}, "credit of 5 is pending"),
        ({"late": {"bank": None}}, "late credit of 'bank'"),
        ({"held": {"pending": 1}}, "held credit of 1 is pending"),
        ({"clawbacks": {"bank": -1}}, "claw-back of 'bank'"),
        ({"clawbacks": {COMMONS: 1}}, "claw-back of 'commons'"),
        ({"tokens": 1.5}, "tokens"),
        ({"tokens": 2**53}, "tokens"),
        ({"window": (5, 4)}, "window"),
        ({"window": (0, "9")}, "window"),
        ({"window": (-1, 4)}, "window"),
    ],
)
def test_what_is_no_credit_of_a_period_is_refused(change, named):
    """Floats, pending credit, nameless accounts and windows that run backwards are refused by name."""
    with pytest.raises(CreditError, match=re.escape(named)):
        PeriodCredit(**{"window": (0, 1), "tokens": 1, "credit": {"bank": 1}} | change)


def test_a_pool_too_large_for_json_is_refused():
    """A price times tokens beyond 2**53 - 1 minor units is refused, never rounded."""
    with pytest.raises(CreditError, match=r"pool is \d+ minor units"):
        parts({"bank": 1}, tokens=2_000_000, price_per_million_tokens=2**53 - 1)


def test_credit_that_came_to_nothing_needs_no_application():
    """A client whose responses were all reversed has credit of 0, which no application need name."""
    assert {"bank": 1, COMMONS: 0} == parts(
        {"bank": 5, "clinic": 0},
        by_application={"shop": {"bank": 5}},
        tokens_by_application={"shop": 1},
        allocation="user_centric",
        fees={"shop": 1},
    )


def test_a_period_without_a_receipt_has_a_window():
    """What only falls due is settled in a window that ends where it began."""
    assert (5, 5) == PeriodCredit((5, 5), 0, {}).window
