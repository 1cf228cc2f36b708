"""Periods follow one another without gap, are previewed freely, closed once, and moved on step by step."""

import json
import pickle
from fractions import Fraction

import pytest
from sqlalchemy import text

from rewards import periods, statements
from rewards.audit.replay import audit
from rewards.errors import LedgerError, PeriodEmptyError, PeriodError, PeriodMovedError, PolicyError
from rewards.ledger.ledger import Ledger
from rewards.periods import holds
from rewards.periods.errors import PeriodClosedError
from rewards.settlement.policy import Policy
from rewards.store import events
from rewards.store.database import now_us
from tests.rewards.receipts import make_receipt

POLICY = Policy(pool=1001, currency="EUR")
DISPUTABLE = Policy(pool=1001, currency="EUR", dispute_days=3)
HOUR_US = 3_600_000_000
MINUTE_US = 60_000_000
DAY_US = 24 * HOUR_US


@pytest.fixture
def booked(ledger):
    """A ledger with three receipts."""
    for number in range(3):
        ledger.append(make_receipt(f"r{number}", tokens=number + 1))
    return ledger


@pytest.fixture
def clock(monkeypatch):
    """The clock of the periods and of the events; `clock(hours)` sets it so many hours from now."""

    def set_clock(hours: float) -> int:
        moment = now_us() + round(hours * HOUR_US)
        for module in ("periods.transitions", "periods.period_end", "store.events", "ledger.ledger"):
            monkeypatch.setattr(f"rewards.{module}.now_us", lambda *_: moment)
        return moment

    return set_clock


def close(ledger, name, policy=POLICY, until_us=None):
    return periods.close(ledger, name, policy, "me", until_us)


def payouts(settlement):
    return {line.account: line.payout for line in settlement.lines}


def names(ledger):
    return [period.name for period in periods.all(ledger)]


def write_past(ledger, statement):
    """Do what somebody with the database's own client could."""
    with ledger.database.write() as connection:
        connection.execute(text(statement))


def test_preview_is_what_close_stores_and_writes_nothing(booked):
    """A preview gives the settlement that a close would store at this moment, as often as one likes; it stores none."""
    previews = [periods.preview(booked, "2026-11", POLICY) for _ in range(3)]
    assert () == periods.all(booked)

    settlement = close(booked, "2026-11")

    assert [settlement] * 3 == [preview.settlement for preview in previews]
    assert (0, 3) == settlement.window
    assert {"bank": 250, "clinic": 501, "commons": 250, "rider": 0} == payouts(settlement)


def test_a_preview_is_compared_with_the_period_before(booked):
    """Beside what would be paid stands by how much that is more than in the period before; the first has none."""
    assert (None, {}) == (
        periods.preview(booked, "2026-11", POLICY).compared_with,
        periods.preview(booked, "2026-11", POLICY).difference,
    )
    close(booked, "2026-11")
    booked.append(make_receipt("all-the-bank's", shares={"bank": 1.0}))
    preview = periods.preview(booked, "2026-12", POLICY)

    assert "final of 2026-11" == preview.compared_with
    assert {"bank": 751, "clinic": -501, "commons": -250, "rider": 0} == preview.difference


def test_a_close_that_expects_what_was_previewed_stores_that_or_nothing(booked):
    """What was booked after the preview is left for another look: nothing is closed but what somebody has seen."""
    seen = periods.preview(booked, "2026-11", POLICY).settlement
    booked.append(make_receipt("later"))
    with pytest.raises(PeriodMovedError, match="'2026-11' comes to another settlement by now"):
        periods.close(booked, "2026-11", POLICY, "me", expected=seen.sha256)
    assert () == periods.all(booked)
    again = periods.preview(booked, "2026-11", POLICY).settlement

    assert again == periods.close(booked, "2026-11", POLICY, "me", expected=again.sha256) != seen


def test_a_preview_of_a_given_moment_does_not_move_with_what_is_booked_after_it(booked):
    """A period that ends at a moment comes to the same however much is booked later, so a busy ledger can be closed."""
    until_us = now_us()
    seen = periods.preview(booked, "2026-11", POLICY, until_us).settlement
    booked.append(make_receipt("later"))

    assert seen == periods.close(booked, "2026-11", POLICY, "me", until_us, expected=seen.sha256)


def test_a_draft_becomes_the_final_that_was_expected_or_stays_a_draft(booked, clock):
    """A hold that is placed after the preview changes the payouts, and the draft is looked at again first."""
    close(booked, "2026-11", DISPUTABLE)
    clock(3 * 24)
    seen = periods.preview(booked, "2026-11", DISPUTABLE).settlement
    holds.place(booked, "client", "bank", "audited", "me")
    with pytest.raises(PeriodMovedError):
        periods.finalise(booked, "2026-11", "me", expected=seen.sha256)
    assert ["disputed"] == [period.state for period in periods.all(booked)]
    again = periods.preview(booked, "2026-11", DISPUTABLE).settlement

    assert again == periods.finalise(booked, "2026-11", "me", expected=again.sha256) != seen


def test_a_preview_of_a_draft_is_compared_with_the_draft(booked):
    """The preview of a draft is what finalising it would store, beside the draft, by the draft's own policy."""
    draft = close(booked, "2026-11", DISPUTABLE)
    booked.append(make_receipt("later"))
    preview = periods.preview(booked, "2026-11", POLICY)

    assert draft == preview.settlement
    assert ("draft of 2026-11", {"bank": 0, "clinic": 0, "commons": 0, "rider": 0}) == (
        preview.compared_with,
        preview.difference,
    )


def test_a_closed_period_is_kept_whole(booked):
    """What was settled is found by name with its window, its moves and its settlement; another name finds nothing."""
    settlement = close(booked, "2026-11")
    period = periods.get(booked, "2026-11")

    assert ("2026-11", 1, "final", (0, 3), (), settlement, settlement, settlement) == (
        period.name,
        period.ordinal,
        period.state,
        period.window,
        period.deferred,
        period.draft,
        period.final,
        period.settlement,
    )
    assert [("period.draft", "me"), ("period.final", "me")] == [(move.kind, move.actor) for move in period.moves]
    assert period.closed_at_us >= booked.receipt("r2").booked_at_us
    assert (period,) == periods.all(booked)
    assert periods.get(booked, "2026-12") is None


@pytest.mark.parametrize(
    ("policy", "action", "state"),
    [(POLICY, close, "final"), (DISPUTABLE, close, "draft"), (POLICY, periods.preview, "final")],
)
def test_a_second_close_is_told_what_was_settled(booked, policy, action, state):
    """Closing a closed period changes nothing, whatever the policy, and the error carries the stored settlement."""
    settlement = close(booked, "2026-11", policy)
    booked.append(make_receipt("later"))
    with pytest.raises(
        PeriodClosedError, match=rf"'2026-11' is closed already \({state}, receipts 1 to 3\)"
    ) as refusal:
        action(booked, "2026-11", Policy(pool=5, currency="USD"))

    assert settlement == refusal.value.settlement
    assert [settlement] == [period.settlement for period in periods.all(booked)]


def test_the_error_survives_pickling(booked):
    """An error that crosses processes keeps its message and its settlement."""
    settlement = close(booked, "2026-11")
    with pytest.raises(PeriodClosedError) as refusal:
        close(booked, "2026-11")
    copy = pickle.loads(pickle.dumps(refusal.value))

    assert (str(refusal.value), settlement) == (str(copy), copy.settlement)


def test_every_receipt_is_in_one_period(booked):
    """A period begins where the last one ended: no receipt is settled twice or forgotten."""
    close(booked, "2026-11")
    booked.append(make_receipt("later", tokens=5))
    settlement = close(booked, "2026-12")

    assert ((3, 4), 2, 5) == (settlement.window, settlement.ordinal, settlement.tokens)
    assert 5_000_000 == sum(line.credit for line in settlement.lines)
    assert [(0, 3), (3, 4)] == [period.window for period in periods.all(booked)]
    with booked.database.read() as connection:
        assert 4 == periods.open_window(connection)


def test_residues_holdbacks_and_carried_money_pass_from_period_to_period(ledger):
    """Each period is settled with what the one before carries: a holdback is paid one period later, by the books."""
    policy = Policy.from_mapping({"pool": 100, "currency": "EUR", "holdback_percent": 50})
    paid = []
    for number in range(3):
        ledger.append(make_receipt(f"r{number}", shares={"bank": 1 / 3, "clinic": 1 / 3}))
        paid.append(payouts(close(ledger, f"p{number}", policy)))
    last = periods.all(ledger)[-1].settlement

    # 100 in three: 34, 33, 33 in turn, by residue. Half of a client's gross waits one period.
    gross = [
        {line.account: line.gross for line in period.settlement.lines if line.account != "rider"}
        for period in periods.all(ledger)
    ]
    assert {"bank": 100, "clinic": 100, "commons": 100} == {
        account: sum(each[account] for each in gross) for account in gross[0]
    }
    for client in ("bank", "clinic"):
        halves = [each[client] // 2 for each in gross]
        assert [
            gross[0][client] - halves[0],
            gross[1][client] - halves[1] + halves[0],
            gross[2][client] - halves[2] + halves[1],
        ] == [each[client] for each in paid]
        assert ((4, halves[2]),) == last.next_balances[client].holdbacks


def test_a_period_ends_at_the_moment_given(booked):
    """What is booked at or after `until_us` is left to the next period, and marked as late there if made before."""
    until_us = booked.receipt("r2").booked_at_us
    first = close(booked, "2026-11", until_us=until_us)
    second = close(booked, "2026-12")

    assert ((0, 2), (2, 3)) == (first.window, second.window)
    assert {"bank": 750_000, "clinic": 1_500_000, "commons": 750_000, "rider": 0} == {
        line.account: line.late for line in second.lines
    }


def test_within_the_grace_hours_what_was_made_in_time_is_still_in(ledger, clock):
    """Until hours after its end a period takes what was made before it; what was made after it is the next one's."""
    policy = Policy(pool=100, currency="EUR", grace_hours=2)
    until_us = clock(0)
    ledger.append(make_receipt("in time", tokens=1, created_at_us=until_us - 1))
    clock(1)
    ledger.append(make_receipt("next", tokens=2, created_at_us=until_us))
    ledger.append(make_receipt("spooled", tokens=4, created_at_us=until_us - 1))
    ledger.append(make_receipt("also next", tokens=8, created_at_us=until_us + 1))
    with pytest.raises(PeriodError, match=r"2 hours of grace: it can be closed from \d{4}-.* UTC on"):
        close(ledger, "2026-11", policy, until_us)
    clock(3)
    ledger.append(make_receipt("too late", tokens=16, created_at_us=until_us - 1))
    first = close(ledger, "2026-11", policy, until_us)
    second = close(ledger, "2026-12", policy)

    assert ((0, 3), 5, (2,)) == (first.window, first.tokens, periods.get(ledger, "2026-11").deferred)
    assert ((3, 5), 2 + 8 + 16) == (second.window, second.tokens)
    assert 16_000_000 == sum(line.late for line in second.lines)


def test_what_is_made_after_the_end_goes_to_the_period_of_its_time(ledger, clock):
    """A receipt of a clock that runs ahead a little is handed on, with its reversal, until a period ends after it."""
    ahead = clock(0) + 5 * MINUTE_US
    ledger.append(make_receipt("ahead", tokens=1, created_at_us=ahead))
    ledger.append(make_receipt("ahead and reversed", tokens=2, created_at_us=ahead))
    ledger.reverse("ahead and reversed", "wrong", "me")
    ledger.append(make_receipt("now", tokens=4))
    first = close(ledger, "p1")
    ledger.append(make_receipt("later", tokens=8))
    clock(1 / 60)
    second = close(ledger, "p2")
    clock(1)
    third = close(ledger, "p3")

    assert [(0, 4), (4, 5), (5, 5)] == [settlement.window for settlement in (first, second, third)]
    assert [4, 8, 1] == [settlement.tokens for settlement in (first, second, third)]
    assert [(1, 2, 3), (1, 2, 3), ()] == [period.deferred for period in periods.all(ledger)]
    with pytest.raises(PeriodEmptyError):
        close(ledger, "p4")


def test_what_claims_to_be_of_the_far_future_counts_when_it_was_booked(ledger):
    """A receipt of a clock that is days ahead is of the ledger's own time, and does not wait for its day to come."""
    for tokens, ahead_us in ((1, 11 * MINUTE_US), (2, 10 * DAY_US), (4, 2**52)):
        ledger.append(make_receipt(f"r{tokens}", tokens=tokens, created_at_us=now_us() + ahead_us))

    assert 7 == close(ledger, "p1").tokens
    assert () == periods.get(ledger, "p1").deferred


def test_a_clock_that_stepped_back_makes_nothing_seem_future(ledger, clock):
    """What was booked is in, though the clock now says that it was made in an hour; and the next period follows."""
    ledger.append(make_receipt("r", created_at_us=now_us()))
    clock(-1)
    first = close(ledger, "2026-11")
    ledger.append(make_receipt("s"))

    assert ((0, 1), (1, 2)) == (first.window, close(ledger, "2026-12").window)


def test_a_period_cannot_end_before_the_one_before_it(booked):
    """Ends are in order; one that is not is named, with the end that stands."""
    close(booked, "2026-11")
    booked.append(make_receipt("later"))
    with pytest.raises(PeriodError, match=r"cannot end at 1970-01-01 .*the one before it ends at 20"):
        close(booked, "2026-12", until_us=5)


def test_a_period_cannot_end_in_the_future(booked):
    """An end that is still to come is refused, even one that no calendar has."""
    for until_us in (now_us() + HOUR_US, 2**62):
        with pytest.raises(PeriodError, match=r"it can be closed from .* on"):
            close(booked, "2026-11", until_us=until_us)


@pytest.mark.parametrize("action", [close, lambda ledger, *rest: periods.preview(ledger, rest[0], POLICY, *rest[1:])])
def test_an_empty_window_is_refused(booked, action):
    """With nothing booked since the last close, there is nothing to settle."""
    with pytest.raises(PeriodEmptyError, match="since receipt 0 that was made before 1970-01-01"):
        action(booked, "2026-11", *([POLICY, 5] if action is close else [5]))
    close(booked, "2026-11")
    with pytest.raises(PeriodEmptyError, match=r"'2026-12'.*since receipt 3"):
        action(booked, "2026-12")

    assert ["2026-11"] == names(booked)


@pytest.mark.parametrize("name", ["", " ", "../x", "-x", "a\n", "a b", "x" * 65, "a/b"])
def test_a_name_that_is_none_is_refused(booked, name):
    """A period's name goes into file names and addresses, and must be fit for them."""
    with pytest.raises(PeriodError, match="name"):
        close(booked, name)


def test_the_next_period_waits_for_the_one_before(booked):
    """While a period is a draft or disputed, the next one can be neither closed nor previewed."""
    close(booked, "2026-11", DISPUTABLE)
    booked.append(make_receipt("later"))
    with pytest.raises(PeriodError, match=r"'2026-12' cannot be closed while '2026-11' before it is draft"):
        close(booked, "2026-12")
    periods.dispute(booked, "2026-11", "a member objects", "me")
    with pytest.raises(PeriodError, match="before it is disputed"):
        periods.preview(booked, "2026-12", POLICY)


def test_from_draft_to_paid(booked, clock):
    """A draft is disputed, made final after its dispute days, and paid; each move is one event with its actor."""
    draft = close(booked, "2026-11", DISPUTABLE)
    assert "draft" == periods.get(booked, "2026-11").state
    periods.dispute(booked, "2026-11", "a member objects", "member")
    with pytest.raises(PeriodError, match=r"may be disputed until .* UTC, and finalised from then on"):
        periods.finalise(booked, "2026-11", "operator")
    clock(3 * 24 + 1)
    final = periods.finalise(booked, "2026-11", "operator")
    periods.pay(booked, "2026-11", "bank transfer 17", "treasurer")
    period = periods.get(booked, "2026-11")

    assert (draft, "paid", draft, final) == (final, period.state, period.draft, period.final)
    assert [
        ("period.draft", "me"),
        ("period.disputed", "member"),
        ("period.final", "operator"),
        ("period.paid", "treasurer"),
    ] == [(move.kind, move.actor) for move in period.moves]
    assert {"reference": "bank transfer 17"} == period.moves[-1].document
    assert {"reason": "a member objects"} == period.moves[1].document


@pytest.mark.parametrize(
    ("state", "move", "message"),
    [
        ("none", "finalise", "no period '2026-11' was closed; there are: none"),
        ("draft", "pay", "is draft and cannot be paid; it can be: disputed or finalised"),
        ("disputed", "dispute", "is disputed and cannot be disputed; it can be: finalised"),
        ("disputed", "pay", "is disputed and cannot be paid; it can be: finalised"),
        ("final", "dispute", "is final and cannot be disputed; it can be: paid"),
        ("final", "finalise", "is final and cannot be finalised; it can be: paid"),
        ("paid", "finalise", "is paid and cannot be finalised; it can be: nothing else"),
        ("paid", "pay", "is paid and cannot be paid; it can be: nothing else"),
    ],
)
def test_a_wrong_move_says_which_are_right(booked, state, move, message):
    """A move that the state does not allow is refused, with the state and the moves that are possible."""
    if state != "none":
        close(booked, "2026-11", DISPUTABLE if state in ("draft", "disputed") else POLICY)
    if state == "disputed":
        periods.dispute(booked, "2026-11", "why", "me")
    if state == "paid":
        periods.pay(booked, "2026-11", "reference", "me")
    before = periods.all(booked)
    moves = {
        "dispute": lambda: periods.dispute(booked, "2026-11", "why", "me"),
        "finalise": lambda: periods.finalise(booked, "2026-11", "me"),
        "pay": lambda: periods.pay(booked, "2026-11", "reference", "me"),
    }
    with pytest.raises(PeriodError, match=message):
        moves[move]()

    assert before == periods.all(booked)


@pytest.mark.parametrize("words", ["", " ", "a\nb"])
def test_a_move_needs_its_words(booked, words):
    """A dispute needs a reason and a payment a reference, both printable."""
    close(booked, "2026-11", DISPUTABLE)
    with pytest.raises(PeriodError, match="reason must be"):
        periods.dispute(booked, "2026-11", words, "me")
    with pytest.raises(PeriodError, match="reference must be"):
        periods.pay(booked, "2026-11", words, "me")


@pytest.mark.long
def test_books_that_do_not_add_up_are_not_settled(booked):
    """When somebody slipped in an entry past the ledger, the close says so and settles nothing."""
    write_past(booked, "INSERT INTO entries (receipt_sequence, account, amount) VALUES (2, 'thief', 1)")
    with pytest.raises(LedgerError, match="receipts 1 to 3: entries sum to 6000001 micro-credits, tokens to 6000000"):
        close(booked, "2026-11")

    assert () == periods.all(booked)


@pytest.mark.parametrize("field", ["window", "deferred", "settlement", "sha256"])
def test_an_altered_settlement_is_noticed(booked, field):
    """A stored period whose document does not match its hash is not handed out; it is named."""
    close(booked, "2026-11")
    with booked.database.read() as connection:
        (draft,) = events.find(connection, kinds=["period.draft"])
    forged = {**draft.document, field: [1]}
    with booked.database.write() as connection:
        events.record(connection, "period.draft", "forged", "thief", forged)
    for read in (lambda: periods.get(booked, "2026-11"), lambda: periods.all(booked)):
        with pytest.raises(LedgerError, match=r"draft settlement of period 'forged'.*altered"):
            read()


def test_a_final_without_a_draft_is_noticed(booked):
    """A period that begins in the middle was not written by us."""
    with booked.database.write() as connection:
        events.record(connection, "period.paid", "forged", "thief", {})
    with pytest.raises(LedgerError, match=r"'forged' begins with period\.paid"):
        periods.all(booked)


def test_a_policy_must_speak_of_this_ledger(booked):
    """A cap for a client who is not registered, or a fee of an application that nobody knows, is refused by name."""
    caps = Policy.from_mapping({"pool": 1, "currency": "EUR", "caps": {"bank": 50, "banc": 50}})
    fees = {"0123456789ab": 100, "nobody": 5}
    centric = Policy.from_mapping({"currency": "EUR", "allocation": "user_centric", "fees": fees})
    with pytest.raises(PolicyError, match=r"caps: no client 'banc'.*bank, clinic, rider"):
        close(booked, "2026-11", caps)
    with pytest.raises(PolicyError, match=r"fees: no application 'nobody'.*0123456789ab"):
        close(booked, "2026-11", centric)


def test_each_application_pays_who_answered_it(ledger, clock):
    """User-centric: an application's fee is split by the credit in its own responses, less those reversed."""
    ahead = clock(0) + 5 * MINUTE_US
    for application, tokens, shares, created_at_us in [
        ("app-a", 10, {"bank": 1.0}, 1),
        ("app-b", 1, {"clinic": 1.0}, 1),
        ("app-b", 5, {"bank": 1.0}, 1),
        ("app-b", 7, {"rider": 1.0}, ahead),
    ]:
        receipt = make_receipt(f"{application}-{tokens}", tokens, shares, created_at_us)
        ledger.append(type(receipt)(**{**vars(receipt), "application": application}))
    ledger.reverse("app-b-5", "wrong", "me")
    policy = Policy.from_mapping(
        {"currency": "EUR", "allocation": "user_centric", "fees": {"app-a": 100, "app-b": 700}}
    )

    assert {"bank": 100, "clinic": 700, "commons": 0, "rider": 0} == payouts(close(ledger, "2026-11", policy))
    clock(1)
    assert {"bank": 0, "clinic": 0, "commons": 100, "rider": 700} == payouts(close(ledger, "2026-12", policy))


def test_a_reversal_in_the_same_period_nets_out(ledger):
    """A response that is reversed before its period closes earns nobody anything."""
    ledger.append(make_receipt("kept", tokens=2))
    ledger.append(make_receipt("wrong", tokens=9, shares={"rider": 1.0}))
    ledger.reverse("wrong", "a duplicate", "me")
    settlement = close(ledger, "2026-11")

    assert (2, {"bank": 250, "clinic": 501, "commons": 250, "rider": 0}) == (settlement.tokens, payouts(settlement))
    assert {0} == {line.clawback for line in settlement.lines}


def test_a_reversal_of_a_paid_response_takes_its_payout_back(ledger):
    """What a response added to the period it was paid in is taken back; whom it cost something gives nothing back."""
    ledger.append(make_receipt("good", tokens=2, shares={"bank": 1.0}))
    ledger.append(make_receipt("bad", tokens=2, shares={"bank": 0.5, "clinic": 0.5}))
    policy = Policy(pool=400, currency="EUR")
    assert {"bank": 300, "clinic": 100, "commons": 0, "rider": 0} == payouts(close(ledger, "2026-11", policy))
    ledger.reverse("bad", "it was copied", "me")
    ledger.append(make_receipt("later", tokens=2, shares={"bank": 0.5, "rider": 0.5}))
    settlement = close(ledger, "2026-12", policy)
    lines = {line.account: line for line in settlement.lines}

    # 200 each by credit. Without the response the bank would have had all 400: of its 300 nothing is taken back. The
    # clinic owes all its 100 and has nothing to give.
    assert (2, 4_000_000 // 4) == (settlement.tokens, lines["bank"].credit)
    assert {"bank": 0, "clinic": 100, "commons": 0, "rider": 0} == {each: lines[each].clawback for each in lines}
    assert {"bank": 200, "clinic": 0, "commons": 0, "rider": 200} == payouts(settlement)
    assert -100 == lines["clinic"].carried_out
    assert {"2026-11": {"bank": 1_000_000, "clinic": 1_000_000}} == periods.get(ledger, "2026-12").reversed
    assert {"2026-11": {"clinic": 100}} == periods.get(ledger, "2026-12").clawbacks


def test_reversals_of_one_period_in_several_later_ones_add_up(ledger):
    """Reversing one after the other everything that earned a client its payout takes back just that, to the cent."""
    for number in range(7):
        ledger.append(make_receipt(f"r{number}", tokens=1, shares={"bank": 1 / 3, "clinic": 2 / 3 - 1e-9}))
    first = close(ledger, "p0", Policy(pool=100, currency="EUR"))
    gross = {line.account: line.gross for line in first.lines}
    taken = {"bank": 0, "clinic": 0}
    for number in range(7):
        ledger.reverse(f"r{number}", "wrong", "me")
        for line in close(ledger, f"p{number + 1}", Policy(pool=0, currency="EUR")).lines:
            if line.account in taken:
                taken[line.account] += line.clawback

    assert {"bank": gross["bank"], "clinic": gross["clinic"]} == taken


def test_the_order_of_reversals_and_their_responses_periods_is_kept_apart(ledger):
    """A reversal booked while its response's period is a draft belongs to the next period, as the window is frozen."""
    ledger.append(make_receipt("r", tokens=2, shares={"bank": 1.0}))
    close(ledger, "p1", Policy(pool=50, currency="EUR"))
    ledger.append(make_receipt("s", tokens=2, shares={"clinic": 1.0}))
    draft = close(ledger, "p2", Policy(pool=60, currency="EUR", dispute_days=1))
    ledger.reverse("s", "wrong", "me")

    assert draft == periods.preview(ledger, "p2", POLICY).settlement


@pytest.mark.parametrize("deferred", [False, True])
def test_a_deferred_response_counts_where_it_was_deferred_to(ledger, clock, deferred):
    """A claw-back follows the period in which the response was paid, also when that is not the one of its window."""
    created_at_us = clock(0) + 5 * MINUTE_US if deferred else 1
    ledger.append(make_receipt("r", tokens=1, shares={"bank": 1.0}, created_at_us=created_at_us))
    ledger.append(make_receipt("s", tokens=1, shares={"clinic": 1.0}))
    close(ledger, "p1", Policy(pool=100, currency="EUR"))
    clock(1)
    ledger.append(make_receipt("t", tokens=1, shares={"clinic": 1.0}))
    close(ledger, "p2", Policy(pool=300, currency="EUR"))
    ledger.reverse("r", "wrong", "me")
    third = close(ledger, "p3", Policy(pool=0, currency="EUR"))

    assert {"p2" if deferred else "p1": {"bank": 1_000_000}} == periods.get(ledger, "p3").reversed
    assert (150 if deferred else 50) == next(line.clawback for line in third.lines if line.account == "bank")


def test_the_document_of_a_period_is_plain(booked):
    """What stands in the book of events is JSON without a float, and reads back as the same settlement."""
    settlement = close(booked, "2026-11")
    with booked.database.read() as connection:
        draft, final = events.find(connection, kinds=["period.draft", "period.final"])

    assert draft.document == final.document == json.loads(json.dumps(draft.document), parse_float=Fraction)
    assert settlement.to_document() == draft.document["settlement"]
    assert ("period.draft:2026-11", "period.final:2026-11") == (draft.once, final.once)


@pytest.mark.parametrize("draft", [False, True])
def test_a_client_registered_while_a_period_closes_has_its_line(ledger, url, monkeypatch, draft):
    """Who comes between the adding up and the writing is settled too, with nothing, and told so; it is no crash."""
    ledger.append(make_receipt("r"))
    policy = Policy(currency="EUR", pool=1000, dispute_days=1 if draft else 0)
    if draft:
        periods.close(ledger, "2026-11", policy, "me")
        monkeypatch.setattr("rewards.periods.transitions.DAY_US", 0)
    write, other = ledger.database.write, Ledger(url)

    def late(**options):
        other.register("demo", {"late": "A late one"})
        return write(**options)

    monkeypatch.setattr(ledger.database, "write", late)
    final = periods.finalise(ledger, "2026-11", "me") if draft else periods.close(ledger, "2026-11", policy, "me")
    monkeypatch.undo()
    other.close()

    assert 0 == next(line for line in final.lines if line.account == "late").payout
    with ledger.database.read() as connection:
        assert "late" in statements.clients(connection, "2026-11")
    assert audit(url).is_ok
