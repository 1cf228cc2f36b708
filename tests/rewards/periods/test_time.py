"""A response is of the period in which it was made, and a clock that was wrong stops neither a close nor a final."""

import shutil
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from rewards import periods
from rewards.audit.replay import audit
from rewards.errors import PeriodEmptyError, PeriodError, PolicyError
from rewards.ledger.ledger import Ledger
from rewards.settlement.policy import Policy
from rewards.store.database import now_us
from tests.rewards.receipts import make_receipt

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
YEAR_US = 365 * DAY_US
EUR = Policy(pool=100, currency="EUR")
PATIENT = Policy(pool=100, currency="EUR", grace_hours=48)
MODULES = ("periods.transitions", "periods.period_end", "store.events", "ledger.ledger", "log.checkpoints")


@pytest.fixture
def clock(monkeypatch):
    """The ledger's clock; `clock(hours)` sets it so many hours from the start of the test."""
    start_us = now_us()

    def set_clock(hours):
        moment = start_us + round(hours * HOUR_US)
        for module in MODULES:
            monkeypatch.setattr(f"rewards.{module}.now_us", lambda *_: moment)
        return moment

    set_clock(0)
    return set_clock


def close(ledger, name, policy=EUR, until_us=None):
    return periods.close(ledger, name, policy, "me", until_us)


def test_a_response_of_day_3_is_day_3s_though_day_2_waits_for_it(ledger, url, clock):
    """Daily periods with 48 hours of grace: each day gets its own responses, and every day can be closed."""
    found = {}
    for hours, tokens, made in [
        (12, 10, 12), (36, 100, 36), (60, 1000, 60), (72, None, 1), (84, 10_000, 84), (95, 5, 40), (96, None, 2),
        (108, 100_000, 108), (119, 7, 41), (120, None, 3), (144, None, 4), (168, None, 5),
    ]:  # fmt: skip
        start_us = clock(hours) - hours * HOUR_US
        if tokens is not None:
            ledger.append(make_receipt(f"r{tokens}", tokens, created_at_us=start_us + made * HOUR_US))
        else:
            found[made] = close(ledger, f"day-{made}", PATIENT, start_us + made * DAY_US)

    assert {1: 10, 2: 100 + 5, 3: 1000 + 7, 4: 10_000, 5: 100_000} == {day: each.tokens for day, each in found.items()}
    assert {3: 7_000_000} == {
        day: late for day, each in found.items() if (late := sum(line.late for line in each.lines))
    }
    assert audit(url).is_ok


DAYS = 7
RECEIPTS = st.lists(st.tuples(st.integers(0, 5 * 24), st.integers(0, 60)), min_size=1, max_size=12)


@pytest.mark.long
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(RECEIPTS, st.sampled_from([0, 5, 48]))
def test_each_response_counts_in_exactly_one_day(prepared_file, tmp_path_factory, receipts, grace):
    """By a count in a loop: in its own day if booked within the grace hours, else in the first that is closed later."""
    path = tmp_path_factory.mktemp("days") / "ledger.db"
    shutil.copy(prepared_file, path)
    ledger, start_us = Ledger(f"sqlite:///{path}"), now_us() - 30 * DAY_US
    policy = Policy(price_per_million_tokens=1_000_000, currency="EUR", grace_hours=grace)
    moves = [(made + waited, 0, number, made) for number, (made, waited) in enumerate(receipts)]
    moves += [(24 * (day + 1) + grace, 1, day, 0) for day in range(DAYS)]
    expected, found = {}, {}
    with pytest.MonkeyPatch.context() as patch:
        for hours, kind, number, made in sorted(moves):
            for module in MODULES:
                patch.setattr(f"rewards.{module}.now_us", lambda *_, at=hours: start_us + at * HOUR_US)
            if kind == 0:
                receipt = make_receipt(f"r{number}", 2**number, created_at_us=start_us + made * HOUR_US)
                ledger.append(receipt)
                closed = [day for day in range(DAYS) if 24 * (day + 1) + grace <= hours]
                day = max(made // 24, len(closed))
                if day < DAYS:  # what is booked after the last close is of a day that is open
                    expected[day] = expected.get(day, 0) + 2**number
            else:
                until_us = start_us + 24 * (number + 1) * HOUR_US
                try:
                    found[number] = periods.close(ledger, f"d{number}", policy, "me", until_us).tokens
                except PeriodEmptyError:
                    continue
    ledger.close()

    assert expected == {day: tokens for day, tokens in found.items() if tokens}
    assert audit(f"sqlite:///{path}").is_ok


def test_books_of_a_clock_that_was_wrong_for_a_while_pass_the_audit(ledger, url, clock):
    """Several events and receipts by a clock a year ahead, then right ones: none of them was altered."""
    for hours in (365 * 24, 365 * 24 + 1, 365 * 24 + 2, 1, 2):
        clock(hours)
        ledger.register("demo", {f"client-{hours}": "A client"})
        ledger.append(make_receipt(f"r{hours}"))

    assert audit(url).is_ok


def test_a_booking_by_a_clock_a_year_ahead_bars_no_later_receipt(ledger, url, clock):
    """What is booked after it has the right time again, and is in the period that ends at a moment."""
    ledger.append(make_receipt("before", tokens=1))
    clock(24 * 365)
    ledger.append(make_receipt("ahead", tokens=2, created_at_us=now_us() + YEAR_US))
    now = clock(1)
    ledger.append(make_receipt("after", tokens=4, created_at_us=now - 1000))
    until_us = clock(2)
    first = close(ledger, "p1", EUR, until_us)
    ledger.append(make_receipt("later", tokens=8))
    clock(3)

    assert [7, 8] == [first.tokens, close(ledger, "p2").tokens]
    assert audit(url).is_ok


def test_old_books_in_which_every_stamp_is_a_year_ahead_are_closed(ledger, clock):
    """Where an earlier version repeated the wrong stamp, the receipts' own times say which period they are of."""
    clock(24 * 365)
    ledger.append(make_receipt("ahead", tokens=1, created_at_us=now_us()))
    now = clock(0)
    for number in range(2):
        ledger.append(make_receipt(f"r{number}", tokens=2, created_at_us=now - HOUR_US))
    clock(24 * 365)
    ledger.append(make_receipt("of now", tokens=4, created_at_us=now + HOUR_US // 2))
    until_us = clock(1) - HOUR_US // 2 - 1000
    first = close(ledger, "p1", EUR, until_us - HOUR_US // 4)
    clock(2)

    assert [5, 4] == [first.tokens, close(ledger, "p2").tokens]


@pytest.mark.long
def test_one_event_by_a_clock_a_year_ahead_stops_no_final_and_no_close(ledger, url, clock):
    """A draft that a wrong clock stamped is final after its dispute days, and the next period follows."""
    policy = Policy(pool=100, currency="EUR", dispute_days=2)
    ledger.append(make_receipt("r1"))
    clock(24 * 365)
    close(ledger, "p1", policy)
    clock(1)
    ledger.append(make_receipt("r2", created_at_us=now_us()))
    with pytest.raises(PeriodError, match="may be disputed until"):
        periods.finalise(ledger, "p1", "me")
    clock(2 * 24 + 2)
    periods.finalise(ledger, "p1", "me")
    until_us = clock(2 * 24 + 3)
    second = close(ledger, "p2", policy, until_us)

    assert (7, 0) == (second.tokens, sum(line.late for line in second.lines))
    assert audit(url).is_ok


def test_what_old_books_waited_for_is_bounded(ledger, clock):
    """A draft by a policy of before there was a bound is final after the longest wait there may be."""
    policy = Policy.from_mapping({"pool": 100, "currency": "EUR", "dispute_days": 10**9}, stored=True)
    ledger.append(make_receipt("r1"))
    close(ledger, "p1", policy)
    clock(24 * 366 + 1)

    assert policy == periods.finalise(ledger, "p1", "me").policy


@pytest.mark.parametrize(
    ("field", "bound"),
    [
        ("dispute_days", 366),
        ("grace_hours", 24 * 366),
        ("holdback_release_after", 1200),
        ("clock_skew_minutes", 24 * 60),
    ],
)
def test_waiting_has_an_upper_bound(field, bound):
    """A policy that would wait for longer than anybody lives is refused, with what would be right."""
    policy = {"pool": 1, "currency": "EUR", "holdback_percent": 1}

    assert bound == getattr(Policy.from_mapping(policy | {field: bound}), field)
    with pytest.raises(PolicyError, match=f"{field}: must be a whole number of .* to {bound}"):
        Policy.from_mapping(policy | {field: bound + 1})


def test_on_postgresql_one_clock_stamps_for_all(postgresql_url, monkeypatch):
    """A replica whose own clock is a day ahead stamps receipts and events by the database's."""
    real_ns = time.time_ns
    monkeypatch.setattr("rewards.store.database.time.time_ns", lambda: real_ns() + DAY_US * 1000)
    ledger = Ledger(postgresql_url)
    ledger.append(make_receipt("r1"))
    ledger.reverse("r1", "wrong", "me")
    ledger.register("demo", {"later": "A later one"})
    with ledger.database.read() as connection:
        query = "SELECT max(booked_at_us) FROM receipts UNION ALL SELECT max(at_us) FROM events"
        stamps = [*connection.execute(text(query)).scalars(), ledger.receipt("reversal-r1").created_at_us]
    ledger.close()

    assert all(abs(stamp - real_ns() // 1000) < HOUR_US for stamp in stamps)
