"""A payout explained: every line follows from those before it, and the last is what the settlement pays."""

from dataclasses import replace
from itertools import cycle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.credit import COMMONS
from rewards.errors import CreditError
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.balances import Opening
from rewards.settlement.commons_explanation import explain_commons
from rewards.settlement.explanation import explain_line
from rewards.settlement.expressions import evaluate
from rewards.settlement.policy import Policy
from rewards.settlement.settle import settle
from tests.rewards.settlement.explained import PAGE, page
from tests.rewards.settlement.settlement_cases import CHAINS, cases, policies

MONEY = (
    "gross",
    "carried_in",
    "released_holdback",
    "released_hold",
    "drawn_holdback",
    "recovered",
    "clawback",
    "holdback",
    "held",
    "payout",
    "carried_out",
    "held_total",
    "residue",
    "credit",
)


def settled_chain(policies, chain):
    """Each settlement of a chain, with what it began with and what its window took back."""
    opening, before = Opening(), None
    for ordinal, (policy, window) in enumerate(zip(cycle(policies), chain, strict=False), 1):
        if before is not None:
            opening = before.opening(policy)
        standing = {
            currency: taken for currency, taken in window.credit.standing_clawbacks.items() if currency != policy.money
        }
        credit = replace(window.credit, standing_clawbacks=standing)
        before = settle(f"p{ordinal}", ordinal, credit, policy, opening, window.held_clients)
        yield before, opening, credit


@cases
@given(st.lists(policies(), min_size=1, max_size=3), CHAINS, st.integers(0, 10**6))
def test_each_line_is_the_lines_before_it(several, chain, reversed_credit):
    """By its own formula, in integers, for every client of every period; and each figure is the settlement's."""
    for settlement, opening, credit in settled_chain(several, chain):
        for line in settlement.lines:
            if line.account != COMMONS:
                taken = {"p0": credit.clawbacks[line.account]} if line.account in credit.clawbacks else {}
                steps = explain_line(settlement, opening, line.account, taken, reversed_credit)
                amounts: dict[str, int] = {}
                for step in steps:
                    assert type(step.amount) is int
                    assert not step.formula or step.amount == evaluate(step.formula, amounts)
                    assert step.name not in amounts
                    amounts[step.name] = step.amount
                assert "payout" == steps[-1].name
                assert {name: getattr(line, name) for name in MONEY} == {name: amounts[name] for name in MONEY}
                assert line.share * amounts["whole"] == amounts["part"] <= max(amounts["cap"], 0)
                assert amounts["rounding"] in (0, 1)
                came = sum(amounts[name] for name in MONEY[:6])
                assert (
                    amounts["payout"]
                    == came - sum(amounts[name] for name in ("clawback", "holdback", "held")) - (amounts["carried_out"])
                )


@cases
@given(st.lists(policies(), min_size=1, max_size=3), CHAINS)
def test_each_line_of_the_commons_is_the_lines_before_it(several, chain):
    """By its own formula, in integers, in every period; and each figure is the settlement's."""
    names = ("credit", "gross", "residue", "carried_in", "recovered", "carried_out", "payout")
    for settlement, opening, _ in settled_chain(several, chain):
        (line,) = [line for line in settlement.lines if line.account == COMMONS]
        amounts: dict[str, int] = {}
        for step in explain_commons(settlement, opening):
            assert type(step.amount) is int
            assert not step.formula or step.amount == evaluate(step.formula, amounts)
            assert step.name not in amounts
            amounts[step.name] = step.amount
        assert "payout" == step.name
        assert {name: getattr(line, name) for name in names} == {name: amounts[name] for name in names}
        assert line.share * amounts["whole"] == amounts["part"]


def test_what_the_commons_has_beyond_its_credit_is_told():
    """Of 1000 it has 100 by credit; both clients are cut to 40 %, and the 100 that they may not have are its own."""
    credit = PeriodCredit((0, 9), 10, {"bank": 5_000_000, "clinic": 4_000_000, COMMONS: 1_000_000})
    settlement = settle("p1", 1, credit, Policy(currency="EUR", pool=1000, commons="retain", caps={"bank": "40"}))
    capped = settle(
        "p1", 1, credit, Policy(currency="EUR", pool=1000, commons="retain", caps={"bank": "40", "clinic": "40"})
    )
    told, cut = ({step.name: step.amount for step in explain_commons(each, Opening())} for each in (settlement, capped))

    assert (100 * 10**12, 0, 100) == tuple(told[name] for name in ("by_credit", "beyond_credit", "payout"))
    assert (100 * 10**12, 100 * 10**12, 200) == tuple(cut[name] for name in ("by_credit", "beyond_credit", "payout"))


def test_a_cap_and_what_it_leaves_to_others_are_told():
    """Of 1000, 60 by credit is cut to 40; the two below get the rest by their credit, each line to the trillionth."""
    policy = Policy(currency="EUR", pool=1000, caps={"bank": "40"})
    credit = PeriodCredit((0, 9), 10, {"bank": 6_000_000, "clinic": 3_000_000, "rider": 1_000_000})
    settlement = settle("p1", 1, credit, policy)
    told = {
        client: {step.name: step.amount for step in explain_line(settlement, Opening(), client, {}, 0)}
        for client in ("bank", "clinic", "rider")
    }

    assert (600 * 10**12, 400 * 10**12, 400) == tuple(told["bank"][name] for name in ("by_credit", "part", "payout"))
    assert (300 * 10**12, 600 * 10**12, 4_000_000, 450) == tuple(
        told["clinic"][name] for name in ("by_credit", "left", "below_credit", "payout")
    )
    assert 1000 == sum(amounts["payout"] for amounts in told.values())


def test_a_figure_that_does_not_follow_is_refused():
    """A stored line that was altered is not explained, and the line at fault is named."""
    settlement = settle("p1", 1, PeriodCredit((0, 9), 1, {"bank": 1_000_000}), Policy(currency="EUR", pool=1000))
    (line,) = [line for line in settlement.lines if line.account == "bank"]
    altered = replace(settlement, lines=(replace(line, payout=line.payout + 1),))

    with pytest.raises(CreditError, match=r"'bank' in the settlement of period 'p1' does not add up: payout = "):
        explain_line(altered, Opening(), "bank", {}, 0)
    lines = [replace(each, payout=1) if each.account == COMMONS else each for each in settlement.lines]
    with pytest.raises(CreditError, match=r"'commons' in the settlement of period 'p1' does not add up: payout = "):
        explain_commons(replace(settlement, lines=tuple(lines)), Opening())
    with pytest.raises(CreditError, match="no line of the commons"):
        explain_commons(replace(settlement, lines=(line,)), Opening())
    with pytest.raises(CreditError, match="no line of a client 'commons'"):
        explain_line(settlement, Opening(), "commons", {}, 0)


def test_what_members_read_is_what_was_looked_at():
    """Every line in its words, with its formula and unit, as a person read it and found it right.

    What should read otherwise is written anew by `python -m tests.rewards.settlement.explained`, and looked at.
    """
    assert page() == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize("formula", ["1.5", "a / 2", "open('x')", "a if b else c", "", "1 // 0", "a.real"])
def test_what_is_no_formula_is_refused(formula):
    """Nothing but whole numbers, names and four operations is ever evaluated."""
    with pytest.raises(ValueError, match="formula"):
        evaluate(formula, {"a": 1, "b": 2, "c": 3})
