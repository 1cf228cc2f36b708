"""Splits are exact, receipts are whole, and nothing that is not a number gets past credit.py."""

import json
import math
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.credit import COMMONS, canonical_bytes, receipt_amounts, split
from rewards.errors import CreditError
from tests.rewards.receipts import make_receipt

ACCOUNTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
WEIGHTS = st.one_of(
    st.just(0.0),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
    st.integers(min_value=0, max_value=10**18),
    st.fractions(min_value=0, max_value=1000),
)
SPLITS = st.dictionaries(ACCOUNTS, WEIGHTS, min_size=1, max_size=12).filter(lambda weights: any(weights.values()))
TOTALS = st.integers(min_value=0, max_value=10**15)


@pytest.mark.long
@settings(max_examples=150, deadline=None)
@given(TOTALS, SPLITS, st.text(max_size=8))
def test_split_is_exact(total, weights, salt):
    """A split sums to the total, gives nobody a whole unit more or less than the exact quota, and nothing to a zero."""
    amounts = split(total, weights, salt)

    whole = sum(Fraction(weight) for weight in weights.values())
    assert total == sum(amounts.values())
    assert list(weights) == list(amounts)
    for account, amount in amounts.items():
        assert abs(amount - total * Fraction(weights[account]) / whole) < 1
        assert weights[account] != 0 or amount == 0


@settings(max_examples=80, deadline=None)
@given(TOTALS, SPLITS, st.randoms(use_true_random=False))
def test_split_ignores_order(total, weights, random):
    """Who is listed first makes no difference."""
    shuffled = list(weights.items())
    random.shuffle(shuffled)

    assert split(total, weights, "salt") == split(total, dict(shuffled), "salt")


@settings(max_examples=80, deadline=None)
@given(TOTALS, SPLITS)
def test_split_is_monotone(total, weights):
    """Nobody gets less than somebody of smaller weight."""
    amounts = split(total, weights, "salt")

    ranked = sorted(weights, key=lambda account: Fraction(weights[account]))
    for smaller, larger in pairwise(ranked):
        assert weights[smaller] == weights[larger] or amounts[smaller] <= amounts[larger]


def test_tie_break_follows_the_salt():
    """Which of two equal accounts gets the odd unit depends on the salt: over many receipts neither is favoured."""
    firsts = sum(split(1, {"a": 1, "b": 1}, f"response-{number}")["a"] for number in range(400))

    assert 150 < firsts < 250
    assert {"a": 0, "b": 1} == split(1, {"a": 1, "b": 1}, "response-0")  # pinned: the rule is part of the contract


def test_first_listed_zero_gets_nothing():
    """Largest remainder never hands a left-over unit to an account of weight zero, also when it is listed first."""
    assert {"none": 0, "third": 3, "rest": 7} == split(10, {"none": 0, "third": 1, "rest": 2}, "")


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf, -1e-300, -1, Fraction(-1, 3), True, "1", None])
def test_split_refuses_what_is_no_weight(weight):
    """A weight that is NaN, infinite, negative or not a number is refused, and its account is named."""
    with pytest.raises(CreditError, match="'clinic'"):
        split(10, {"bank": 0.5, "clinic": weight}, "salt")


@pytest.mark.parametrize("total", [-1, 1.0, True, 2**63])
def test_split_refuses_what_is_no_total(total):
    """A total is an integer from 0 up to what the ledger can hold."""
    with pytest.raises(CreditError, match="total"):
        split(total, {"bank": 1}, "salt")


@pytest.mark.parametrize("weights", [{}, {"bank": 0, "clinic": 0.0}])
def test_split_refuses_when_nobody_is_due(weights):
    """Without a positive weight there is nobody to give to."""
    with pytest.raises(CreditError, match="no account"):
        split(10, weights, "salt")


@settings(max_examples=100, deadline=None)
@given(
    st.integers(min_value=1, max_value=100_000),
    st.lists(st.floats(min_value=0, max_value=1), min_size=1, max_size=60),
    st.floats(min_value=0, max_value=1),
)
def test_receipt_amounts_sum_to_the_tokens(tokens, raw, base):
    """Whatever the shares, the entries of a receipt sum to tokens times 1 000 000, and every client has one."""
    whole = math.fsum(raw)
    shares = {f"client-{number}": (1 - base) * (share / whole) if whole else 0.0 for number, share in enumerate(raw)}
    amounts = receipt_amounts("response", tokens, shares, base if whole else 1.0)

    assert tokens * 1_000_000 == sum(amounts.values())
    assert {*shares, COMMONS} == set(amounts)
    assert all(amounts[client] == 0 for client, share in shares.items() if share == 0)


def test_no_response_takes_the_place_of_a_reversal():
    """A receipt under the id that the reversal of another will have would keep that one from being booked."""
    with pytest.raises(CreditError, match="'reversal-r' begins as that of a reversal"):
        make_receipt("reversal-r")


def test_receipt_amounts_of_a_plain_case():
    """Half a token is 500 000 micro-credits; a zero is kept as a statement."""
    expected = {"bank": 500_000, "clinic": 1_000_000, "rider": 0, COMMONS: 500_000}

    assert expected == receipt_amounts("r", 2, {"bank": 0.25, "clinic": 0.5, "rider": 0.0}, 0.25)


@pytest.mark.parametrize(
    ("tokens", "shares", "base", "named"),
    [
        (0, {"bank": 1.0}, 0.0, "tokens"),
        (-3, {"bank": 1.0}, 0.0, "tokens"),
        (1.0, {"bank": 1.0}, 0.0, "tokens"),
        (2**62, {"bank": 1.0}, 0.0, "tokens"),
        (1, {"bank": 0.5}, 0.4, "sum to 0.9"),
        (1, {"bank": 0.5}, 0.50001, "sum to 1.00001"),
        (1, {"bank": math.nan}, 0.5, "bank"),
        (1, {"bank": 1.5}, -0.5, "commons"),
        (1, {"bank": -0.5}, 1.5, "bank"),
        (1, {"bank": 0.5}, math.inf, "commons"),
        (1, {"commons": 0.5}, 0.5, "commons"),
        (1, {"pending": 0.5}, 0.5, "pending"),
    ],
)
def test_receipt_amounts_refuse(tokens, shares, base, named):
    """Bad tokens, shares and reserved names are refused, each by name."""
    with pytest.raises(CreditError, match=named):
        receipt_amounts("r", tokens, shares, base)


def test_canonical_bytes_have_one_spelling():
    """Key order does not matter, there are no spaces, and text is UTF-8."""
    assert '{"a":[1,2.5],"é":null}'.encode() == canonical_bytes({"é": None, "a": (1, 2.5)})


@pytest.mark.parametrize("document", [math.nan, {"a": [math.inf]}, {"a": object()}, {"a": "\ud800"}])
def test_canonical_bytes_refuse_what_json_cannot_say(document):
    """NaN, infinities, objects and lone surrogates have no canonical form."""
    with pytest.raises(CreditError, match="canonical"):
        canonical_bytes(document)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("response_id", ""),
        ("response_id", "a\nb"),
        ("application", None),
        ("created_at_us", -1),
        ("duration_us", 1.5),
        ("tokens", 8),
        ("tokens", True),
        ("amounts", {"bank": 7_000_001, COMMONS: -1}),
        ("amounts", {"bank": 7_000_000.0}),
        ("amounts", {"bank": 6_999_999}),
        ("amounts", {"": 7_000_000}),
        ("amounts", {"pending": 7_000_000}),
        ("measurement", {"gain": math.nan}),
        ("settings", {"nodes": {1, 2}}),
    ],
)
def test_receipt_refuses(field, value):
    """A receipt with a field of the wrong kind, with NaN in its evidence or with a wrong sum cannot exist."""
    with pytest.raises(CreditError):
        replace(make_receipt("r"), **{field: value})


def test_payload_hash_covers_every_field():
    """Another value in any field gives another payload hash; the same values give the same."""
    receipt = make_receipt("r")
    others = {
        "response_id": "s",
        "created_at_us": 1,
        "application": "other",
        "consortium": "other",
        "model_sha256": "b" * 64,
        "method": "paper",
        "settings": {},
        "version": "2",
        "amounts": {"bank": 7_000_000},
        "measurement": {},
        "duration_us": 1,
    }
    hashes = {replace(receipt, **{field: value}).payload_sha256 for field, value in others.items()}

    assert make_receipt("r").payload_sha256 == receipt.payload_sha256
    assert len(others) == len(hashes - {receipt.payload_sha256})


def test_receipt_keeps_its_own_copy():
    """What the caller does with its mappings later does not reach into the receipt."""
    evidence = {"scores": [0.5]}
    receipt = replace(make_receipt("r"), measurement=evidence)
    before = receipt.payload_sha256
    evidence["scores"].append(math.nan)

    assert before == receipt.payload_sha256
    assert {"scores": [0.5]} == json.loads(json.dumps(receipt.measurement))
