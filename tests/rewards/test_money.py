"""Money has one spelling for programs and one for people, and the decimal places that ISO 4217 gives its currency."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import money
from rewards.errors import MoneyError, PolicyError
from rewards.periods import period_totals
from rewards.settlement.document import Settlement
from rewards.settlement.policy import Policy
from rewards.settlement.settle import settle
from tests.rewards.amounts import AMOUNTS, DIGITS, plainly, readably


@pytest.mark.parametrize("digits", DIGITS)
@pytest.mark.parametrize("amount", AMOUNTS)
def test_an_amount_is_written_with_its_sign_and_digits(amount: int, digits: int) -> None:
    """Both spellings are those of the table, and read back as what they were."""
    assert plainly(amount, digits) == money.write_plain(amount, digits)
    assert readably(amount, digits) == money.write_readable(amount, "", digits)
    assert f"{readably(amount, digits)} EUR" == money.write_readable(amount, "EUR", digits)
    assert {amount} == {
        money.parse(text, digits)
        for text in (
            money.write_plain(amount, digits),
            money.write_readable(amount, "", digits),
            money.write_readable(amount, "EUR", digits),
        )
    }


@given(st.integers(), st.integers(0, 4))
def test_whatever_is_written_reads_back(amount: int, digits: int) -> None:
    """No amount loses its sign, a digit or a unit, however large."""
    assert amount == money.parse(money.write_plain(amount, digits), digits)
    assert amount == money.parse(money.write_readable(amount, "EUR", digits), digits)


@pytest.mark.parametrize("text", ["", "-", "1.5", "1.005", "1.00.0", "--1.00", "1e2", "NaN", "1,00", "٣.00", "+1.00"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """Other decimal places, another sign or other figures are no amount of the currency."""
    with pytest.raises(MoneyError, match="is no amount with 2 decimal places"):
        money.parse(text, 2)


@pytest.mark.parametrize(
    ("currency", "digits"), [("EUR", 2), ("USD", 2), ("JPY", 0), ("KRW", 0), ("KWD", 3), ("TND", 3), ("CLF", 4)]
)
def test_a_currency_has_its_digits_without_being_told(currency: str, digits: int) -> None:
    """By ISO 4217; a policy may say the same, and nothing else."""
    assert digits == Policy.from_mapping({"currency": currency, "pool": 1}).minor_digits
    assert digits == Policy.from_mapping({"currency": currency, "minor_digits": digits, "pool": 1}).minor_digits
    for other in {0, 1, 2, 3, 4} - {digits}:
        with pytest.raises(PolicyError, match=f"minor_digits: {currency} has {digits} decimal places in ISO 4217"):
            Policy.from_mapping({"currency": currency, "minor_digits": other, "pool": 1})


@pytest.mark.parametrize("currency", ["ZZZ", "DEM", "HRK", "BTC", "EUX"])
def test_an_unknown_or_withdrawn_currency_is_refused_by_name(currency: str) -> None:
    """Also where its digits are given: nobody can be paid in it."""
    for digits in ({}, {"minor_digits": 2}):
        with pytest.raises(PolicyError, match=f"currency: '{currency}' is no currency of ISO 4217"):
            Policy.from_mapping({"currency": currency, "pool": 1, **digits})


@pytest.mark.parametrize("currency", ["XTS", "X" * 3, "XAU", "XDR", "XUA"])
def test_a_code_that_is_no_money_is_refused_by_name(currency: str) -> None:
    """The code for tests, the one for no currency, metals and units of account have no minor unit to pay in."""
    for digits in ({}, {"minor_digits": 0}):
        with pytest.raises(PolicyError, match=f"currency: '{currency}' has no minor unit"):
            Policy.from_mapping({"currency": currency, "pool": 1, **digits})


@pytest.mark.parametrize(("currency", "digits"), [("JPY", 2), ("EUR", 0), ("DEM", 2), ("XTS", 1)])
def test_a_settlement_in_the_books_still_reads(currency: str, digits: int) -> None:
    """What was settled before currencies were checked stays what it was, to the byte."""
    policy = Policy.from_mapping({"currency": currency, "minor_digits": digits, "pool": 100}, stored=True)
    credit = period_totals.PeriodCredit((0, 1), 1, {"bank": 600_000, "commons": 400_000})
    stored = settle("p", 1, credit, policy).to_document()

    assert stored == Settlement.from_document(stored).to_document()
    assert (currency, digits) == (stored["policy"]["currency"], stored["policy"]["minor_digits"])
