"""Periods follow one another without gap, are previewed freely and closed once."""

import pickle
import sqlite3

import pytest

from rewards import LedgerError, PeriodClosedError, PeriodEmptyError, PeriodError, Policy, periods
from tests.rewards.receipts import make_receipt

POLICY = Policy(pool=1001, currency="EUR")


@pytest.fixture
def booked(ledger):
    """A ledger with three receipts."""
    for number in range(3):
        ledger.append(make_receipt(f"r{number}", tokens=number + 1))
    return ledger


def test_preview_is_what_close_stores_and_writes_nothing(booked):
    """A preview gives the settlement that a close would store at this moment, as often as one likes; it stores none."""
    previews = [periods.preview(booked, "2026-11", POLICY) for _ in range(3)]
    assert () == periods.closed(booked)

    settlement = periods.close(booked, "2026-11", POLICY)

    assert [settlement] * 3 == previews
    assert (0, 3) == settlement.window
    assert {"bank": 250, "clinic": 501, "commons": 250, "rider": 0} == {
        line.account: line.payout for line in settlement.lines
    }


def test_a_closed_period_is_kept_whole(booked):
    """What was settled is found by name with its window, its moment and its settlement; another name finds nothing."""
    settlement = periods.close(booked, "2026-11", POLICY)
    period = periods.get(booked, "2026-11")

    assert ("2026-11", 1, 3, settlement) == (
        period.name,
        period.first_sequence,
        period.last_sequence,
        period.settlement,
    )
    assert period.closed_at_us >= booked.receipt("r2")["booked_at_us"]
    assert (period,) == periods.closed(booked)
    assert periods.get(booked, "2026-12") is None


@pytest.mark.parametrize("action", [periods.close, periods.preview])
def test_a_second_close_is_told_what_was_settled(booked, action):
    """Closing a closed period changes nothing, whatever the policy, and the error carries the stored settlement."""
    settlement = periods.close(booked, "2026-11", POLICY)
    booked.append(make_receipt("later"))
    with pytest.raises(PeriodClosedError, match="'2026-11' is closed") as refusal:
        action(booked, "2026-11", Policy(pool=5, currency="USD"))

    assert settlement == refusal.value.settlement
    assert [settlement] == [period.settlement for period in periods.closed(booked)]


def test_the_error_survives_pickling(booked):
    """An error that crosses processes keeps its message and its settlement."""
    settlement = periods.close(booked, "2026-11", POLICY)
    with pytest.raises(PeriodClosedError) as refusal:
        periods.close(booked, "2026-11", POLICY)
    copy = pickle.loads(pickle.dumps(refusal.value))

    assert (str(refusal.value), settlement) == (str(copy), copy.settlement)


def test_late_receipts_belong_to_the_next_period(booked):
    """A period begins where the last one ended: no receipt is settled twice or forgotten."""
    periods.close(booked, "2026-11", POLICY)
    booked.append(make_receipt("late", tokens=5))
    settlement = periods.close(booked, "2026-12", POLICY)

    assert (3, 4) == settlement.window
    assert 5_000_000 == sum(line.credit for line in settlement.lines)
    assert [(1, 3), (4, 4)] == [(period.first_sequence, period.last_sequence) for period in periods.closed(booked)]


def test_a_period_ends_before_the_moment_given(booked):
    """What is booked at or after `until_us` is left to the next period."""
    until_us = booked.receipt("r2")["booked_at_us"]

    assert (0, 2) == periods.close(booked, "2026-11", POLICY, until_us).window
    assert (2, 3) == periods.close(booked, "2026-12", POLICY).window


@pytest.mark.parametrize("action", [periods.close, periods.preview])
def test_an_empty_window_is_refused(booked, action):
    """With nothing booked since the last close, there is nothing to settle."""
    with pytest.raises(PeriodEmptyError, match="since receipt 0 before 5"):
        action(booked, "2026-11", POLICY, 5)
    periods.close(booked, "2026-11", POLICY)
    with pytest.raises(PeriodEmptyError, match=r"'2026-12'.*since receipt 3"):
        action(booked, "2026-12", POLICY)

    assert 1 == len(periods.closed(booked))


@pytest.mark.parametrize("name", ["", " ", "../x", "-x", "a\n", "a b", "x" * 65])
def test_a_name_that_is_none_is_refused(booked, name):
    """A period's name goes into file names and addresses, and must be fit for them."""
    with pytest.raises(PeriodError, match="name"):
        periods.close(booked, name, POLICY)


def test_books_that_do_not_add_up_are_not_settled(booked, tmp_path):
    """When somebody slipped in an entry past the ledger, the close says so and settles nothing."""
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("INSERT INTO entries (receipt_sequence, account, amount) VALUES (2, 'thief', 1)")
    with pytest.raises(LedgerError, match="entries sum to 6000001 micro-credits, tokens to 6000000"):
        periods.close(booked, "2026-11", POLICY)

    assert () == periods.closed(booked)


def test_an_altered_settlement_is_noticed(booked, tmp_path):
    """A stored settlement that does not match its hash is not handed out."""
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute(f"INSERT INTO periods VALUES ('forged', 1, 1, 1, '{{}}', '{{}}', '{'0' * 64}')")
    with pytest.raises(LedgerError, match=r"'forged'.*altered"):
        periods.get(booked, "forged")
