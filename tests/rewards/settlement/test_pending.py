"""What was not measured is settled exactly by what was, and the error told of it is the one that sampling makes."""

import random
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN, PENDING, receipt_amounts
from rewards.errors import CreditError
from rewards.sampled_credit.rule import is_measured
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.document import Settlement
from rewards.settlement.pending import (
    NO_ERROR,
    Sampling,
    Stratum,
    StratumKey,
    add_strata,
    sampling_of,
    settled_credit,
    standard_errors,
)
from rewards.settlement.policy import Policy
from rewards.settlement.settle import settle
from tests.rewards.settlement.pending_oracle import Response, error_of, settle_slowly, strata_of
from tests.rewards.settlement.settlement_cases import APPLICATIONS, CASES, CLIENTS, policies

some_cases = settings(max_examples=CASES // 5, deadline=None)
KEYS = st.builds(
    StratumKey,
    st.sampled_from(["demo", "other"]),
    st.sampled_from(["a" * 64, "b" * 64]),
    st.sampled_from(["0.1", "0.5"]),
)
SHARES = st.dictionaries(st.sampled_from(CLIENTS), st.integers(1, 1000), max_size=3)


@st.composite
def responses_(draw, applications=("",)):
    """Responses of a few strata, some measured and some not."""
    made = []
    for number in range(draw(st.integers(1, 14))):
        key = draw(KEYS)._replace(application=draw(st.sampled_from(applications)))
        tokens, parts = draw(st.integers(1, 5000)), draw(st.none() | SHARES)
        amounts = None
        if parts is not None:
            whole = sum(parts.values()) + draw(st.integers(1, 1000))
            shares = {client: part / whole for client, part in parts.items()}
            amounts = receipt_amounts(f"r{number}", tokens, shares, 1 - sum(shares.values()))
        made.append(Response(key, tokens, amounts))
    return made


def credit_of(responses):
    """What the responses come to for `settle`, as the books say it."""
    strata = strata_of(responses)
    by_application, tokens, credit = {}, Counter(), Counter()
    for response in responses:
        amounts = {PENDING: response.whole} if response.amounts is None else response.amounts
        credit.update(amounts)
        tokens[response.key.application] += response.tokens
        by_application.setdefault(response.key.application, Counter()).update(amounts)
    return PeriodCredit(
        (0, 9), tokens.total(), dict(credit), {name: dict(own) for name, own in by_application.items()}, dict(tokens),
        strata=strata,
    )  # fmt: skip


@some_cases
@given(responses_(), st.randoms(use_true_random=False))
def test_what_is_pending_is_settled_to_the_last_unit_whatever_the_order(responses, chance):
    """The oracle comes to the same; the sum is what was pending; neither order nor grouping changes a unit."""
    settled = settled_credit(strata_of(responses), "2026-11")
    pending = sum(response.whole for response in responses if response.amounts is None)
    shuffled = random.Random(chance.random()).sample(responses, len(responses))
    apart: dict = {}
    for response in shuffled:
        add_strata(apart, strata_of([response]))

    assert settle_slowly(responses, "2026-11") == {pair: amount for pair, amount in settled.items() if amount}
    assert pending == settled.total()
    assert settled == settled_credit(apart, "2026-11")


@some_cases
@given(responses_())
def test_the_error_is_that_of_the_formula(responses):
    """Sums of squares come to what the formula gives response by response; it is rounded up, by less than 10^-12."""
    tokens = sum(response.tokens for response in responses)
    for account, error in standard_errors(strata_of(responses), tokens).items():
        expected = error_of(responses, account)

        assert abs(float(error) - expected) <= 1e-9 * expected + 1.1e-12


@some_cases
@given(responses_(), responses_())
def test_a_response_that_is_taken_out_is_as_if_it_had_not_been(responses, others):
    """Counted in and out again, others leave nothing behind."""
    strata = strata_of(responses)
    add_strata(strata, strata_of(others))
    add_strata(strata, strata_of(others), -1)
    tokens = sum(response.tokens for response in responses)

    assert sampling_of(strata_of(responses), tokens, "p", 0, 0) == sampling_of(strata, tokens, "p", 0, 0)
    assert +settled_credit(strata, "p") == +settled_credit(strata_of(responses), "p")


@some_cases
@given(policies(), responses_(APPLICATIONS))
def test_a_period_is_settled_as_if_every_response_had_had_its_strata_s_shares(policy, responses):
    """The settlement is that of the credit in which what is pending was put where it belongs beforehand."""
    if policy.allocation != "user_centric":
        responses = [replace(response, key=response.key._replace(application="")) for response in responses]
    credit, by_hand = credit_of(responses), Counter()
    own = {name: Counter(amounts) for name, amounts in credit.by_application.items()}
    for (application, account), amount in settle_slowly(responses, "p1").items():
        own[application][account] += amount
    for amounts in own.values():
        del amounts[PENDING]
        by_hand.update(amounts)
    plain = replace(
        credit, credit=dict(by_hand), by_application={name: dict(each) for name, each in own.items()}, strata={}
    )
    sampled, expected = settle("p1", 1, credit, policy), settle("p1", 1, plain, policy)

    assert expected == replace(sampled, sampling=None)
    assert sum(line.credit for line in sampled.lines) == sampled.tokens * MICRO_CREDITS_PER_TOKEN
    assert sampled == Settlement.from_document(sampled.to_document())


@some_cases
@given(policies(), responses_(APPLICATIONS))
def test_where_everything_is_measured_a_settlement_is_what_it_was(policy, responses):
    """Strata without anything pending change no byte."""
    measured = [response for response in responses if response.amounts is not None]
    credit = credit_of(measured)

    assert (
        settle("p1", 1, replace(credit, strata={}), policy).to_document()
        == settle("p1", 1, credit, policy).to_document()
    )
    assert "sampling" not in settle("p1", 1, credit, policy).to_document()


def test_a_bundle_of_which_nothing_was_measured_is_the_commons():
    """Other bundles, fractions and applications do not speak for it, and no error can be told of it."""
    shop, desk = (StratumKey("demo", "a" * 64, "0.1", application) for application in ("shop", "desk"))
    responses = [
        Response(shop, 10, {"bank": 10_000_000}),
        Response(shop, 30, None),
        Response(desk, 20, None),
        Response(shop._replace(model_sha256="b" * 64), 5, None),
        Response(shop._replace(fraction="0.5"), 4, None),
    ]
    settled = settled_credit(strata_of(responses), "p")
    sampling = sampling_of(strata_of(responses), 69, "p", 0, 0)

    expected = {("shop", "bank"): 30_000_000, ("desk", COMMONS): 20_000_000, ("shop", COMMONS): 9_000_000}
    assert expected == dict(settled)
    assert (59_000_000, (5, 1), {"bank": NO_ERROR}) == (
        sampling.untold_credit,
        sampling.responses,
        sampling.standard_errors,
    )


@pytest.mark.parametrize("credit", [{PENDING: 5}, {PENDING: 6_000_000}, {PENDING: 0}])
def test_pending_credit_without_its_strata_is_refused(credit):
    """What is pending is what the strata account for, or nothing is settled."""
    strata = {StratumKey("demo", "a" * 64, "0.1"): Stratum(pending=1, pending_credit=5_000_000)}
    with pytest.raises(CreditError, match="pending; attribute it before settling"):
        PeriodCredit((0, 9), 5, credit, strata=strata)


def test_a_document_that_spells_its_sampling_otherwise_is_refused():
    """A figure that is no text, or is missing, makes it no settlement."""
    responses = [Response(StratumKey("demo", "a" * 64, "0.1"), 10, amounts) for amounts in ({"bank": 10_000_000}, None)]
    document = settle("p", 1, credit_of(responses), Policy(pool=100, currency="EUR")).to_document()
    sampling = document["sampling"]
    assert Sampling.from_document(sampling).to_document() == sampling
    for changes in ({"untold_credit": "07"}, {"settled": {"bank": 1}}, {"strata": [{}]}, {"more": 1}):
        with pytest.raises(CreditError, match="not a settlement document"):
            Settlement.from_document({**document, "sampling": {**sampling, **changes}})


RESPONSES, TENTH, REPETITIONS = 2_000, 100_000, 400
DISTRIBUTIONS = {
    "even": lambda chance, n: chance.dirichlet([2, 2, 2, 2], n),
    "all or nothing": lambda chance, n: np.eye(4)[chance.choice(4, n, p=[0.5, 0.3, 0.15, 0.05])],
    "skewed": lambda chance, n: chance.dirichlet([8, 1, 0.3, 0.05], n),
    "mostly the commons'": lambda chance, n: chance.dirichlet([0.05, 0.05, 0.02, 3], n),
    "one client in two of a hundred": lambda chance, n: np.where(
        chance.random((n, 1)) < 0.02, [[0.1, 0.0, 0.8, 0.1]], chance.dirichlet([3, 1, 1e-9, 4], n)
    ),
}


@pytest.fixture(scope="module")
def choices():
    """Which of 2 000 responses a tenth is, under one key after the other: by the rule itself."""
    chance = random.Random(15)
    keys = [chance.randbytes(32) for _ in range(REPETITIONS)]
    return np.array([[is_measured(f"chatcmpl-{each}", key, TENTH) for each in range(RESPONSES)] for key in keys])


def _errors(x, y, chosen):
    """Each sample's shares, their standard errors by the full measurement, and those that the sample tells."""
    n, credit = chosen.sum(axis=1)[:, None], (chosen @ x)[:, None]
    shares, left_out = chosen @ y / credit, 1 - n / len(x)
    spread = ((y - y.sum(axis=0) / x.sum() * x[:, None]) ** 2).sum(axis=0) / (len(x) - 1)
    squares = chosen @ y**2 - 2 * shares * (chosen @ (y * x[:, None])) + shares**2 * (chosen @ x**2)[:, None]
    return shares, np.sqrt(left_out / n * spread) / x.mean(), np.sqrt(left_out * n / credit**2 * squares / (n - 1))


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_tenth_comes_within_three_errors_of_the_whole(name, choices):
    """In 99 of 100 samples each share is within three standard errors, by the full measurement, of what that has.

    Also by the errors that the sample tells, of clients who earn in many responses. Of who earns in a few, what a
    sample tells is too small now and then.
    """
    chance = np.random.default_rng(15)
    tokens = chance.integers(16, 257, RESPONSES).astype(float)
    credit = DISTRIBUTIONS[name](chance, RESPONSES) * tokens[:, None]
    shares, true, told = _errors(tokens, credit, choices)
    off = np.abs(shares - credit.sum(axis=0) / tokens.sum())
    often = (credit[:, :3] > 0.02 * tokens[:, None]).mean(axis=0) > 0.25

    assert ((off <= 3 * true).mean(axis=0) >= 0.99).all()
    assert ((off <= 3 * told).mean(axis=0)[:3][often] >= 0.99).all()
    assert often.any() or name == "mostly the commons'"


def test_the_simulated_shares_and_errors_are_those_that_are_settled(choices):
    """What the simulation computes for a sample is what a settlement comes to, to nine digits."""
    chance, chosen = np.random.default_rng(15), choices[0]
    tokens = chance.integers(16, 257, RESPONSES)
    credit = np.floor(DISTRIBUTIONS["skewed"](chance, RESPONSES) * tokens[:, None] * MICRO_CREDITS_PER_TOKEN)
    key = StratumKey("demo", "a" * 64, "0.1")
    responses = [
        Response(
            key, int(count), {str(account): int(amount) for account, amount in enumerate(own)} if is_chosen else None
        )
        for count, own, is_chosen in zip(tokens, credit, chosen, strict=True)
    ]
    stratum = strata_of(responses)[key]
    shares, _, told = _errors(tokens * 1e6, credit, choices[:1])
    settled, errors = stratum.divide("p"), standard_errors({key: stratum}, int(tokens.sum()))
    for account in range(4):
        whole = stratum.own[str(account)] + settled[str(account)]

        assert abs(whole / (tokens.sum() * 1e6) - shares[0, account]) < 1e-6
        assert abs(float(errors[str(account)]) - told[0, account]) < 1e-9
