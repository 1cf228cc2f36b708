"""The ledger against a dict: whatever the order of appends, repeats, conflicts, closes and reopenings, they agree."""

import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from rewards import ConflictError, Ledger, PeriodEmptyError, Policy, periods
from tests.rewards.receipts import make_receipt

POLICY = Policy(pool=100, currency="EUR")


class LedgerAgainstDict(RuleBasedStateMachine):
    """Receipts by id in the order of booking, and the ends of the closed periods."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.url = f"sqlite:///{Path(self.folder.name)}/ledger.db"
        Ledger.prepare(self.url)
        self.ledger = Ledger(self.url)
        self.receipts = {}
        self.ends = [0]

    def teardown(self):
        """Close and forget."""
        self.ledger.close()
        self.folder.cleanup()

    @rule(response_id=st.sampled_from("abcdef"), tokens=st.integers(1, 3))
    def append(self, response_id, tokens):
        """Booked once: the same again is a replay of the first, another payload a conflict."""
        receipt = make_receipt(response_id, tokens)
        known = self.receipts.get(response_id)
        if known is not None and known != receipt:
            with pytest.raises(ConflictError):
                self.ledger.append(receipt)
            return
        booked = self.ledger.append(receipt)
        self.receipts.setdefault(response_id, receipt)
        assert (known is not None, list(self.receipts).index(response_id) + 1) == (booked.replayed, booked.sequence)

    @precondition(lambda self: self.receipts)
    @rule()
    def close_period(self):
        """A period takes all that was booked since the last one, and is refused when that is nothing."""
        name = f"period-{len(self.ends)}"
        if self.ends[-1] == len(self.receipts):
            with pytest.raises(PeriodEmptyError):
                periods.close(self.ledger, name, POLICY)
            return
        settlement = periods.close(self.ledger, name, POLICY)
        assert (self.ends[-1], len(self.receipts)) == settlement.window
        self.ends.append(len(self.receipts))

    @rule()
    def reopen(self):
        """A ledger that is prepared and opened again is the same ledger."""
        self.ledger.close()
        Ledger.prepare(self.url)
        self.ledger = Ledger(self.url)

    @invariant()
    def balances_agree(self):
        """Balances, tokens and the last sequence are those of the dict."""
        expected = Counter()
        for receipt in self.receipts.values():
            expected.update(receipt.amounts)
        assert dict(expected) == self.ledger.balances()
        assert sum(receipt.tokens for receipt in self.receipts.values()) == self.ledger.tokens()
        assert len(self.receipts) == self.ledger.last_sequence()

    @invariant()
    def periods_agree(self):
        """Periods end where they were closed."""
        assert self.ends[1:] == [period.last_sequence for period in periods.closed(self.ledger)]


TestLedgerAgainstDict = LedgerAgainstDict.TestCase
TestLedgerAgainstDict.settings = settings(max_examples=12, stateful_step_count=15, deadline=None)
