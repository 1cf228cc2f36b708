"""The books against plain dictionaries: whatever the order of receipts, retries, reversals, holds, closes and crashes.

The model knows no SQL and none of the code under test: it counts every response in a loop. In CI each database gets
`STEPS` steps; PROTOKEN_MODEL_STEPS sets another number for a long run.
"""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import event, make_url

from rewards import periods
from rewards.credit import COMMONS
from rewards.errors import HoldError, PeriodEmptyError, PeriodError, ReceiptConflictError, ReversalError
from rewards.ledger.ledger import Ledger
from rewards.periods import holds
from rewards.periods.errors import PeriodClosedError
from rewards.settlement.policy import Policy
from rewards.settlement.rounding import UNIT
from rewards.store.database import now_us
from tests.rewards.conftest import new_database
from tests.rewards.receipts import MEMBERS, make_receipt

STEPS = int(os.environ.get("PROTOKEN_MODEL_STEPS", "2000"))
STEPS_PER_EXAMPLE = 40
HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
SKEW_MINUTES = 10  # of every policy here
NAMES = [f"r{number}" for number in range(12)]
SHARES = [
    {"bank": 0.25, "clinic": 0.5, "rider": 0.0},
    {"bank": 0.0, "clinic": 0.0, "rider": 0.0},
    {"bank": 1 / 3, "clinic": 1 / 3, "rider": 1 / 3 - 1e-9},
]
POLICIES = [
    Policy(pool=1001, currency="EUR"),
    Policy(pool=0, currency="EUR", commons="distribute"),
    Policy.from_mapping(
        {
            "pool": 7,
            "currency": "JPY",
            "minor_digits": 0,
            "commons": "distribute",
            "fee_percent": 10,
            "holdback_percent": "33.3",
            "minimum_payout": 2,
            "cap_percent": 60,
        }
    ),
    Policy(price_per_million_tokens=123_456_789, currency="EUR", dispute_days=1),
]


class CrashError(Exception):
    """The process is gone in the middle of something."""


class BooksAgainstDictionaries(RuleBasedStateMachine):
    """Receipts in the order of booking, holds, and periods with what counts in them."""

    postgresql = ""
    prepared: str | Path  # an empty ledger with the clients registered, to be copied: a file, or a database's name
    compared = 0  # steps after which everything was compared, over all examples

    def __init__(self):
        super().__init__()
        self.receipts: list[dict] = []  # id, reverses, tokens, amounts, created; the sequence is the place + 1
        self.holds: dict[str, dict] = {}
        self.periods: list[dict] = []

    @initialize()
    def open(self):
        """A new ledger on the database under test."""
        self.folder = tempfile.TemporaryDirectory()
        if self.postgresql:
            self.url = new_database(self.postgresql, str(self.prepared))
        else:
            self.url = f"sqlite:///{shutil.copy(self.prepared, self.folder.name)}"
        self.ledger = Ledger(self.url)

    def teardown(self):
        """Close and forget."""
        if hasattr(self, "ledger"):
            self.ledger.close()
            if self.postgresql:
                with psycopg.connect(self.postgresql, autocommit=True) as connection:
                    connection.execute(f"DROP DATABASE {make_url(self.url).database}")
            self.folder.cleanup()

    # What may happen

    @rule(
        name=st.sampled_from(NAMES), tokens=st.integers(1, 3), shares=st.sampled_from(SHARES), crash=st.integers(0, 9)
    )
    def append(self, name, tokens, shares, crash):
        """Booked once: the same again is a replay of the first, another payload a conflict."""
        known = self._find(name)
        receipt = make_receipt(name, tokens, shares)
        if known is not None and (known["tokens"], known["amounts"]) != (tokens, dict(receipt.amounts)):
            with pytest.raises(ReceiptConflictError, match=f"receipt {known['sequence']},"):
                self.ledger.append(receipt)
            return
        booked = self._survive(crash, lambda: self.ledger.append(receipt))
        if known is None:
            self._book(name, None, tokens, receipt.amounts, receipt.created_at_us)
        assert self._find(name)["sequence"] == booked.sequence

    @rule(names=st.lists(st.sampled_from(NAMES), min_size=2, max_size=4), minutes=st.sampled_from([0, 0, 5, 120]))
    def append_together(self, names, minutes):
        """Several in one transaction, of this moment, of a clock that runs ahead, or of one that is wrong."""
        created_at_us = now_us() + minutes * MINUTE_US
        made_us = created_at_us - (minutes * MINUTE_US if minutes > SKEW_MINUTES else 0)
        batch = [make_receipt(f"{name}-now", created_at_us=created_at_us) for name in names]
        outcomes = self.ledger.append_many(batch)
        for receipt, outcome in zip(batch, outcomes, strict=True):
            known = self._find(receipt.response_id)
            if known is None:
                self._book(receipt.response_id, None, receipt.tokens, receipt.amounts, created_at_us, made_us)
                assert (len(self.receipts), False) == (outcome.sequence, outcome.replayed)
            elif known["created"] == created_at_us:
                assert (known["sequence"], True) == (outcome.sequence, outcome.replayed)
            else:
                assert isinstance(outcome, ReceiptConflictError)

    @rule(name=st.sampled_from([*NAMES, "r0-now", "r1-now", "r2-now"]), crash=st.integers(0, 9))
    def reverse(self, name, crash):
        """Counter-entries, once."""
        known = self._find(name)
        if known is None:
            with pytest.raises(ReversalError):
                self.ledger.reverse(name, "wrong", "me")
            return
        booked = self._survive(crash, lambda: self.ledger.reverse(name, "wrong", "me"))
        there = self._find(f"reversal-{name}")
        if there is None:
            amounts = {account: -amount for account, amount in known["amounts"].items()}
            created = self.ledger.receipt(f"reversal-{name}").created_at_us
            self._book(f"reversal-{name}", name, -known["tokens"], amounts, created)
        assert self._find(f"reversal-{name}")["sequence"] == booked.sequence

    @rule(place_on=st.sampled_from([*NAMES, *MEMBERS, "nobody"]))
    def hold(self, place_on):
        """A client or a response that still may be settled can be held; anything else is refused."""
        kind = "client" if place_on in MEMBERS else "response"
        period = self.periods[-1] if kind == "client" and self.periods else self._counted_in(place_on)
        holdable = self._find(place_on) is not None and self._find(f"reversal-{place_on}") is None
        settled = kind == "response" and period is not None and period["state"] in ("final", "paid")
        already = any(each["active"] and each["target"] == place_on for each in self.holds.values())
        if already or settled or not (kind == "client" or holdable):
            with pytest.raises(HoldError):
                holds.place(self.ledger, kind, place_on, "doubt", "me")
            return
        hold_id = holds.place(self.ledger, kind, place_on, "doubt", "me")
        self.holds[hold_id] = {"kind": kind, "target": place_on, "active": True}
        if period is not None and period["state"] == "draft":
            period["state"] = "disputed"

    @precondition(lambda self: any(each["active"] for each in self.holds.values()))
    @rule(which=st.integers(0, 5))
    def release(self, which):
        """A hold ends once."""
        active = [hold_id for hold_id, each in self.holds.items() if each["active"]]
        hold_id = active[which % len(active)]
        holds.release(self.ledger, hold_id, "settled", "me")
        self.holds[hold_id]["active"] = False
        with pytest.raises(HoldError):
            holds.release(self.ledger, hold_id, "again", "me")

    @rule(policy=st.sampled_from(POLICIES), crash=st.integers(0, 9), minutes=st.sampled_from([0, 0, 0, 6]))
    def close(self, policy, crash, minutes):
        """A period takes what was made since the last one; refused while that is not final, or there is nothing."""
        with pytest.MonkeyPatch.context() as clock:
            clock.setattr("rewards.periods.period_end.now_us", lambda *_: now_us() + minutes * MINUTE_US)
            self._close(policy, crash)

    def _close(self, policy, crash):
        name = f"p{len(self.periods) + 1}"
        if self.periods and self.periods[-1]["state"] not in ("final", "paid"):
            with pytest.raises(PeriodError):
                periods.close(self.ledger, name, policy, "me")
            return
        try:
            self._survive(crash, lambda: periods.close(self.ledger, name, policy, "me"), retry=PeriodClosedError)
        except PeriodEmptyError:
            waiting = [self.receipts[sequence - 1] for sequence in self._candidates(len(self.receipts))]
            made = [self._find(each["reverses"]) or each for each in waiting]
            held = {each["target"] for each in self.holds.values() if each["active"] and each["kind"] == "response"}
            assert all(each["made"] > now_us() - HOUR_US or each["id"] in held for each in made)
            assert all(each["sequence"] in self._candidates(len(self.receipts)) for each in made)
            assert policy.pool or not self._falls_due(policy), "what falls due is paid, but with no pool for nobody"
            return
        stored = periods.get(self.ledger, name)
        self._add_period(stored)
        with pytest.raises(PeriodClosedError):
            periods.close(self.ledger, name, policy, "me")

    @precondition(lambda self: self.periods and self.periods[-1]["state"] in ("draft", "disputed"))
    @rule(crash=st.integers(0, 9))
    def finalise(self, crash):
        """After the dispute days the window is settled again, with the holds of that moment."""
        name = self.periods[-1]["name"]
        with pytest.raises(PeriodError, match="disputed until"):
            periods.finalise(self.ledger, name, "me")
        with pytest.MonkeyPatch.context() as clock:
            clock.setattr("rewards.periods.transitions.now_us", lambda *_: now_us() + 25 * HOUR_US)
            self._survive(crash, lambda: periods.finalise(self.ledger, name, "me"), retry=PeriodError)
        self.periods[-1]["state"] = "final"
        self._settle(self.periods[-1])
        self._compare(periods.get(self.ledger, name), self.periods[-1])

    @precondition(lambda self: any(period["state"] == "final" for period in self.periods))
    @rule()
    def pay(self):
        """A final period is paid once."""
        period = next(period for period in self.periods if period["state"] == "final")
        periods.pay(self.ledger, period["name"], "bank 1", "me")
        period["state"] = "paid"
        with pytest.raises(PeriodError):
            periods.pay(self.ledger, period["name"], "bank 2", "me")

    @rule()
    def reopen(self):
        """A ledger that is prepared and opened again is the same ledger."""
        self.ledger.close()
        Ledger.prepare(self.url)
        self.ledger = Ledger(self.url)

    # What must hold after each step

    @invariant()
    def books_agree(self):
        """Balances, tokens, sequences and every receipt are those of the dictionaries."""
        if not hasattr(self, "ledger"):
            return
        type(self).compared += 1
        expected = Counter()
        for receipt in self.receipts:
            expected.update(receipt["amounts"])
        found = self.ledger.receipts_after(0)

        assert {account: expected[account] for account in expected} == self.ledger.balances()
        assert sum(receipt["tokens"] for receipt in self.receipts) == self.ledger.tokens()
        assert [(each["sequence"], each["id"], each["tokens"], each["amounts"]) for each in self.receipts] == [
            (each.sequence, each.response_id, each.tokens, each.amounts) for each in found
        ]

    @invariant()
    def holds_and_periods_agree(self):
        """The same holds are active, the same periods are in the same states, and they pay what the model counted."""
        if not hasattr(self, "ledger"):
            return
        with self.ledger.database.read() as connection:
            active = {each.hold_id: (each.kind, each.target) for each in holds.active_holds(connection)}
        stored = periods.all(self.ledger)

        assert {key: (each["kind"], each["target"]) for key, each in self.holds.items() if each["active"]} == active
        assert [(each["name"], each["state"]) for each in self.periods] == [(each.name, each.state) for each in stored]
        self._money_is_conserved(stored)

    # The model

    def _find(self, name):
        return next((each for each in self.receipts if each["id"] == name), None)

    def _book(self, name, reverses, tokens, amounts, created, made=None):
        self.receipts.append(
            {
                "id": name,
                "reverses": reverses,
                "tokens": tokens,
                "amounts": dict(amounts),
                "created": created,
                "made": created if made is None else made,
                "sequence": len(self.receipts) + 1,
            }
        )

    def _after(self):
        return self.periods[-1]["window"][1] if self.periods else 0

    def _deferred(self):
        return self.periods[-1]["deferred"] if self.periods else set()

    def _counted_in(self, name):
        """The period in which a response counts; None while it counts in none."""
        known = self._find(name)
        if known is None:
            return None
        return next((period for period in self.periods if known["sequence"] in period["counted"]), None)

    def _candidates(self, up_to):
        return set(range(self._after() + 1, up_to + 1)) | self._deferred()

    def _falls_due(self, policy):
        """Whether the next period would pay or take back anything that is carried in its currency."""
        if not self.periods:
            return False
        purses = periods.all(self.ledger)[-1].settlement.purses
        purse = purses.get((policy.currency, policy.minor_digits))
        held = {each["target"] for each in self.holds.values() if each["active"] and each["kind"] == "client"}
        for client in MEMBERS:
            balance = purse.balances.get(client) if purse else None
            if balance is None or client in held:
                if balance is not None and balance.clawback:
                    return True
                continue
            due = sum(amount for ordinal, amount in balance.holdbacks if ordinal <= len(self.periods) + 1)
            payable = balance.carry + balance.held + due - balance.clawback
            if balance.clawback or payable >= max(policy.minimum_payout, 1):
                return True
        return False

    def _add_period(self, stored):
        """Take the window from the ledger, hold it to the rule, and count by our own."""
        after, _ = stored.window
        deferred, candidates = set(stored.deferred), self._candidates(stored.window[1])
        assert self._after() == after
        for sequence in candidates:
            receipt = self.receipts[sequence - 1]
            original = self._find(receipt["reverses"])
            too_new = receipt["made"] >= stored.until_us or (
                original is not None and original["made"] >= stored.until_us and original["sequence"] in candidates
            )
            assert too_new == (receipt["sequence"] in deferred)
        period = {
            "name": stored.name,
            "state": stored.state,
            "window": stored.window,
            "deferred": deferred,
            "frame": candidates - deferred,
        }
        self._settle(period)
        self.periods.append(period)
        self._compare(stored, period)

    def _settle(self, period):
        """Which receipts count in a period with the holds of this moment, and what each account has of them."""
        earlier = [each for each in self.periods if each is not period]
        held = {each["target"] for each in self.holds.values() if each["active"] and each["kind"] == "response"}
        out = {sequence for each in earlier for sequence in each["left_out"]}
        out -= {sequence for each in earlier for sequence in each["taken_in"]}
        period["left_out"], period["taken_in"] = set(), set()
        counted = set()
        for sequence in period["frame"]:
            receipt = self.receipts[sequence - 1]
            reversal = self._find(f"reversal-{receipt['id']}")
            reversed_here = reversal is not None and reversal["sequence"] in period["frame"]
            original = self._find(receipt["reverses"])
            if original is None and receipt["id"] in held and not reversed_here:
                period["left_out"].add(sequence)
            elif original is None or original["sequence"] in period["frame"] or original["sequence"] in out:
                counted.add(sequence)
        for sequence in out:
            receipt = self.receipts[sequence - 1]
            reversal = self._find(f"reversal-{receipt['id']}")
            reversed_here = reversal is not None and reversal["sequence"] in period["frame"]
            if receipt["id"] not in held or reversed_here:
                period["taken_in"].add(sequence)
                counted.add(sequence)
        period["counted"] = counted
        credit = Counter()
        for sequence in counted:
            credit.update(self.receipts[sequence - 1]["amounts"])
        period["credit"] = credit
        period["tokens"] = sum(self.receipts[sequence - 1]["tokens"] for sequence in counted)

    def _compare(self, stored, period):
        settlement = stored.final or stored.draft
        for other in self.periods:
            assert other is period or not other["counted"] & period["counted"]
        assert period["left_out"] == set(stored.left_out)
        assert period["taken_in"] == set(stored.taken_in)
        assert period["tokens"] == settlement.tokens
        lines = {line.account: line for line in settlement.lines}
        assert {COMMONS, *MEMBERS} == set(lines)
        assert {account: period["credit"][account] for account in lines} == {
            account: line.credit for account, line in lines.items()
        }
        held = {each["target"] for each in self.holds.values() if each["active"] and each["kind"] == "client"}
        assert [] == [account for account in held if lines[account].payout]

    def _money_is_conserved(self, stored):
        """All pools of a currency so far are what was paid in it, kept as fee, and is kept back or carried."""
        final = [period.settlement for period in stored]
        purses = final[-1].purses if final else {}
        for currency in {settlement.policy.money for settlement in final}:
            own = [settlement for settlement in final if settlement.policy.money == currency]
            paid = sum(settlement.fee + sum(line.payout for line in settlement.lines) for settlement in own)
            carried = purses[currency].balances if currency in purses else {}
            kept = sum(
                max(balance.carry, 0) + balance.held + sum(amount for _, amount in balance.holdbacks)
                for balance in carried.values()
            )
            advanced = max(-carried[COMMONS].carry, 0) if COMMONS in carried else 0  # it evens out roundings
            assert all(abs(each.residue) < UNIT for account, each in carried.items() if account != COMMONS)
            assert sum(settlement.pool for settlement in own) + advanced == paid + kept

    # Crashes

    def _survive(self, crash, operation, retry=None):
        """Run an operation that may be cut off anywhere, and run it again as its caller would.

        0: after it was committed, before the caller heard of it. 1 to 5: at that statement of its transaction.
        """
        if crash > 5:
            return operation()
        first = operation() if crash == 0 else self._cut(operation, crash)
        self.reopen()
        if first is not None and retry is not None:
            with pytest.raises(retry):
                operation()
            return first
        return operation()

    def _cut(self, operation, statement):
        """The operation, with the process gone before the n-th statement that changes something."""
        left = [statement]

        def count(_connection, _cursor, sql, *_rest):
            if sql.lstrip().upper().startswith("INSERT"):
                left[0] -= 1
                if left[0] == 0:
                    raise CrashError

        engine = self.ledger.database._writer
        event.listen(engine, "before_cursor_execute", count)
        try:
            return operation()
        except CrashError:
            return None
        finally:
            event.remove(engine, "before_cursor_execute", count)


def run(machine):
    """As many examples as make the steps; some end early."""
    while machine.compared < STEPS:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=(STEPS - machine.compared) // STEPS_PER_EXAMPLE + 1,
                stateful_step_count=STEPS_PER_EXAMPLE,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[
                    Phase.explicit,
                    Phase.reuse,
                    Phase.generate,
                ],  # a short failing history would take hours to find
            ),
        )
    print(f"{machine.compared} steps without a difference")

    assert machine.compared >= STEPS


@pytest.mark.long
def test_sqlite_agrees_with_the_dictionaries(prepared_file):
    """No difference after any step on SQLite."""
    run(type("OnSqlite", (BooksAgainstDictionaries,), {"prepared": prepared_file}))


def test_postgresql_agrees_with_the_dictionaries(postgresql, prepared_database):
    """No difference after any step on PostgreSQL."""
    machine = {"postgresql": postgresql, "prepared": prepared_database}
    run(type("OnPostgresql", (BooksAgainstDictionaries,), machine))
