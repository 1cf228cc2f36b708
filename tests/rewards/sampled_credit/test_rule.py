"""Which responses are measured follows from key and id alone, exactly, and receipts say it in one form."""

import hmac
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.credit import PENDING, pending_receipt
from rewards.errors import CreditError
from rewards.sampled_credit.rule import WHOLE, SamplingRule, fraction_text, is_measured, millionths_of
from tests.rewards.receipts import make_receipt
from tests.rewards.sampled_credit.sampled import KEY, chosen_id, pending

MILLIONTHS = st.integers(1, WHOLE)


@given(st.text(max_size=40), st.binary(min_size=32, max_size=32), MILLIONTHS)
def test_the_choice_is_a_keyed_hash_held_against_the_fraction(response_id, key, millionths):
    """Measured is what hashes to a part of 2^256 below the fraction, computed here by exact fractions."""
    response_id = response_id.encode("utf-8", "replace").decode()
    number = int(hmac.new(key, response_id.encode(), "sha256").hexdigest(), 16)

    assert (Fraction(number, 2**256) < Fraction(millionths, WHOLE)) == is_measured(response_id, key, millionths)


@given(st.text("abc123", max_size=9), st.tuples(MILLIONTHS, MILLIONTHS).map(sorted))
def test_what_a_smaller_fraction_measures_a_larger_one_does_too(response_id, fractions):
    """Under one key a larger fraction takes nothing away, and the fraction 1 measures everything."""
    smaller, larger = (is_measured(response_id, KEY, millionths) for millionths in fractions)

    assert not smaller or larger
    assert is_measured(response_id, KEY, WHOLE)


def test_a_tenth_of_many_is_about_a_tenth():
    """Of 20 000 ids a tenth is measured, within four standard deviations."""
    count = sum(is_measured(f"chatcmpl-{number}", KEY, 100_000) for number in range(20_000))

    assert abs(count - 2_000) < 4 * (20_000 * 0.1 * 0.9) ** 0.5


@given(MILLIONTHS)
def test_a_fraction_has_one_spelling_that_is_read_back(millionths):
    """Text of a fraction is exact, without zeros at its end."""
    text = fraction_text(millionths)

    assert (millionths, Fraction(millionths, WHOLE)) == (millionths_of(text), Fraction(text))
    assert text == "1" or not text.endswith("0")


@pytest.mark.parametrize(
    ("fraction", "text"), [("0.1", "0.1"), (Decimal("0.250"), "0.25"), (1, "1"), ("1e-6", "0.000001")]
)
def test_fractions_are_read_exactly(fraction, text):
    """Decimals, integers and text name the same fractions."""
    assert text == fraction_text(millionths_of(fraction))


@pytest.mark.parametrize("fraction", [0, "0", "-0.1", "1.000001", "0.0000001", "NaN", "inf", "a tenth", ""])
def test_what_is_no_fraction_is_refused(fraction):
    """Nothing, more than everything, too many digits and no number are refused by what would be right."""
    with pytest.raises(CreditError, match="above 0 and up to 1 with at most 6 digits"):
        millionths_of(fraction)


@pytest.mark.parametrize(("millionths", "key"), [(0, KEY), (WHOLE + 1, KEY), (5, None), (5, b"short"), (WHOLE, KEY)])
def test_a_rule_is_whole(millionths, key):
    """A fraction below 1 has a key of 32 bytes, 1 has none, and others are no fractions."""
    with pytest.raises(CreditError, match="credit fraction"):
        SamplingRule(millionths, key)


def test_a_rule_shows_no_key():
    """Neither the rule nor the evidence it gives holds the key."""
    rule = SamplingRule(100_000, KEY)

    assert KEY.hex() not in f"{rule} {rule.evidence('r')}" and repr(KEY) not in f"{rule}"


def test_where_everything_is_measured_a_receipt_is_what_it_was():
    """The default rule measures every response and adds nothing to its receipt."""
    rule = SamplingRule()

    assert (True, {}, None, "1") == (rule.is_measured("r"), rule.evidence("r"), rule.key_sha256, rule.fraction)


def test_a_response_that_is_not_measured_is_pending_whole():
    """Its receipt books n million micro-credits to one account, and says why."""
    receipt = pending("r", tokens=7)

    assert {PENDING: 7_000_000} == receipt.amounts
    rule = SamplingRule(100_000, KEY)
    assert {"fraction": "0.1", "key_sha256": rule.key_sha256, "measured": False} == receipt.measurement["sampling"]
    assert ("none", "none", {}) == (receipt.method, receipt.version, receipt.settings)


@pytest.mark.parametrize(
    ("measured", "amounts"),
    [
        (False, {"bank": 7_000_000}),
        (False, {PENDING: 6_000_000, "bank": 1_000_000}),
        (False, {PENDING: 7_000_000, "bank": 0}),
        (True, {PENDING: 7_000_000}),
        (None, {PENDING: 7_000_000}),
    ],
)
def test_a_receipt_is_pending_if_and_only_if_it_says_so(measured, amounts):
    """Nothing that was measured is pending, and nothing that was not is anybody's yet."""
    sampling = (
        {} if measured is None else {"sampling": {"fraction": "0.1", "key_sha256": "0" * 64, "measured": measured}}
    )
    with pytest.raises(CreditError, match="reserved account 'pending'"):
        replace(make_receipt("r"), amounts=amounts, measurement=sampling)


def test_no_pending_receipt_is_made_of_a_measured_response():
    """Evidence that a response is measured makes no pending receipt, nor does none."""
    rule = SamplingRule(100_000, KEY)
    for evidence in (rule.evidence(chosen_id(rule)), {}):
        with pytest.raises(CreditError, match="nothing, as it was measured"):
            pending_receipt(
                response_id="r",
                created_at_us=0,
                application="shop",
                consortium="demo",
                model_sha256="a" * 64,
                tokens=1,
                measurement=evidence,
                duration_us=0,
            )
