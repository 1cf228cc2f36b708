"""From gross to payout: holdbacks, holds, the minimum, claw-backs and debts, case by case in small numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.credit import COMMONS
from rewards.errors import CreditError
from rewards.settlement.account_line import Line
from rewards.settlement.allocation import PeriodCredit
from rewards.settlement.balances import Balance, Opening, Purse
from rewards.settlement.payout import clawback
from rewards.settlement.policy import Policy
from rewards.settlement.settle import settle
from tests.rewards.settlement.settlement_cases import cases


def settle_all(*periods, held=(), **policy):
    """Lines of bank and of the commons, period by period; each is (bank's gross, claw-back) of a pool of 100."""
    carried, lines = {}, []
    for ordinal, (gross, taken_back) in enumerate(periods, start=1):
        settlement = settle(
            f"p{ordinal}",
            ordinal,
            PeriodCredit((0, 1), 1, {"bank": gross, COMMONS: 100 - gross}, clawbacks={"bank": taken_back}),
            Policy(currency="EUR", pool=100, **policy),
            Opening(Purse(carried)),
            frozenset({"bank"} if ordinal in held else ()),
        )
        carried = settlement.next_balances
        lines.append(settlement.lines)
    return lines


def of_bank(periods, *names):
    """The named fields of bank's line, period by period."""
    return [tuple(getattr(bank, name) for name in names) for bank, _ in periods]


def test_a_holdback_is_paid_after_its_periods():
    """A tenth of each gross, rounded down, is kept back and paid two periods later, in full."""
    periods = settle_all((99, 0), (50, 0), (0, 0), (0, 0), holdback_percent=10, holdback_release_after=2)

    assert [(9, 0, 90), (5, 0, 45), (0, 9, 9), (0, 5, 5)] == of_bank(periods, "holdback", "released_holdback", "payout")
    assert [((3, 9),), ((3, 9), (4, 5)), ((4, 5),), ()] == [bank.holdbacks for bank, _ in periods]


def test_what_is_below_the_minimum_is_carried_until_it_is_reached():
    """Small amounts add up: nothing is lost by a minimum, it only comes later."""
    periods = settle_all((30, 0), (30, 0), (40, 0), minimum_payout=90)

    assert [(0, 0, 30), (30, 0, 60), (60, 100, 0)] == of_bank(periods, "carried_in", "payout", "carried_out")


def test_a_hold_keeps_everything_until_it_is_released():
    """On hold a client is paid nothing, not even what is carried or released; afterwards it gets all of it at once."""
    periods = settle_all((30, 0), (30, 0), (30, 0), held=(1, 2), holdback_percent=10)

    assert [(27, 27, 0), (30, 57, 0), (0, 0, 87)] == of_bank(periods, "held", "held_total", "payout")
    assert [0, 0, 57] == [bank.released_hold for bank, _ in periods]


def test_a_clawback_is_set_off_against_what_falls_due():
    """What is taken back lowers the payout, and the commons recovers it in the same period."""
    [(bank, commons)] = settle_all((60, 25))

    assert (60, 25, 35, 0) == (bank.gross, bank.clawback, bank.payout, bank.carried_out)
    assert (40, 25, 65) == (commons.gross, commons.recovered, commons.payout)


def test_a_clawback_reaches_for_the_kept_holdbacks_oldest_first():
    """More than falls due comes out of the holdbacks, the oldest first, and only the rest becomes a debt."""
    periods = settle_all((50, 0), (20, 0), (0, 9), (0, 20), holdback_percent=20, holdback_release_after=9)

    assert [((10, 10),), ((10, 10), (11, 4)), ((10, 1), (11, 4)), ()] == [bank.holdbacks for bank, _ in periods]
    assert [(0, 0), (0, 0), (9, 0), (5, -15)] == of_bank(periods, "drawn_holdback", "carried_out")


def test_a_debt_is_paid_off_by_later_periods_and_the_commons_gets_no_more_than_there_is():
    """A debt is carried; the commons recovers it only as money comes in, and then the client is paid again."""
    periods = settle_all((0, 70), (50, 0), (50, 0))

    assert [(0, -70), (0, -20), (30, 0)] == of_bank(periods, "payout", "carried_out")
    assert [0, 50, 20] == [commons.recovered for _, commons in periods]
    assert [100, 100, 70] == [commons.payout for _, commons in periods]


def test_a_new_holdback_pays_a_debt_before_it_is_kept():
    """Nobody owes and has money kept back at once: the holdback of the same period is drawn on as well."""
    [(bank, commons)] = settle_all((50, 45), holdback_percent=20)

    assert (10, 5, ((2, 5),), 0, 0) == (
        bank.holdback, bank.drawn_holdback, bank.holdbacks, bank.payout, bank.carried_out
    )  # fmt: skip
    assert 45 == commons.recovered


def test_a_hold_does_not_stop_a_clawback():
    """On hold, a claw-back takes what falls due first; only what remains is withheld."""
    [(bank, commons)] = settle_all((60, 25), held=(1,))

    assert (35, 0, 0) == (bank.held, bank.payout, bank.carried_out)
    assert 25 == commons.recovered


def test_the_commons_owes_what_rounding_gave_to_clients():
    """Where the clients' roundings leave the commons below zero, it is paid nothing and makes it good first."""
    half = 10**12 // 2
    carried = {"bank": Balance(half), "clinic": Balance(half), COMMONS: Balance(-2 * half)}
    credit = PeriodCredit((0, 1), 1, {"bank": 1, "clinic": 1})
    short = settle("p", 1, credit, Policy(currency="EUR", pool=1), Opening(Purse(carried)))
    policy = Policy(currency="EUR", pool=5)
    later = settle("q", 2, PeriodCredit((0, 1), 1, {COMMONS: 1}), policy, short.opening(policy))

    assert [(1, 1), (1, 1), (-1, 0)] == [(line.gross, line.payout) for line in short.lines]
    assert (-1, Balance(residue=0, carry=-1)) == (short.lines[2].carried_out, short.next_balances[COMMONS])
    assert (5, -1, 4) == (later.lines[2].gross, later.lines[2].carried_in, later.lines[2].payout)


def line(credit, gross):
    """A line of bank that earned `gross` by `credit`."""
    return Line("bank", credit, 0, 0, 0, 0, gross)


@pytest.mark.parametrize(
    ("credit", "gross", "reversed_credit", "expected"),
    [
        (1000, 100, 10, 1),
        (1000, 100, 19, 1),
        (1000, 100, 1000, 100),
        (1000, 100, 5000, 100),
        (1000, 0, 10, 0),
        (0, 0, 10, 0),
        (-5, 0, 10, 0),
        (2**62, 2**53 - 1, 2**61, 2**52 - 1),
    ],
)
def test_a_clawback_is_what_the_reversed_credit_earned(credit, gross, reversed_credit, expected):
    """Rounded down, never above the gross, and nothing where nothing was paid."""
    assert expected == clawback(line(credit, gross), reversed_credit)


@cases
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6), st.integers(0, 10**9), st.integers(0, 2**40))
def test_clawbacks_of_single_responses_never_exceed_the_gross(responses, rest, gross):
    """Reversing the responses of a line one by one takes back no more than it paid, nor more than all at once."""
    earned = line(sum(responses) + rest, gross)
    apart = sum(clawback(earned, credit) for credit in responses)

    assert apart <= clawback(earned, sum(responses)) <= gross


def test_negative_reversed_credit_is_refused():
    """A claw-back never becomes a gift."""
    with pytest.raises(CreditError, match="reversed credit of 'bank'"):
        clawback(line(10, 10), -1)
