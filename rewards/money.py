"""An amount of money as text, and the currencies of ISO 4217: the one home of its sign and its decimal places.

An amount is an integer of minor units (cents) and the currency's decimal places; no float comes near it. Knows no
policy and no page.
"""

from __future__ import annotations

import re

import iso4217

from rewards.errors import MoneyError

MINUS = "−"  # for people, as wide as a plus; for programs it is the hyphen that they read
_WRITTEN = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")


def write_plain(minor_units: int, digits: int) -> str:
    """An amount for programs and spreadsheets, as in "-1234.50": a hyphen, a point, nothing between thousands."""
    whole, rest = divmod(abs(minor_units), 10**digits)
    sign = "-" if minor_units < 0 else ""
    return f"{sign}{whole}.{rest:0{digits}d}" if digits else f"{sign}{whole}"


def write_readable(minor_units: int, currency: str, digits: int) -> str:
    """An amount for people, as in "−1,234.50 EUR"; without its currency where that is empty, as under a heading."""
    whole, point, rest = write_plain(minor_units, digits).removeprefix("-").partition(".")
    sign = MINUS if minor_units < 0 else ""
    return f"{sign}{int(whole):,}{point}{rest} {currency}".rstrip()


def parse(text: str, digits: int) -> int:
    """The minor units of an amount that `write_plain` or `write_readable` wrote, with or without its currency.

    Raises:
        MoneyError: it is no such amount, or has other decimal places.
    """
    number = text.partition(" ")[0].replace(",", "").replace(MINUS, "-")
    match = _WRITTEN.fullmatch(number)
    if match is None or len(match[3] or "") != digits:
        raise MoneyError(f"{text!r} is no amount with {digits} decimal places")
    return int(f"{match[1]}{match[2]}{match[3] or ''}")


def minor_digits(currency: str) -> int:
    """The decimal places of a currency by ISO 4217: EUR has 2, JPY 0, KWD 3.

    Raises:
        MoneyError: the code is of no currency that is in use, or of none that anybody is paid in: metals (XAU), units
            of account (XDR), the code for tests (XTS) and the one for no currency have no minor unit.
    """
    try:
        digits = iso4217.Currency(currency).exponent
    except ValueError as error:
        raise MoneyError(
            f"{currency!r} is no currency of ISO 4217 (table of {iso4217.__published__}); "
            "give the code of one that is in use, such as EUR"
        ) from error
    if digits is None:
        raise MoneyError(
            f"{currency!r} has no minor unit in ISO 4217 (a metal, a unit of account, or a code for tests), so that "
            "nobody can be paid in it; give the code of a currency, such as EUR"
        )
    return digits
