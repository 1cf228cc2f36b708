"""What an application may ask for is counted: requests a minute, and tokens in the life of its key."""

import itertools
import math
import random
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from deployment.access.limits import SUM_S, Limits, Ticket
from deployment.errors import InvalidRequestError, OverloadedError, QuotaError, UnavailableError
from deployment.spool.backlog import spooled_tokens
from deployment.spool.records import ProgressRecord, record_of, unscored_receipt
from deployment.spool.spool import Spool
from rewards.keys.ring import KeyRing
from rewards.keys.rules import Key
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.rule import SamplingRule
from tests.deployment.conftest import PEPPER
from tests.deployment.outages import Clock, away
from tests.rewards.receipts import MEMBERS, make_receipt


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limits(ledger: Ledger, clock: Clock) -> Limits:
    ledger.register("demo", MEMBERS)
    return Limits(ledger, clock)


def key_with(keys: KeyRing, **limits: int) -> Key:
    return keys.check(keys.create("application", "shop", actor="test", **limits))


def book(ledger: Ledger, key: Key, response_id: str, tokens: int) -> None:
    ledger.append(replace(make_receipt(response_id, tokens=tokens), application=key.key_id))


_NUMBERS = itertools.count()


def admit(limits: Limits, key: Key, tokens: int, response_id: str | None = None) -> Ticket:
    """Leave for a response, whose id matters only where it is booked."""
    return limits.admit(key, tokens, response_id or f"unnamed {next(_NUMBERS)}")


def finish(ledger: Ledger, ticket: Ticket, key: Key, response_id: str, tokens: int) -> None:
    """As the service does: booked first, then ended."""
    book(ledger, key, response_id, tokens)
    ticket.end(tokens)


def test_a_key_without_limits_is_always_admitted(limits: Limits, ledger: Ledger, keys: KeyRing) -> None:
    """No limit is no limit, and needs no ledger."""
    key = key_with(keys)
    with away(ledger.database, "receipts"):
        for _ in range(1000):
            admit(limits, key, 10**9).end(10**9)


def test_requests_are_spread_over_the_minute(limits: Limits, clock: Clock, keys: KeyRing) -> None:
    """A minute's requests may come at once; the next is told when it may come, and then it is admitted."""
    key = key_with(keys, requests_per_minute=6)
    for _ in range(6):
        admit(limits, key, 5)
    with pytest.raises(OverloadedError, match="6 times a minute") as refused:
        admit(limits, key, 5)
    assert ("rate_limit_exceeded", 10) == (refused.value.code, refused.value.retry_after_s)
    assert "10" == refused.value.headers["Retry-After"]
    assert "x-should-retry" not in refused.value.headers

    clock.now += refused.value.retry_after_s or 0
    admit(limits, key, 5)
    with pytest.raises(OverloadedError):
        admit(limits, key, 5)


def test_keys_have_a_rate_each(limits: Limits, keys: KeyRing) -> None:
    """One that asks too often does not use up what another may ask."""
    busy, calm = key_with(keys, requests_per_minute=1), key_with(keys, requests_per_minute=1)
    admit(limits, busy, 1)
    with pytest.raises(OverloadedError):
        admit(limits, busy, 1)
    admit(limits, calm, 1)


@settings(deadline=None)
@example(per_minute=1, waits=[1.490703006842196, 0.0])  # whose sum, a minute later, is a rounding short of a minute
@given(per_minute=st.integers(1, 200), waits=st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=60))
def test_no_window_gets_more_than_its_rate(per_minute: int, waits: list[float]) -> None:
    """In any stretch of time at most a minute's requests, and those of its length, are admitted; told times hold."""
    clock = Clock()
    limits = Limits(None, clock)  # type: ignore[arg-type] - no key here has a budget
    key = Key("0" * 12, "application", "x", None, 0, None, None, None, None, per_minute, None, "0" * 12)
    admitted = []
    for wait in waits:
        clock.now += wait
        try:
            admit(limits, key, 1)
        except OverloadedError as refused:
            clock.now += refused.retry_after_s or 0
            admit(limits, key, 1)
        admitted.append(clock.now)
    for first, start in enumerate(admitted):
        for last in range(first, len(admitted)):
            assert last - first + 1 <= per_minute * (1 + (admitted[last] - start) / 60) + 1e-6


def test_responses_under_way_are_bounded_and_the_wait_is_measured(limits: Limits, clock: Clock, keys: KeyRing) -> None:
    """One too many is told when the oldest is likely to end, by how long responses took; its end makes room."""
    key = key_with(keys, concurrency=2)
    first = admit(limits, key, 5)
    clock.now += 4
    second = admit(limits, key, 5)
    with pytest.raises(OverloadedError, match="2 responses under way at once; try again in 4 s") as refused:
        admit(limits, key, 5)
    assert ("concurrency_limit_exceeded", 4) == (refused.value.code, refused.value.retry_after_s)

    clock.now += 6
    first.end(5)  # ten seconds it took
    third = admit(limits, key, 5)
    with pytest.raises(OverloadedError, match="try again in 4 s"):
        admit(limits, key, 5)
    for ticket in (second, second, third):
        ticket.end(0)
    assert 2 == len(limits.admit_all(key, 5, ["a", "b"]))


def test_several_responses_are_admitted_together_or_not_at_all(
    limits: Limits, clock: Clock, keys: KeyRing, ledger: Ledger
) -> None:
    """So many count in every limit, a refusal by one leaves nothing in another, and what never fits is said to be."""
    key = key_with(keys, concurrency=4, token_budget=100, requests_per_minute=20)
    for many in (5, 21):
        with pytest.raises(InvalidRequestError, match=f"n is {many}"):
            limits.admit_all(key, 1, [str(number) for number in range(many)])
    with pytest.raises(QuotaError, match="120 that this request may generate"):
        limits.admit_all(key, 40, ["a", "b", "c"])
    tickets = limits.admit_all(key, 30, ["a", "b", "c"])
    with pytest.raises(OverloadedError, match="responses under way"):
        limits.admit_all(key, 1, ["d", "e"])
    for response_id, ticket in zip("abc", tickets, strict=True):
        finish(ledger, ticket, key, response_id, 10)
    limits.admit_all(key, 1, ["f", "g", "h", "i"])
    with pytest.raises(OverloadedError, match="20 times a minute"):
        limits.admit_all(key, 1, ["j", "k", "l", "m"])


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 9), st.floats(0, 20)), max_size=60))
def test_never_more_are_under_way_than_the_key_may(moves: list[tuple[int, int, float]]) -> None:
    """Whatever comes and goes, and whoever is refused is told a time to come back between a second and a minute."""
    clock = Clock()
    limits = Limits(None, clock)  # type: ignore[arg-type] - no key here has a budget
    key = Key("0" * 12, "application", "x", None, 0, None, None, None, None, None, None, "0" * 12, concurrency=4)
    under_way: list[Ticket] = []
    refusals: list[OverloadedError] = []
    for number, (many, ends, passed) in enumerate(moves):
        clock.now += passed
        try:
            under_way += limits.admit_all(key, 1, [f"{number}.{each}" for each in range(many)])
        except OverloadedError as error:
            refusals.append(error)
            assert len(under_way) + many > 4
        assert len(under_way) <= 4
        for _ in range(min(ends, len(under_way))):
            under_way.pop(0).end(ends % 2)
    assert all(1 <= (error.retry_after_s or 0) <= 60 for error in refusals)


def test_a_budget_counts_what_was_booked_and_what_is_under_way(limits: Limits, ledger: Ledger, keys: KeyRing) -> None:
    """Booked tokens of this key and the most that its running requests may generate; not those of other keys."""
    key, other = key_with(keys, token_budget=100), key_with(keys)
    book(ledger, key, "r1", 60)
    book(ledger, other, "r2", 1000)
    ticket = admit(limits, key, 30, "r3")
    with pytest.raises(QuotaError) as refused:
        admit(limits, key, 11)
    assert "budget of this key is 100: 60 are spent and 30 are under way" in str(refused.value)
    assert ("insufficient_quota", "insufficient_quota") == (refused.value.code, refused.value.kind)
    assert "false" == refused.value.headers["x-should-retry"]
    assert 429 == refused.value.status

    admit(limits, key, 10).end(0)
    finish(ledger, ticket, key, "r3", 5)
    admit(limits, key, 35)
    with pytest.raises(QuotaError):
        admit(limits, key, 1)


def test_a_budget_of_nothing_admits_nothing(limits: Limits, keys: KeyRing) -> None:
    """0 is a limit, too."""
    with pytest.raises(QuotaError):
        admit(limits, key_with(keys, token_budget=0), 1)


def test_what_was_reversed_may_be_generated_again(limits: Limits, clock: Clock, ledger: Ledger, keys: KeyRing) -> None:
    """A counter-entry gives the tokens back, as soon as the sum is read again."""
    key = key_with(keys, token_budget=50)
    finish(ledger, admit(limits, key, 50, "r1"), key, "r1", 50)
    with pytest.raises(QuotaError):
        admit(limits, key, 50)
    ledger.reverse("r1", "a mistake", "test")
    clock.now += SUM_S + 0.1
    admit(limits, key, 50)


def test_what_another_ingress_booked_counts_within_seconds(
    limits: Limits, clock: Clock, ledger: Ledger, keys: KeyRing
) -> None:
    """The ledger knows of every ingress: what is booked elsewhere is seen when the sum is read again."""
    key = key_with(keys, token_budget=50)
    admit(limits, key, 10).end(0)
    admit(limits, key, 10).end(0)
    book(ledger, key, "elsewhere", 45)
    clock.now += SUM_S + 0.1
    with pytest.raises(QuotaError):
        admit(limits, key, 10)


def test_a_ticket_ends_once(limits: Limits, keys: KeyRing) -> None:
    """Ending it again, or the end of its `with`, changes nothing more; a `with` that was never ended gives all back."""
    key = key_with(keys, token_budget=10)
    with admit(limits, key, 10) as ticket:
        ticket.end(4)
        ticket.end(6)
    with pytest.raises(ValueError, match="broken"), admit(limits, key, 6):
        raise ValueError("broken")
    admit(limits, key, 6)
    with pytest.raises(QuotaError, match="4 are spent and 6 are under way"):
        admit(limits, key, 1)


def test_what_is_generated_counts_before_it_is_booked(
    limits: Limits, ledger: Ledger, clock: Clock, keys: KeyRing
) -> None:
    """However long its receipt waits for the ledger; and only once when that is booked at last, and read again."""
    key = key_with(keys, token_budget=10)
    admit(limits, key, 5, "r1").end(5)
    admit(limits, key, 5, "r2").end(3)
    for _ in range(3):
        clock.now += 10 * SUM_S
        with pytest.raises(QuotaError, match="8 are spent and 0 are under way"):
            admit(limits, key, 3)
    book(ledger, key, "r2", 3)
    book(ledger, key, "r1", 5)
    for _ in range(3):
        clock.now += 10 * SUM_S
        with pytest.raises(QuotaError, match="8 are spent and 0 are under way"):
            admit(limits, key, 3)
    admit(limits, key, 2)


def test_a_new_key_is_no_new_budget_and_no_new_rate(limits: Limits, ledger: Ledger, keys: KeyRing) -> None:
    """Rotating a key changes its secret; what its application has spent and asked stays, booked under either."""
    old = key_with(keys, token_budget=10, requests_per_minute=3)
    finish(ledger, admit(limits, old, 4, "r1"), old, "r1", 4)
    new = keys.check(keys.rotate(old.key_id, actor="test"))
    book(ledger, new, "before there were identities", 5)
    with pytest.raises(QuotaError, match="9 are spent"):
        admit(limits, new, 2)
    admit(limits, new, 1)
    with pytest.raises(OverloadedError):
        admit(limits, new, 1)


def test_what_waits_in_the_spool_counts_from_the_start(
    ledger: Ledger, keys: KeyRing, tmp_path: Path, clock: Clock
) -> None:
    """A service that starts while receipts and streams wait counts them, and each of them once when it is booked."""
    ledger.register("demo", MEMBERS)
    key, other = key_with(keys, token_budget=20), key_with(keys, token_budget=20)
    spool = Spool(tmp_path / "spool")
    receipts = [replace(make_receipt(f"r{n}", tokens=4), application=key.key_id) for n in range(2)]
    stream = ProgressRecord("s", key.key_id, 1, "demo", "a" * 64, (1, 2), (3, 4, 5), 1.0, 10)
    spool.append([*map(record_of, receipts), stream.record()])
    limits = Limits(ledger, clock, spooled_tokens(tmp_path / "spool"))
    with pytest.raises(QuotaError, match="11 are spent"):
        admit(limits, key, 10)
    admit(limits, other, 20)
    ledger.append(receipts[0])
    spool.mark_done(["r0"])
    ledger.append(unscored_receipt(stream, SamplingRule(), "its model is gone"))
    clock.now += SUM_S + 0.1
    with pytest.raises(QuotaError, match="11 are spent"):
        admit(limits, key, 10)
    again = Limits(ledger, clock, spooled_tokens(tmp_path / "spool"))
    with pytest.raises(QuotaError, match="11 are spent"):
        admit(again, key, 10)
    spool.close()


def test_racing_responses_that_nobody_books_keep_to_the_budget(limits: Limits, keys: KeyRing) -> None:
    """Twenty threads ask and generate while no receipt is booked: nearly all of the budget, and not a token more."""
    key = key_with(keys, token_budget=500)
    start, generated = threading.Barrier(20), []

    def ask(number: int) -> None:
        chance = random.Random(number)
        start.wait()
        for _ in range(20):
            try:
                ticket = admit(limits, key, 10)
            except QuotaError:
                continue
            tokens = chance.randint(0, 10)
            generated.append(tokens)
            ticket.end(tokens)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 500 - 10 < sum(generated) <= 500


def test_while_the_ledger_is_away_the_last_sum_counts(
    limits: Limits, clock: Clock, ledger: Ledger, keys: KeyRing
) -> None:
    """Known budgets go on, with what ended since; nothing is forgotten when the ledger is back; others are 503."""
    key, unseen = key_with(keys, token_budget=100), key_with(keys, token_budget=100)
    finish(ledger, admit(limits, key, 40, "r1"), key, "r1", 40)
    admit(limits, key, 10).end(0)
    with away(ledger.database, "receipts"):
        clock.now += 10 * SUM_S
        admit(limits, key, 30, "r2").end(30)
        with pytest.raises(QuotaError, match="70 are spent"):
            admit(limits, key, 31)
        with pytest.raises(UnavailableError) as unknown:
            admit(limits, unseen, 1)
        assert ("ledger_unavailable", 5) == (unknown.value.code, unknown.value.retry_after_s)
    book(ledger, key, "r2", 30)
    clock.now += SUM_S + 0.1
    admit(limits, unseen, 100)
    with pytest.raises(QuotaError, match="70 are spent"):
        admit(limits, key, 31)
    admit(limits, key, 30)


def test_an_outage_is_not_asked_about_at_every_request(
    limits: Limits, clock: Clock, ledger: Ledger, keys: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    """While the ledger is away it is asked once in SUM_S seconds for a key, so that requests do not queue up for it."""
    key = key_with(keys, token_budget=1000)
    admit(limits, key, 1).end(0)
    clock.now += SUM_S + 0.1
    with away(ledger.database, "receipts"):
        for _ in range(20):
            admit(limits, key, 1).end(1)
    assert 1 == len(caplog.records)


def test_racing_requests_do_not_overdraw(limits: Limits, keys: KeyRing) -> None:
    """Of many that ask at once exactly as many are admitted as the budget covers."""
    key = key_with(keys, token_budget=70)
    outcomes: list[bool] = []
    start = threading.Barrier(20)

    def ask() -> None:
        start.wait()
        try:
            admit(limits, key, 10)
        except QuotaError:
            outcomes.append(False)
        else:
            outcomes.append(True)

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (7, 20) == (sum(outcomes), len(outcomes))


STEPS = st.lists(
    st.tuples(st.sampled_from(["admit", "finish", "wait"]), st.integers(1, 40), st.floats(0, 1)), max_size=25
)


@pytest.mark.long
@settings(deadline=None, max_examples=40)
@given(budget=st.integers(0, 120), steps=STEPS)
def test_a_budget_is_spent_to_the_token(
    prepared_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
    budget: int,
    steps: list[tuple[str, int, float]],
) -> None:
    """Against a count on paper: admitted exactly where spent and reserved tokens leave enough, in any order."""
    url = f"sqlite:///{shutil.copy(prepared_file, tmp_path_factory.mktemp('limits'))}"
    ledger, keys, clock = Ledger(url), KeyRing(url, PEPPER), Clock()
    ledger.register("demo", MEMBERS)
    limits, key = Limits(ledger, clock), key_with(keys, token_budget=budget)
    spent, running = 0, []
    for number, (step, tokens, part) in enumerate(steps):
        if step == "wait":
            clock.now += 2 * SUM_S * part
        elif step == "finish" and running:
            ticket, reserved, response_id = running.pop(math.floor(part * (len(running) - 1)))
            generated = max(1, math.floor(reserved * part))
            finish(ledger, ticket, key, response_id, generated)
            spent += generated
        elif step == "admit":
            fits = spent + sum(reserved for _, reserved, _ in running) + tokens <= budget
            try:
                running.append((admit(limits, key, tokens, f"r{number}"), tokens, f"r{number}"))
            except QuotaError:
                assert not fits
            else:
                assert fits
    ledger.close()
    keys.close()
