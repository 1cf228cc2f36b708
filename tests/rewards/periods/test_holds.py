"""Holds: what is held is not paid, and what is released is paid once, in the period that is settled next."""

import pytest

from rewards import periods
from rewards.credit import COMMONS
from rewards.errors import HoldError, PeriodEmptyError, PeriodError
from rewards.periods import holds
from rewards.settlement.policy import Policy
from tests.rewards.receipts import make_receipt

POLICY = Policy(pool=400, currency="EUR")
DISPUTABLE = Policy(pool=400, currency="EUR", dispute_days=1)
BANK, CLINIC = {"bank": 1.0}, {"clinic": 1.0}
DAY_US = 24 * 3_600_000_000


@pytest.fixture
def booked(ledger):
    """A response of the bank's and one of the clinic's, two tokens each."""
    ledger.append(make_receipt("of-bank", tokens=2, shares=BANK))
    ledger.append(make_receipt("of-clinic", tokens=2, shares=CLINIC))
    return ledger


@pytest.fixture
def in_two_days(monkeypatch):
    """Let the dispute days be over."""
    now_us = periods.transitions.now_us

    def change():
        monkeypatch.setattr("rewards.periods.transitions.now_us", lambda *_: now_us() + 2 * DAY_US)

    return change


def close(ledger, name, policy=POLICY):
    return periods.close(ledger, name, policy, "me")


def hold(ledger, kind, target):
    return holds.place(ledger, kind, target, "it looks copied", "operator")


def release(ledger, hold_id):
    holds.release(ledger, hold_id, "it is not", "operator")


def paid(settlement):
    return {line.account: line.payout for line in settlement.lines if line.payout}


def line_of(settlement, account):
    return next(line for line in settlement.lines if line.account == account)


def test_a_hold_is_listed_until_it_is_released(booked):
    """A hold is active from placing to release, with who placed it and why; afterwards it is still on record."""
    first, second = hold(booked, "client", "bank"), hold(booked, "response", "of-clinic")
    release(booked, first)
    with booked.database.read() as connection:
        active = holds.active_holds(connection)

    assert ("hold-1", "hold-2") == (first, second)
    assert [("hold-2", "response", "of-clinic", "it looks copied", "operator", None)] == [
        (each.hold_id, each.kind, each.target, each.reason, each.actor, each.released_at_us) for each in active
    ]
    assert [True, False] == [each.released_at_us is not None for each in holds.all_holds(booked)]


def test_a_held_response_is_left_out_and_counts_after_its_release(booked):
    """Its credit is shown as held in one period, and paid as late in the one after its release; never twice."""
    hold_id = hold(booked, "response", "of-bank")
    first = close(booked, "p1")
    booked.append(make_receipt("second", tokens=2, shares=CLINIC))
    second = close(booked, "p2")
    release(booked, hold_id)
    booked.append(make_receipt("third", tokens=2, shares=CLINIC))
    third = close(booked, "p3")

    assert [{"clinic": 400}, {"clinic": 400}, {"bank": 200, "clinic": 200}] == [
        paid(settlement) for settlement in (first, second, third)
    ]
    assert [(0, 2_000_000, 0), (0, 2_000_000, 0), (2_000_000, 0, 2_000_000)] == [
        (line.credit, line.held_credit, line.late)
        for line in (line_of(settlement, "bank") for settlement in (first, second, third))
    ]
    assert [2, 2, 4] == [settlement.tokens for settlement in (first, second, third)]
    with pytest.raises(PeriodEmptyError):
        close(booked, "p4")


def test_a_period_of_held_responses_alone_is_refused_by_that_name(booked):
    """Where all that was booked is held there is nothing to settle, and the refusal says that it is held."""
    hold_ids = [hold(booked, "response", "of-bank"), hold(booked, "response", "of-clinic")]
    with pytest.raises(PeriodEmptyError, match="all responses are held that were booked since receipt 0"):
        close(booked, "p1")
    release(booked, hold_ids[0])

    assert {"bank": 400} == paid(close(booked, "p1"))


def test_a_release_alone_makes_a_period(booked):
    """What was released may be settled though nothing new was booked."""
    hold_id = hold(booked, "response", "of-bank")
    close(booked, "p1")
    with pytest.raises(PeriodEmptyError):
        close(booked, "p2")
    release(booked, hold_id)

    assert {"bank": 400} == paid(close(booked, "p2"))
    assert ((2, 2), (1,)) == (periods.get(booked, "p2").window, periods.get(booked, "p2").taken_in)


@pytest.mark.parametrize("is_released", [True, False])
def test_a_held_response_that_is_reversed_nets_to_nothing(booked, is_released):
    """It was never paid, so nothing is clawed back; and released or not, it never will be."""
    hold_id = hold(booked, "response", "of-bank")
    close(booked, "p1")
    booked.reverse("of-bank", "it was copied", "operator")
    if is_released:
        release(booked, hold_id)
    booked.append(make_receipt("second", tokens=1, shares=CLINIC))
    second = close(booked, "p2")
    if not is_released:
        release(booked, hold_id)
    booked.append(make_receipt("third", tokens=1, shares=CLINIC))

    assert [{"clinic": 400}, {"clinic": 400}] == [paid(second), paid(close(booked, "p3"))]
    assert (0, 0, 0) == (
        line_of(second, "bank").clawback,
        line_of(second, "bank").credit,
        line_of(second, "bank").held_credit,
    )
    assert {} == periods.get(booked, "p2").reversed


def test_a_response_that_is_held_and_reversed_in_one_period_is_nothing(booked):
    """Both the response and its reversal are in the window, and net out whether held or not."""
    hold(booked, "response", "of-bank")
    booked.reverse("of-bank", "it was copied", "operator")
    settlement = close(booked, "p1")

    assert ({"clinic": 400}, 0, 2) == (paid(settlement), line_of(settlement, "bank").held_credit, settlement.tokens)
    assert () == periods.get(booked, "p1").left_out


def test_a_claw_back_follows_a_released_response_to_where_it_was_paid(booked):
    """A response left out of one period and paid in the next is clawed back by what it earned there."""
    hold_id = hold(booked, "response", "of-bank")
    close(booked, "p1")
    release(booked, hold_id)
    close(booked, "p2", Policy(pool=60, currency="EUR"))
    booked.reverse("of-bank", "it was copied", "operator")
    third = close(booked, "p3", Policy(pool=0, currency="EUR"))

    assert ({"p2": {"bank": 2_000_000}}, 60) == (
        periods.get(booked, "p3").reversed,
        line_of(third, "bank").clawback,
    )


def test_a_held_clients_payout_waits(booked):
    """A held client gets its share, but is paid nothing until the hold is released; then all of it."""
    hold_id = hold(booked, "client", "bank")
    first = close(booked, "p1")
    release(booked, hold_id)
    booked.append(make_receipt("second", tokens=2, shares=CLINIC))
    second = close(booked, "p2")

    assert [{"clinic": 200}, {"bank": 200, "clinic": 400}] == [paid(first), paid(second)]
    assert (200, 200, 200) == (
        line_of(first, "bank").gross,
        line_of(first, "bank").held,
        line_of(second, "bank").released_hold,
    )


@pytest.mark.parametrize(("kind", "target"), [("client", "bank"), ("response", "of-bank")])
def test_a_hold_on_a_draft_disputes_it_and_is_heeded_at_final(booked, in_two_days, kind, target):
    """A draft that a hold touches becomes disputed, with the reason, and is settled again by the holds of the end."""
    draft = close(booked, "p1", DISPUTABLE)
    hold(booked, kind, target)
    period = periods.get(booked, "p1")
    preview = periods.preview(booked, "p1", DISPUTABLE)
    in_two_days()
    final = periods.finalise(booked, "p1", "operator")

    assert ("disputed", f"hold-1 was placed on {kind} {target}: it looks copied", "operator") == (
        period.state,
        period.moves[-1].document["reason"],
        period.moves[-1].actor,
    )
    assert {"bank": 200, "clinic": 200} == paid(draft)
    assert {"clinic": 200 if kind == "client" else 400} == paid(final) == paid(preview.settlement)
    assert {"bank": -200, "clinic": 0 if kind == "client" else 200, COMMONS: 0, "rider": 0} == preview.difference


def test_a_hold_that_is_released_before_the_end_leaves_the_draft_as_it_was(booked, in_two_days):
    """When the dispute is settled in the client's favour, the final settlement is the draft."""
    draft = close(booked, "p1", DISPUTABLE)
    release(booked, hold(booked, "response", "of-bank"))
    in_two_days()

    assert draft == periods.finalise(booked, "p1", "operator")


def test_a_hold_on_what_is_not_in_the_draft_does_not_dispute_it(booked):
    """A response of the open period has nothing to do with the draft before it; a second hold changes no state."""
    close(booked, "p1", DISPUTABLE)
    booked.append(make_receipt("next"))
    hold(booked, "response", "next")
    assert "draft" == periods.get(booked, "p1").state
    hold(booked, "response", "of-bank")
    hold(booked, "response", "of-clinic")

    assert ["period.draft", "period.disputed"] == [move.kind for move in periods.get(booked, "p1").moves]


def test_what_was_settled_is_not_held_but_reversed(booked):
    """A hold on a response of a final or paid period is refused with the way that is open."""
    close(booked, "p1")
    with pytest.raises(HoldError, match=r"'of-bank' was settled in period 'p1', which is final: reverse it instead"):
        hold(booked, "response", "of-bank")
    periods.pay(booked, "p1", "reference", "me")
    with pytest.raises(HoldError, match="which is paid"):
        hold(booked, "response", "of-bank")

    assert () == holds.all_holds(booked)


@pytest.mark.parametrize(
    ("kind", "target", "message"),
    [
        ("period", "p1", "a hold is on a client or a response, not on a 'period'"),
        ("client", "stranger", "no client 'stranger' is registered; registered are: bank, clinic, rider"),
        ("client", "of-bank", "no client 'of-bank'"),
        ("response", "none", "no response 'none' is booked"),
        ("response", "reversal-gone", "no response 'reversal-gone' is booked that could be held"),
        ("response", "gone", "'gone' is reversed already; there is nothing left to hold"),
    ],
)
def test_what_cannot_be_held_is_refused(booked, kind, target, message):
    """Another kind, and a target that is unknown, a reversal or reversed, are refused by name."""
    booked.append(make_receipt("gone"))
    booked.reverse("gone", "wrong", "me")
    with pytest.raises(HoldError, match=message):
        hold(booked, kind, target)

    assert () == holds.all_holds(booked)


def test_a_target_is_held_once_at_a_time(booked):
    """A second hold on the same target is refused, naming the first; after the release it may be held again."""
    first = hold(booked, "client", "bank")
    with pytest.raises(HoldError, match="'bank' is held already, by hold-1: it looks copied"):
        hold(booked, "client", "bank")
    release(booked, first)

    assert "hold-2" == hold(booked, "client", "bank")


def test_a_hold_is_released_once(booked):
    """Releasing what is not there or was released before is refused; the first release stands."""
    hold_id = hold(booked, "client", "bank")
    hold(booked, "client", "clinic")
    release(booked, hold_id)
    with pytest.raises(HoldError, match="hold-1 was released before"):
        release(booked, hold_id)
    with pytest.raises(HoldError, match="no hold 'hold-9'; active are: hold-2"):
        release(booked, "hold-9")


@pytest.mark.parametrize("reason", ["", "  ", "a\nb", "x" * 1001])
def test_a_hold_needs_a_reason(booked, reason):
    """Placing and releasing without printable words, or with more than anybody reads, is refused; by whatever way."""
    with pytest.raises(HoldError, match="reason must"):
        holds.place(booked, "client", "bank", reason, "me")
    hold_id = hold(booked, "client", "bank")
    with pytest.raises(HoldError, match="reason must"):
        holds.release(booked, hold_id, reason, "me")


@pytest.mark.parametrize("is_held", [False, True])
def test_what_comes_after_a_draft_is_rehearsed_as_if_that_were_final(booked, in_two_days, is_held):
    """With the holds of now, which dispute it, once its days are over; it is what finalising and closing come to."""
    policy = Policy(pool=400, currency="EUR", dispute_days=1, holdback_percent=10, holdback_release_after=1)
    close(booked, "p1", policy)
    if is_held:
        hold(booked, "client", "bank")
    booked.append(make_receipt("later", tokens=2, shares=CLINIC))
    now = periods.transitions.now_us()
    with pytest.raises(PeriodError, match=r"'p2' cannot be closed at .* and can be finalised from .* on"):
        periods.preview(booked, "p2", policy, at_us=now + DAY_US // 2)
    with pytest.raises(PeriodError, match="finalise that first"):
        periods.preview(booked, "p2", policy)
    shown = periods.preview(booked, "p2", policy, at_us=now + 2 * DAY_US)
    unchanged = periods.get(booked, "p1")
    in_two_days()
    final = periods.finalise(booked, "p1", "me")

    assert ("p1", "final of p1") == (shown.taken_as_final, shown.compared_with)
    assert ("disputed" if is_held else "draft", None) == (unchanged.state, unchanged.final)
    assert is_held == (line_of(final, "bank").held > 0)
    assert line_of(shown.settlement, "clinic").released_holdback == line_of(final, "clinic").holdback > 0
    assert close(booked, "p2", policy) == shown.settlement
