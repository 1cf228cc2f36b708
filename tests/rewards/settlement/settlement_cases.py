"""Random policies, and random chains of periods with holds, late credit, reversals and claw-backs."""

import os
from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st

from rewards.settlement.policy import Currency, Policy
from rewards.settlement.rule import PeriodCredit

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


@dataclass(frozen=True)
class Window:
    """What `settle` is given for one period, besides the policy and what is carried."""

    credit: PeriodCredit
    held_clients: frozenset[str]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """A valid policy of either allocation, with any of the other rules."""
    currency = draw(st.sampled_from([*[CURRENCIES[0]] * 3, *CURRENCIES]))
    document = {"currency": currency.code, "minor_digits": currency.digits}
    document["commons"] = draw(st.sampled_from(["retain", "distribute"]))
    source = draw(st.sampled_from(["pool", "pool", "price", "user_centric"]))
    if source == "pool":
        document["pool"] = draw(MONEY)
    elif source == "price":
        document["price_per_million_tokens"] = draw(st.integers(0, 10**7))
    else:
        document["allocation"] = "user_centric"
        document["fees"] = draw(st.dictionaries(st.sampled_from(APPLICATIONS), st.integers(0, 10**5), min_size=1))
        if draw(st.booleans()):
            document["max_price_per_million_tokens"] = draw(st.integers(0, 10**7))
    if draw(st.booleans()):
        document["fee_percent"] = draw(st.sampled_from([0, "2.5", "33.333333", 50]))
        document["holdback_percent"] = draw(st.sampled_from([0, 10, "33.333333", 50]))
        if document["holdback_percent"]:
            document["holdback_release_after"] = draw(st.integers(1, 3))
        document["minimum_payout"] = draw(st.sampled_from([0, 1, 5, 1000]))
    if draw(st.booleans()):
        document["cap_percent"] = draw(PERCENTS)
        document["caps"] = draw(st.dictionaries(st.sampled_from(CLIENTS), PERCENTS, max_size=3))
    return Policy.from_mapping(document)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    """Credit of a period by application, with its sums."""
    accounts = st.sampled_from([*CLIENTS, "commons"])
    by_application = draw(
        st.dictionaries(st.sampled_from(APPLICATIONS), st.dictionaries(accounts, CREDITS, max_size=6), max_size=3)
    )
    tokens = {application: draw(st.integers(-2, 2_000_000)) for application in by_application}
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
            late=draw(st.dictionaries(accounts, CREDITS, max_size=1)),
            held=draw(st.dictionaries(accounts, CREDITS, max_size=1)),
            clawbacks=draw(CLAWBACKS),
            standing_clawbacks=draw(st.dictionaries(st.sampled_from(CURRENCIES), CLAWBACKS, max_size=1)),
        ),
        draw(st.frozensets(st.sampled_from(CLIENTS), max_size=2)),
    )


CHAINS = st.lists(windows(), min_size=1, max_size=5)
