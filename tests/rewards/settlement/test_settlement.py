"""Settlements as a whole: as the slow rules say, no money made or lost, and the same bytes every time."""

import json
import re
from collections import Counter
from dataclasses import replace
from fractions import Fraction

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from rewards.credit import COMMONS, canonical_bytes
from rewards.errors import CreditError, PolicyError
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.balances import Balance, Opening, Purse
from rewards.settlement.document import FIRST_RULE, Settlement
from rewards.settlement.policy import Policy
from rewards.settlement.rounding import UNIT
from rewards.settlement.settle import settle
from tests.rewards.settlement.settlement_cases import CHAINS, cases, policies, windows
from tests.rewards.settlement.settlement_oracle import settle_slowly

EUR = Policy(currency="EUR", pool=100)


def period_credit(credit, **fields):
    """Credit of a window of one token."""
    return PeriodCredit(window=(0, 1), tokens=1, credit=credit, **fields)


def carrying(balances):
    """A period that begins with these balances in the currency of its policy."""
    return Opening(Purse(balances))


def payouts(credit, policy):
    """Account -> payout, and whether the pool was unclaimed."""
    settlement = settle("p", 1, period_credit(credit), policy)
    return {line.account: line.payout for line in settlement.lines}, settlement.unclaimed


def chain(policies, windows):
    """The settlements of one period after the other, each with what it began with and its credit."""
    opening, settlement = Opening(), None
    for ordinal, (policy, window) in enumerate(zip(policies, windows, strict=True), start=1):
        if settlement is not None:
            opening = settlement.opening(policy)
        credit = in_other_currencies(window.credit, policy)
        settlement = settle(f"p{ordinal}", ordinal, credit, policy, opening, window.held_clients)
        yield settlement, opening, credit


def in_other_currencies(credit, policy):
    """The credit without what would be taken back of the policy's own currency beside its claw-backs."""
    standing = {money: each for money, each in credit.standing_clawbacks.items() if money != policy.money}
    return replace(credit, standing_clawbacks=standing)


def plain(purses):
    """The oracle's purses as those of a settlement are written above."""
    nothing = [0, 0, 0, (), 0]
    found = {
        money: [
            purse["pool"] * UNIT,
            purse["fee"] * UNIT,
            {
                account: [
                    each["residue"] * UNIT,
                    each["carry"] - each["debt"],
                    each["held"],
                    tuple(map(tuple, each["holdbacks"])),
                    each["clawback"],
                ]
                for account, each in purse["accounts"].items()
            },
        ]
        for money, purse in purses.items()
    }
    for _, _, accounts in found.values():
        for account in [name for name, each in accounts.items() if each == nothing]:
            del accounts[account]
    return {money: each for money, each in found.items() if any(each)}


def on_fields(line, wanted):
    """The fields of a line that the oracle speaks of."""
    return {name: getattr(line, name) for name in wanted}


@cases
@given(st.lists(policies(), min_size=5, max_size=5), CHAINS)
def test_every_line_is_what_the_slow_rules_say(policies, windows):
    """Over chains of periods, under policies that change, the settlement is the oracle's, field by field."""
    policies, purses = policies[: len(windows)], {}
    for (settlement, _, credit), policy, window in zip(chain(policies, windows), policies, windows, strict=True):
        pool, fee, lines = settle_slowly(
            settlement.period, settlement.ordinal, credit, policy, purses, window.held_clients
        )

        assert (pool, fee) == (settlement.pool, settlement.fee)
        assert plain(purses) == {
            money: [
                purse.pool_fraction,
                purse.fee_fraction,
                {
                    account: [each.residue, each.carry, each.held, each.holdbacks, each.clawback]
                    for account, each in purse.open_balances.items()
                },
            ]
            for money, purse in settlement.purses.items()
            if not purse.is_empty
        }
        assert list(lines) == [line.account for line in settlement.lines]
        for line in settlement.lines:
            expected = lines[line.account] | {"residue": lines[line.account]["residue"] * UNIT}
            assert expected == on_fields(line, expected)
            assert window.credit.credit.get(line.account, 0) == line.credit
            assert window.credit.late.get(line.account, 0) == line.late
            assert window.credit.held.get(line.account, 0) == line.held_credit


@cases
@given(st.lists(policies(), min_size=5, max_size=5), CHAINS)
def test_no_money_is_made_or_lost(policies, windows):
    """Line by line what comes in goes out; over a chain the pools of a currency are its fees, payouts and what is left.

    A currency that a period is not settled in stands as it stood, but for what is to be taken back in it.
    """
    pools, fees, paid, advanced, last = Counter(), Counter(), Counter(), {}, {}
    for settlement, opening, credit in chain(policies[: len(windows)], windows):
        lines = {line.account: line for line in settlement.lines}
        assert settlement.pool - settlement.fee == settlement.distributable
        assert settlement.distributable == sum(line.gross for line in settlement.lines)
        for line in settlement.lines:
            assert (
                line.gross + line.carried_in + line.released_holdback + line.released_hold
                + line.drawn_holdback + line.recovered
                == line.clawback + line.holdback + line.held + line.payout + line.carried_out
            )  # fmt: skip
            before = opening.own.of(line.account)
            assert before.held - line.released_hold + line.held == line.held_total
            kept = sum(amount for _, amount in before.holdbacks)
            assert kept - line.released_holdback - line.drawn_holdback + line.holdback == sum(
                amount for _, amount in line.holdbacks
            )
            assert line.payout >= 0
        assert sum(line.recovered for line in settlement.lines) == sum(
            line.clawback + max(-line.carried_in, 0) - max(-line.carried_out, 0)
            for line in settlement.lines
            if line.account != COMMONS
        )
        assert settlement.policy.commons == "distribute" or lines[COMMONS].recovered == sum(
            line.recovered for line in settlement.lines
        )
        assert standing_changes(settlement, opening) == {
            (currency, client): amount
            for currency, clawbacks in credit.standing_clawbacks.items()
            for client, amount in clawbacks.items()
            if amount
        }
        money = settlement.policy.money
        pools[money] += settlement.pool
        fees[money] += settlement.fee
        paid[money] += sum(line.payout for line in settlement.lines)
        advanced[money] = max(-lines[COMMONS].carried_out, 0)
        assert advanced[money] < len(lines)
        last = settlement.purses
    for money, pool in pools.items():
        left = sum(balance.money for balance in last.get(money, Purse()).balances.values())
        assert pool + advanced[money] == fees[money] + paid[money] + left


def standing_changes(settlement, opening):
    """What stands otherwise than before: (currency, client) -> minor units more to take back; nothing else may."""
    changes = {}
    assert {money for money, purse in opening.standing.items() if not purse.is_empty} <= settlement.standing.keys()
    for currency, purse in settlement.standing.items():
        old = opening.standing.get(currency, Purse())
        assert (old.pool_fraction, old.fee_fraction) == (purse.pool_fraction, purse.fee_fraction)
        for account in {*old.balances, *purse.balances}:
            before, after = old.of(account), purse.of(account)
            assert replace(after, clawback=before.clawback) == before
            if after != before:
                changes[currency, account] = after.clawback - before.clawback
    return changes


@cases
@given(st.lists(policies(), min_size=5, max_size=5), CHAINS)
def test_no_client_drifts(policies, windows):
    """A client's gross is its share rounded down or up in each period, and within one unit of it over all of them."""
    entitled, got = Counter(), Counter()
    for settlement, _, _ in chain(policies[: len(windows)], windows):
        assert 1 == sum(line.share for line in settlement.lines)
        assert 0 == sum(line.residue for line in settlement.lines)
        for line in settlement.lines:
            account = settlement.policy.money, line.account
            entitled[account] += line.share * settlement.distributable
            got[account] += line.gross
            assert entitled[account] - got[account] == Fraction(line.residue, UNIT)
            if line.account != COMMONS:
                assert abs(line.gross - line.share * settlement.distributable) < 1
                assert abs(line.residue) < UNIT
                assert line.gross == 0 or line.credit > 0


@cases
@given(st.lists(policies(), min_size=5, max_size=5), CHAINS)
def test_pools_and_fees_lose_no_fraction(policies, windows):
    """Over a chain the pools of a currency are prices times tokens, and its fees percentages, to within one unit."""
    prices, pools, exact, fees = Counter(), Counter(), Counter(), Counter()
    for settlement, _, credit in chain(policies[: len(windows)], windows):
        policy, money = settlement.policy, settlement.policy.money
        if policy.price_per_million_tokens is not None:
            pools[money] += settlement.pool
            prices[money] += Fraction(policy.price_per_million_tokens * max(credit.tokens, 0), 10**6)
        fees[money] += settlement.fee
        exact[money] += settlement.pool * policy.fee_percent / 100

        assert prices[money] - pools[money] == Fraction(settlement.pool_fraction, UNIT) < 1
        assert exact[money] - fees[money] == Fraction(settlement.fee_fraction, UNIT) < 1


@cases
@given(policies(), windows(), st.randoms(use_true_random=False))
def test_the_same_input_gives_the_same_bytes(policy, window, random):
    """Nothing depends on the order of mappings; the document has no float, and reads back as the same settlement."""

    def shuffled(mapping):
        items = list(mapping.items())
        random.shuffle(items)
        return dict(items)

    credit = in_other_currencies(window.credit, policy)
    before = settle("p1", 1, credit, policy)
    opening = before.opening(policy)
    settlement = settle("p2", 2, credit, policy, opening, window.held_clients)
    other = replace(
        credit,
        **{name: shuffled(getattr(credit, name)) for name in ("credit", "late", "held", "clawbacks")},
        by_application=shuffled({name: shuffled(each) for name, each in credit.by_application.items()}),
        tokens_by_application=shuffled(credit.tokens_by_application),
    )
    again = Policy.from_mapping(shuffled(policy.model_dump(exclude_none=True)))
    purse = replace(opening.own, balances=shuffled(opening.own.balances))
    other_opening = Opening(purse, shuffled(opening.standing))
    stored = canonical_bytes(settlement.to_document())

    assert settlement.sha256 == settle("p2", 2, other, again, other_opening, window.held_clients).sha256
    assert settlement == Settlement.from_document(json.loads(stored))
    assert stored == rfc8785.dumps(settlement.to_document())
    assert settlement.purses == Settlement.from_document(json.loads(stored)).purses


def test_the_bytes_never_change():
    """The document of one fixed input is pinned under each rule: what was signed stays checkable for ever."""
    policy = Policy(
        currency="EUR", pool=10_007, fee_percent="2.5", cap_percent=40, holdback_percent=10, minimum_payout=50
    )
    credit = period_credit(
        {"bank": 7_000_001, "clinic": 2_000_000, "rider": 0, COMMONS: 1_999_999},
        late={"bank": 1},
        held={"clinic": 5},
        clawbacks={"rider": 3},
    )
    opening = Opening(Purse({"bank": Balance(5, 7, 0, ((2, 9),)), "clinic": Balance(-5, 0, 11, ())}))
    first = settle("2026-11", 2, credit, policy, opening, frozenset({"clinic"}), FIRST_RULE)
    second = settle("2026-11", 2, credit, policy, opening, frozenset({"clinic"}))

    assert "4fd66bb424b573def2075b9239fd5042751041a33495e74bfecd88f7a011cb84" == first.sha256
    assert "202061318e80501abc94d5d8b5c6ebff4f0d24f0976a0d46de007ddaba3be652" == second.sha256
    assert first == Settlement.from_document(first.to_document())


def test_a_retained_commons_is_paid_like_an_account():
    """With `retain`, the commons' part stays with the consortium's treasury."""
    assert ({"bank": 10, "clinic": 30, COMMONS: 60}, False) == payouts({"bank": 1, "clinic": 3, COMMONS: 6}, EUR)


def test_a_distributed_commons_goes_to_the_clients():
    """With `distribute`, the pool is shared among the clients alone, in proportion to their credit."""
    assert ({"bank": 25, "clinic": 75, COMMONS: 0}, False) == payouts(
        {"bank": 1, "clinic": 3, COMMONS: 6}, Policy(currency="EUR", pool=100, commons="distribute")
    )


@pytest.mark.parametrize("commons", ["retain", "distribute"])
@pytest.mark.parametrize("credit", [{}, {"bank": 0}, {"bank": 0, COMMONS: 0}, {"bank": -5}])
def test_without_credit_the_commons_holds_the_pool_and_says_so(commons, credit):
    """When nobody has positive credit, the commons has all of it and the settlement is marked unclaimed."""
    paid, unclaimed = payouts(credit, Policy(currency="EUR", pool=100, commons=commons))

    assert (100, True) == (paid.pop(COMMONS), unclaimed)
    assert not any(paid.values())


def test_distributing_among_clients_without_credit_is_unclaimed():
    """With `distribute` and credit of the commons only, there is nobody to distribute to: the commons keeps it."""
    distribute = Policy(currency="EUR", pool=100, commons="distribute")

    assert ({"bank": 0, COMMONS: 100}, True) == payouts({"bank": 0, COMMONS: 5}, distribute)
    assert ({"bank": 0, COMMONS: 100}, False) == payouts({"bank": 0, COMMONS: 5}, EUR)


def test_fees_that_nobody_earned_are_unclaimed():
    """Under `user_centric`, a period in which no paying application was served is unclaimed."""
    policy = Policy(currency="EUR", allocation="user_centric", fees={"shop": 100})
    others = period_credit({"bank": 5}, by_application={"desk": {"bank": 5}}, tokens_by_application={"desk": 1})
    settlement = settle("p", 1, others, policy)

    assert ([0, 100], True) == ([line.payout for line in settlement.lines], settlement.unclaimed)


def test_an_account_with_only_a_balance_has_a_line():
    """What is carried for a client without credit stays on the settlement, and is not forgotten."""
    settlement = settle("p", 2, period_credit({COMMONS: 1}), EUR, carrying({"bank": Balance(residue=7, held=30)}))

    assert ["bank", COMMONS] == [line.account for line in settlement.lines]
    assert (30, Balance(residue=7)) == (settlement.lines[0].payout, settlement.next_balances["bank"])


def test_large_numbers_are_text():
    """Credit and residues beyond what JSON keeps exact are decimal text, and a share is an exact fraction."""
    line = settle("p", 1, period_credit({"bank": 2**62, "clinic": 2**61}), EUR).to_document()["lines"][0]

    assert ("4611686018427387904", "-333333333333") == (line["credit"], line["residue"])
    assert "66666666666667/100000000000000" == line["share"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"period": ""}, "name of the period"),
        ({"period": "a\nb"}, "name of the period"),
        ({"ordinal": -1}, "ordinal"),
        ({"ordinal": True}, "ordinal"),
        ({"held_clients": frozenset({COMMONS})}, "the commons cannot be on hold"),
        ({"opening": carrying({"bank": Balance(residue=UNIT)})}, "residue of 'bank'"),
        ({"opening": carrying({"bank": Balance(residue=-UNIT)})}, "residue of 'bank'"),
        ({"opening": carrying({"bank": Balance(residue=0.5)})}, "residue of 'bank'"),
        ({"opening": carrying({"bank": Balance(carry=2**53)})}, "balance of 'bank'"),
        ({"opening": carrying({"bank": Balance(held=-1)})}, "held of 'bank'"),
        ({"opening": carrying({"bank": Balance(holdbacks=((1, -1),))})}, "held of 'bank'"),
        ({"opening": carrying({COMMONS: Balance(held=1)})}, "balance of the commons"),
        ({"opening": carrying({"pending": Balance()})}, "pending"),
        ({"opening": carrying({"bank": Balance(carry=2**53 - 1)})}, "of 'bank' must be"),
    ],
)
def test_what_no_period_carries_is_refused(arguments, named):
    """Residues of a unit or more, holds on the commons, pending balances and sums beyond JSON are refused by name."""
    given = {"period": "p", "ordinal": 1, "credit": period_credit({"bank": 1}), "policy": EUR}
    with pytest.raises(CreditError, match=named):
        settle(**given | arguments)


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.pop("fee"),
        lambda document: document.update(more=1),
        lambda document: document.update(fee=0.0),
        lambda document: document.update(window=[0, 1]),
        lambda document: document.update(lines=None),
        lambda document: document["window"].update(more=1),
        lambda document: document["lines"][0].update(share="2/4"),
        lambda document: document["lines"][0].update(share="1/0"),
        lambda document: document["lines"][0].update(credit=1),
        lambda document: document["lines"][0].update(credit="1_0"),
        lambda document: document["lines"][0].update(gross="50"),
        lambda document: document["lines"][0].update(gross=2**53),
        lambda document: document["lines"][0].update(payout=50.0),
        lambda document: document["lines"][0].pop("holdbacks"),
        lambda document: document["policy"].update(pool=None, price_per_million_tokens=0.5),
    ],
)
def test_a_document_that_no_settlement_writes_is_refused(change):
    """Fields missing, unknown, of the wrong kind or spelt in another way are refused, never read for something else."""
    document = settle("p", 1, period_credit({"bank": 1, COMMONS: 1}), EUR).to_document()
    change(document)
    with pytest.raises((CreditError, PolicyError), match=re.compile("not a settlement|policy of the|of 'bank'")):
        Settlement.from_document(document)


def test_money_beyond_what_json_keeps_exact_is_refused():
    """A payout above 2**53 - 1 minor units is refused by the name of its account, and never rounded."""
    policy = Policy(currency="EUR", pool=2**53 - 1)
    opening = carrying({"bank": Balance(carry=1)})

    with pytest.raises(CreditError, match="'bank' must be an integer of minor units"):
        settle("2026-11", 2, period_credit({"bank": 1_000_000}), policy, opening)
