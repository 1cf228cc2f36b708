"""What was added up by the database equals a plain sum over all receipts, however it came about."""

import random
from bisect import bisect_left
from collections import Counter
from contextlib import suppress
from dataclasses import replace

import pytest
from sqlalchemy import text

from rewards import periods
from rewards.errors import LedgerError, PeriodEmptyError
from rewards.periods.history import read_history
from rewards.settlement.policy import Policy
from rewards.store.database import now_us
from rewards.views import contribution, selection
from rewards.views.contribution import Contribution
from rewards.views.standing import FIRST_WIDTH_US, MOST_BUCKETS, Standing
from tests.deployment.outages import away
from tests.rewards.books import unguarded
from tests.rewards.receipts import MEMBERS, make_receipt

BOUNDS_US = (100_000, 1_000_000, 60_000_000)
POLICY = Policy(pool=1001, currency="EUR")
SHARES = ({"bank": 0.25, "clinic": 0.5, "rider": 0.0}, {"bank": 1.0, "clinic": 0.0}, {})
MINUTE_US = 60_000_000


@pytest.fixture
def clock(monkeypatch):
    """The clock of everything that books; `clock(minutes)` moves it forward, and gives the moment."""
    moment = [now_us()]

    def forward(minutes: float) -> int:
        moment[0] += round(minutes * MINUTE_US)
        return moment[0]

    for module in ("periods.transitions", "periods.period_end", "store.events", "ledger.ledger", "views.contribution"):
        monkeypatch.setattr(f"rewards.{module}.now_us", lambda *_: moment[0])
    return forward


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of few receipts, so that everything happens at their borders too."""
    monkeypatch.setattr(contribution, "CHUNK", 3)


def everything(ledger):
    """Every receipt, in the order of booking."""
    found, page = [], ledger.receipts_after(0)
    while page:
        found += page
        page = ledger.receipts_after(found[-1].sequence)
    return found


def models(receipts):
    """Consortium -> what its receipts come to, added up one by one."""
    found = {}
    for receipt in receipts:
        sums = found.setdefault(receipt.consortium, Counter())
        is_reversal = receipt.kind == "reversal"
        sums["reversals" if is_reversal else "receipts"] += 1
        sums["reversed_tokens" if is_reversal else "tokens"] += abs(receipt.tokens)
        for account, amount in receipt.amounts.items():
            sums["reversed_credit" if is_reversal else "credit", account] += abs(amount)
        if not is_reversal:
            sums["duration_us"] += receipt.duration_us
            sums["durations", bisect_left(BOUNDS_US, receipt.duration_us)] += 1
    return {name: +sums for name, sums in found.items()}


def models_of(standing: Standing):
    """The same of a standing."""
    found = {}
    for name, totals in standing.models.items():
        sums = Counter({each: getattr(totals, each) for each in ("receipts", "tokens", "reversals", "reversed_tokens")})
        sums["duration_us"] = totals.duration_us
        sums.update({("credit", account): amount for account, amount in totals.credit.items()})
        sums.update({("reversed_credit", account): amount for account, amount in totals.reversed_credit.items()})
        sums.update({("durations", slot): count for slot, count in enumerate(totals.durations)})
        found[name] = +sums
    return found


def trend(receipts, width_us):
    """Start of a bucket -> account -> micro-credits, added up one by one."""
    found = {}
    for receipt in receipts:
        start_us = receipt.booked_at_us // width_us * width_us
        found.setdefault(start_us, Counter()).update(receipt.amounts)
    return found


def require_right(ledger, standing: Standing) -> None:
    """Compare everything with a sum over all receipts, and the open period with what `/shares` adds up."""
    receipts = everything(ledger)
    with ledger.database.read() as connection:
        there = read_history(connection).periods
        last = there[-1] if there else None
        opened = selection.totals(connection, selection.of_open_period(connection, last))
    buckets = list(standing.trend.buckets)

    assert len(receipts) == standing.sequence
    assert models(receipts) == models_of(standing)
    assert (opened.tokens, opened.credit) == (standing.open.tokens, standing.open.credit)
    assert (last and last.name, last and last.closed_at_us) == (standing.open.previous, standing.open.opened_at_us)
    assert trend(receipts, standing.trend.width_us) == standing.trend.buckets
    assert sorted(buckets) == buckets
    assert not buckets or (buckets[-1] - buckets[0]) // standing.trend.width_us < MOST_BUCKETS


def act(ledger, chance: random.Random, step: int, clock) -> None:
    """Something that happens to a ledger: receipts, reversals, time that passes, a close."""
    what = chance.choice(["book"] * 6 + ["reverse"] * 3 + ["wait", "close", "defer"])
    if what == "book":
        ledger.append_many(
            [
                replace(
                    make_receipt(
                        f"r{step}-{number}",
                        chance.randint(1, 9),
                        chance.choice(SHARES),
                        clock(0) + chance.choice([-1, 0, 10]) * MINUTE_US,
                    ),
                    consortium=chance.choice(["demo", "demo", "other"]),
                    duration_us=chance.choice([0, 100_000, 100_001, 60_000_000, 10**9]),
                )
                for number in range(chance.randint(1, 5))
            ]
        )
    elif what == "reverse":
        responses = [each.response_id for each in everything(ledger) if each.kind == "response"]
        if responses:
            ledger.reverse(chance.choice(responses), "a test", "tester")
    elif what == "wait":
        clock(chance.choice([0.5, 3, 60, 4000]))
    else:
        until_us = clock(1) - 1 if what == "defer" else None
        with suppress(PeriodEmptyError):
            periods.close(ledger, f"p{step}", POLICY, "tester", until_us)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_every_catch_up_equals_a_sum_over_all_receipts(ledger, clock, seed):
    """Across receipts of two consortia, reversals, closes that defer, and years: now and then, and from the start."""
    chance = random.Random(seed)
    ledger.register("other", MEMBERS)
    caught_up = Contribution(ledger.database, BOUNDS_US)
    for step in range(60):
        act(ledger, chance, step, clock)
        if chance.random() < 0.4:
            caught_up.catch_up()
            require_right(ledger, caught_up.now)
    at_once = Contribution(ledger.database, BOUNDS_US)
    at_once.catch_up()
    caught_up.catch_up()

    require_right(ledger, at_once.now)
    assert at_once.now == caught_up.now


def test_an_empty_ledger_stands_at_nothing(ledger):
    """Before the first receipt there is no consortium, no bucket, and an open period without credit."""
    figures = Contribution(ledger.database)
    before = figures.now
    figures.catch_up()

    assert before == figures.now == Standing()


def test_what_readers_hold_never_changes(ledger):
    """A catch-up puts a new standing in place of the old one, and neither can be written to."""
    figures = Contribution(ledger.database, BOUNDS_US)
    ledger.append(make_receipt("one", tokens=4))
    figures.catch_up()
    first = figures.now
    ledger.append(make_receipt("two", tokens=4))
    figures.catch_up()

    assert (4, 8) == (first.models["demo"].tokens, figures.now.models["demo"].tokens)
    for mapping in (first.models, first.open.credit, first.models["demo"].credit, first.trend.buckets):
        with pytest.raises(TypeError):
            mapping["bank"] = 0


def test_buckets_become_longer_and_lose_nothing(ledger, clock):
    """The span of 400 buckets holds an hour or ten years; each doubling joins two neighbours."""
    figures = Contribution(ledger.database, BOUNDS_US)
    widths = []
    for number, minutes in enumerate((0, 1, 398, 2, 400, 10 * 365 * 24 * 60)):
        clock(minutes)
        ledger.append(make_receipt(f"r{number}"))
        figures.catch_up()
        widths.append(figures.now.trend.width_us // FIRST_WIDTH_US)
        require_right(ledger, figures.now)

    assert [1, 1, 1, 2, 4, 2**14] == widths


def test_a_failed_catch_up_goes_on_where_it_failed(ledger):
    """While the database is away the old standing stays; afterwards everything is counted, and once."""
    figures = Contribution(ledger.database, BOUNDS_US)
    ledger.append_many([make_receipt(f"r{number}") for number in range(4)])
    figures.catch_up()
    before = figures.now
    ledger.append_many([make_receipt(f"s{number}") for number in range(10)])
    with away(ledger.database, "entries"), pytest.raises(LedgerError):
        figures.catch_up()
    during = figures.now
    figures.catch_up()

    assert before is during
    require_right(ledger, figures.now)


@pytest.mark.parametrize(("again", "told"), [(0, "ends with receipt 2, and had 4 before"), (3, "has another 4")])
def test_a_ledger_that_lost_receipts_is_another_one(ledger, url, again, told):
    """Sums over receipts that are no longer there are not passed on, also where as many were booked again since."""
    receipts = [make_receipt(f"r{number}") for number in range(4)]
    ledger.append_many(receipts)
    figures = Contribution(ledger.database)
    figures.catch_up()
    before = figures.now
    with unguarded(url) as connection:  # as a backup has it
        connection.execute(text("DELETE FROM entries WHERE receipt_sequence > 2"))
        connection.execute(text("DELETE FROM receipts WHERE sequence > 2"))
    ledger.append_many([*receipts[2:], make_receipt("new")][:again])

    for _ in range(2):
        with pytest.raises(LedgerError, match=told):
            figures.catch_up()
    assert before is figures.now
