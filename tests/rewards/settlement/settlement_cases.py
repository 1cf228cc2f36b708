"""Random policies, and random chains of periods with holds, late credit, reversals and claw-backs."""

import os
from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st

from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.policy import Currency, Policy

CASES = int(os.environ.get("PROTOKEN_SETTLEMENT_CASES", "500"))
"""Random cases of each property; the whole of them is run once in a while with 100 000."""
cases = settings(max_examples=CASES, deadline=None)

CLIENTS = ("bank", "clinic", "rider", "school", "é")
CURRENCIES = (Currency("EUR", 2), Currency("JPY", 0), Currency("KWD", 3))
APPLICATIONS = ("shop", "lab", "desk")
CREDITS = st.one_of(
    st.just(0), st.integers(1, 9), st.integers(-5, 10**7), st.sampled_from([1, 10**6, 10**15, 2**61]), st.just(-3)
)
MONEY = st.one_of(st.integers(0, 12), st.integers(0, 10**6), st.sampled_from([0, 1, 2**49]))
CLAWBACKS = st.dictionaries(st.sampled_from(CLIENTS), MONEY.map(lambda money: money % 10**6), max_size=2)
PERCENTS = st.sampled_from([0, 1, "2.5", "33.333333", 50, "0.000001", "99.999999", 100])
ACCOUNTS = st.sampled_from([*CLIENTS, "commons"])
# What draws is made once: made anew for each draw, as within a composite, it takes ten times what is tested.
_SOME = st.booleans()
_CURRENCY = st.sampled_from([*[CURRENCIES[0]] * 3, *CURRENCIES])
_COMMONS = st.sampled_from(["retain", "distribute"])
_SOURCE = st.sampled_from(["pool", "pool", "price", "user_centric"])
_PRICE = st.integers(0, 10**7)
_FEES = st.dictionaries(st.sampled_from(APPLICATIONS), st.integers(0, 10**5), min_size=1)
_FEE_PERCENT = st.sampled_from([0, "2.5", "33.333333", 50])
_HOLDBACK_PERCENT = st.sampled_from([0, 10, "33.333333", 50])
_HOLDBACK_PERIODS = st.integers(1, 3)
_MINIMUM = st.sampled_from([0, 1, 5, 1000])
_CAPS = st.dictionaries(st.sampled_from(CLIENTS), PERCENTS, max_size=3)
_BY_APPLICATION = st.dictionaries(
    st.sampled_from(APPLICATIONS), st.dictionaries(ACCOUNTS, CREDITS, max_size=6), max_size=3
)
_TOKENS = st.integers(-2, 2_000_000)
_CREDIT_OF_ONE = st.dictionaries(ACCOUNTS, CREDITS, max_size=1)
_STANDING = st.dictionaries(st.sampled_from(CURRENCIES), CLAWBACKS, max_size=1)
_HELD_CLIENTS = st.frozensets(st.sampled_from(CLIENTS), max_size=2)


@dataclass(frozen=True)
class Window:
    """What `settle` is given for one period, besides the policy and what is carried."""

    credit: PeriodCredit
    held_clients: frozenset[str]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """A valid policy of either allocation, with any of the other rules."""
    currency = draw(_CURRENCY)
    document = {"currency": currency.code, "minor_digits": currency.digits}
    document["commons"] = draw(_COMMONS)
    source = draw(_SOURCE)
    if source == "pool":
        document["pool"] = draw(MONEY)
    elif source == "price":
        document["price_per_million_tokens"] = draw(_PRICE)
    else:
        document["allocation"] = "user_centric"
        document["fees"] = draw(_FEES)
        if draw(_SOME):
            document["max_price_per_million_tokens"] = draw(_PRICE)
    if draw(_SOME):
        document["fee_percent"] = draw(_FEE_PERCENT)
        document["holdback_percent"] = draw(_HOLDBACK_PERCENT)
        if document["holdback_percent"]:
            document["holdback_release_after"] = draw(_HOLDBACK_PERIODS)
        document["minimum_payout"] = draw(_MINIMUM)
    if draw(_SOME):
        document["cap_percent"] = draw(PERCENTS)
        document["caps"] = draw(_CAPS)
    return Policy.from_mapping(document)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Credit of a period by application, with its sums."""
    by_application = draw(_BY_APPLICATION)
    tokens = {application: draw(_TOKENS) for application in by_application}
    credit: Counter[str] = Counter()
    for amounts in by_application.values():
        for account, amount in amounts.items():
            credit[account] += amount
    return Window(
        PeriodCredit(
            window=(0, 9),
            tokens=sum(tokens.values()),
            credit=dict(credit),
            by_application=by_application,
            tokens_by_application=tokens,
            late=draw(_CREDIT_OF_ONE),
            held=draw(_CREDIT_OF_ONE),
            clawbacks=draw(CLAWBACKS),
            standing_clawbacks=draw(_STANDING),
        ),
        draw(_HELD_CLIENTS),
    )


CHAINS = st.lists(windows(), min_size=1, max_size=5)
