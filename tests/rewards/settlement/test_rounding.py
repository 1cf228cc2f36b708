"""Divisions are exact, and no client's roundings ever add up to a unit."""

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.credit import COMMONS, split
from rewards.largest_remainder import divide
from rewards.settlement.rounding import UNIT, whole_units
from tests.rewards.settlement.settlement_cases import cases

NAMES = st.sampled_from([COMMONS, "bank", "clinic", "rider", "school", "é"])
WEIGHTS = st.dictionaries(NAMES, st.one_of(st.integers(0, 9), st.integers(0, 2**62)), min_size=1).filter(
    lambda weights: any(weights.values())
)


@cases
@given(st.integers(0, 2**63 - 1), WEIGHTS, st.text(st.characters(codec="utf-8"), max_size=5))
def test_divide_is_split_for_integers(total, weights, salt):
    """Where `credit.split` can go, `divide` comes to the same, unit by unit and tie by tie."""
    assert split(total, weights, salt) == divide(total, weights, salt)


@cases
@given(st.integers(0, 2**120), WEIGHTS)
def test_divide_is_exact_for_any_size(total, weights):
    """The amounts sum to the total, each is within one of its quota, and a weight of zero gets zero."""
    amounts = divide(total, weights, "salt")

    assert total == sum(amounts.values())
    for account, weight in weights.items():
        assert abs(amounts[account] - Fraction(total * weight, sum(weights.values()))) < 1
        assert weight > 0 or amounts[account] == 0


@cases
@given(st.integers(0, 10**6), WEIGHTS, st.dictionaries(NAMES, st.integers(1 - UNIT, UNIT - 1)))
def test_each_client_gets_its_entitlement_rounded_down_or_up(units, weights, residues):
    """Whatever was carried: the units sum, a client gets floor or ceiling, and its residue stays below one unit."""
    entitlements = {COMMONS: 0, **divide(units * UNIT, weights, "salt")}
    paid = whole_units(entitlements, residues, "salt")

    assert units == sum(paid.values())
    assert list(entitlements) == list(paid)
    for client in set(entitlements) - {COMMONS}:
        assert paid[client] in (entitlements[client] // UNIT, -(-entitlements[client] // UNIT))
        assert abs(residues.get(client, 0) + entitlements[client] - paid[client] * UNIT) < UNIT


@cases
@given(st.integers(1, 10**6), WEIGHTS)
def test_without_history_it_is_the_largest_remainder(units, weights):
    """In a first period, the units are those of `split` over the entitlements."""
    entitlements = {COMMONS: 0, **divide(units * UNIT, weights, "salt")}

    assert split(units, entitlements, "salt") == whole_units(entitlements, {}, "salt")


def run(periods, clients):
    """Accounts' summed entitlements and units over (entitlements of a period), checking each period's residues."""
    residues = dict.fromkeys([*clients, COMMONS], 0)
    for number, entitlements in enumerate(periods(residues)):
        paid = whole_units(entitlements, residues, f"period-{number}")
        for account, entitlement in entitlements.items():
            residues[account] += entitlement - paid[account] * UNIT
        yield entitlements, paid, residues


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("commons", [0, 0.001, 0.4])
def test_nobody_drifts_over_a_thousand_periods(seed, commons):
    """1 000 pools of 3 to 12 units over 9 clients, most absent at times: what each got in all is within one unit."""
    numbers = random.Random(seed)
    clients = [f"client-{number}" for number in range(9)]
    strengths = {client: 2.0 ** -numbers.randrange(12) for client in clients}

    def periods(_):
        for _ in range(1000):
            weights = {
                client: int(10**9 * strengths[client] * numbers.random()) * (numbers.random() < 0.7)
                for client in clients
            } | {COMMONS: int(10**9 * commons) + 1}
            yield divide(numbers.randint(3, 12) * UNIT, weights, "p")

    entitled, got = dict.fromkeys([*clients, COMMONS], 0), dict.fromkeys([*clients, COMMONS], 0)
    for entitlements, paid, residues in run(periods, clients):
        for account in entitled:
            entitled[account] += entitlements.get(account, 0)
            got[account] += paid.get(account, 0)
            assert account == COMMONS or abs(entitled[account] - got[account] * UNIT) < UNIT
        assert sum(entitled.values()) == sum(got.values()) * UNIT
        assert sum(residues.values()) == 0
        assert abs(residues[COMMONS]) < len(clients) * UNIT


@pytest.mark.parametrize("count", [4, 12, 60])
def test_the_harmonic_adversary_gains_nothing(count):
    """One unit a period, among those only who never got one: 1/n + 1/(n-1) + … owed, the worst case of fair carpools.

    A rule that gives out one unit a period and no more leaves the last client ln(n) units short. Here the clients are
    due as soon as a whole unit is owed to them, and the commons pays it.
    """
    clients = [f"client-{number}" for number in range(count)]
    waiting = list(clients)

    def periods(_):
        while len(waiting) > 1:
            yield {COMMONS: 0, **divide(UNIT, dict.fromkeys(waiting, 1), "p")}

    lowest = 0
    for length, (_, paid, residues) in enumerate(run(periods, clients), start=1):
        waiting = [client for client in waiting if not paid.get(client)]
        lowest = min(lowest, paid[COMMONS])
        assert length < count
        assert all(abs(residues[client]) < UNIT for client in clients)
    assert -count < lowest < 0


def test_a_null_client_gets_nothing_and_keeps_what_it_is_owed():
    """Without entitlement there is no unit, however much rounding owes; it comes with the next entitlement."""
    owed = {"bank": 0, "rider": UNIT - 1, COMMONS: 1 - UNIT}

    assert {"bank": 1, "rider": 0, COMMONS: 0} == whole_units({"bank": UNIT, "rider": 0, COMMONS: 0}, owed, "p")
    assert {"bank": 0, "rider": 1, COMMONS: 0} == whole_units({"bank": UNIT - 1, "rider": 1, COMMONS: 0}, owed, "p")


def test_the_commons_absorbs_what_several_clients_are_due_at_once():
    """Two clients who are each due a unit get it, also when the period has but one; the commons is short of it."""
    owed = {"bank": UNIT // 2, "clinic": UNIT // 2, COMMONS: -UNIT}

    assert {"bank": 1, "clinic": 1, COMMONS: -1} == whole_units(
        {"bank": UNIT // 2, "clinic": UNIT // 2, COMMONS: 0}, owed, "p"
    )


def test_a_whole_entitlement_is_paid_as_it_is():
    """Whoever is due whole units gets them, however near to a unit its residue is; the one left is another's."""
    entitlements = {COMMONS: UNIT // 2, "bank": 3 * UNIT, "clinic": UNIT // 2}

    assert 3 == whole_units(entitlements, {"bank": UNIT - 1}, "salt")["bank"]
