"""How figures are written: exact where money hangs on it, short where eyes do, and always text and never markup."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployment.console import rendering as pages
from deployment.console.rendering import COLOURS, ago, colours, credit, exact, moment, percent, shorten, whole_number
from rewards import money

NOW_US = 1_790_000_000_123_456
TEMPLATES = sorted(Path(pages.__file__).with_name("templates").glob("*.html"))


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "0.00"), (1, "0.000001"), (1_500_000, "1.50"), (-1_234_567_890, "−1,234.56789"), (10**15, "1,000,000,000.00")],
)
def test_credit_is_written_exactly(micro: int, text: str) -> None:
    """With at least two digits after the point, and never rounded."""
    assert text == credit(micro)


@given(st.integers(-(10**18), 10**18))
def test_both_ways_to_write_credit_read_back_as_it_is(micro: int) -> None:
    """Nothing of an amount is lost on a page."""
    plain = exact(micro).striptags()

    for text in (credit(micro), plain):
        tokens, digits = text.replace(",", "").replace("−", "-").split(".")
        sign = -1 if text.startswith("−") else 1
        assert micro == sign * (abs(int(tokens)) * 10**6 + int(digits.ljust(6, "0")))
    assert 6 == len(plain.split(".")[1])


@pytest.mark.parametrize(
    ("minor", "digits", "text"),
    [
        (0, 2, "0.00 EUR"),
        (123_456, 2, "1,234.56 EUR"),
        (-5, 2, "−0.05 EUR"),
        (1_234, 0, "1,234 EUR"),
        (5, 3, "0.005 EUR"),
    ],
)
def test_money_has_the_digits_of_its_currency(minor: int, digits: int, text: str) -> None:
    """And a minus that is one."""
    assert text == money.write_readable(minor, "EUR", digits)


def test_a_share_that_is_not_nothing_is_not_shown_as_nothing() -> None:
    """One digit after the point, or that it is less than that."""
    assert ["0.0 %", "< 0.1 %", "0.1 %", "33.3 %", "100.0 %", "−4.2 %"] == [
        percent(share) for share in (0, 0.0004, 0.001, 1 / 3, 1, -0.042)
    ]
    assert ["0", "1,234,567", "−1,000"] == [whole_number(count) for count in (0, 1_234_567, -1000)]


def test_moments_are_for_people_and_for_programs() -> None:
    """To the second in UTC, with the microsecond for whoever reads the attribute."""
    expected = '<time datetime="2026-09-21T14:13:20.123456+00:00">2026-09-21 14:13:20 UTC</time>'

    assert expected == moment(NOW_US)
    assert "—" == moment(None)
    seconds = {0: "just now", -5: "just now", 3: "3 seconds ago", 60: "1 minute ago", 7_300: "2 hours ago"}
    for passed, words in {**seconds, 86_400: "1 day ago", 10**7: "115 days ago"}.items():
        assert words == ago(NOW_US - passed * 1_000_000, NOW_US).striptags()


def test_long_ids_are_cut_and_short_ones_are_not() -> None:
    """A key's id stays whole, a response's does not."""
    assert ["0123456789ab", "chatcmpl-012…", ""] == [shorten(text) for text in ("0123456789ab", "chatcmpl-0123456", "")]


def test_a_client_keeps_its_colour() -> None:
    """Whoever is registered later changes none; the thirteenth has the first one's; by its own a member counts none."""
    few = {f"client {place}": "" for place in range(5)}
    many = few | {f"another {place}": "" for place in range(20)}

    assert colours(few, None).items() <= colours(many, None).items()
    assert ("c0", f"c{COLOURS - 1}", "c0") == tuple(
        colours(dict.fromkeys(map(str, range(40)), ""), None)[client] for client in ("0", "11", "12")
    )
    assert {"commons": "commons", "client 4": "c0"} == colours(few, "client 4")


def test_every_template_leaves_escaping_alone() -> None:
    """No template takes a text for markup, styles an element by hand or carries a script."""
    assert len(TEMPLATES) >= 15
    for template in TEMPLATES:
        text = template.read_text(encoding="utf-8")
        for forbidden in ("|safe", "| safe", "autoescape", " style=", "<style", " onclick", "http://", "https://"):
            assert forbidden not in text, (template.name, forbidden)
        assert text.count("<script") == len(re.findall(r"<script [^>]*\bsrc=", text)), template.name
