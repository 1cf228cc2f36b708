"""Money stays in its currency, falls due without new responses, and is taken back as it was added; on the ledger."""

from dataclasses import replace

import pytest
from sqlalchemy import text

from rewards import periods
from rewards.audit.replay import audit
from rewards.errors import PeriodEmptyError
from rewards.periods import holds
from rewards.settlement.policy import Policy
from tests.rewards.receipts import make_receipt

EUR = {"currency": "EUR"}
YEN = {"currency": "JPY", "minor_digits": 0}


def book(ledger, name, application="0123456789ab", tokens=1, **shares):
    ledger.append(replace(make_receipt(name, tokens, shares), application=application))


def close(ledger, name, **policy):
    return periods.close(ledger, name, Policy.from_mapping(policy), "me")


def line_of(settlement, account):
    return next(line for line in settlement.lines if line.account == account)


def paid(settlement):
    return {line.account: line.payout for line in settlement.lines if line.payout}


def test_cents_are_never_paid_as_yen(ledger, url):
    """A carry and a holdback in EUR stand while a period is settled in JPY, and are paid when one is in EUR again."""
    book(ledger, "r1", bank=1.0)
    close(ledger, "p1", **EUR, pool=10_000, holdback_percent=50, minimum_payout=6_000)
    book(ledger, "r2", clinic=1.0)
    yen = close(ledger, "p2", **YEN, pool=700)
    book(ledger, "r3", clinic=1.0)
    euro = close(ledger, "p3", **EUR, pool=100)

    assert [{"clinic": 700}, {"bank": 10_000, "clinic": 100}] == [paid(yen), paid(euro)]
    assert (0, ()) == (line_of(yen, "bank").carried_in, line_of(yen, "bank").holdbacks)
    assert audit(url).is_ok


def test_what_stands_in_another_currency_is_told(ledger):
    """The settlement names what stands, and each client's statement what stands for it."""
    book(ledger, "r1", bank=0.5, clinic=0.5)
    close(ledger, "p1", **EUR, pool=1000, holdback_percent=10)
    book(ledger, "r2", clinic=1.0)
    close(ledger, "p2", **YEN, pool=700)
    (purse,) = periods.get(ledger, "p2").settlement.to_document()["standing"]
    with ledger.database.read() as connection:
        query = "SELECT document FROM events WHERE kind = 'statement' AND subject = 'p2/bank'"
        statement = connection.execute(text(query)).scalar_one()

    assert ("EUR", 2, ["bank", "clinic"]) == (
        purse["currency"], purse["minor_digits"], [each["account"] for each in purse["balances"]]
    )  # fmt: skip
    assert '"standing":[{"carry":"0","clawback":"0","currency":"EUR"' in statement


def test_a_response_paid_in_euros_is_taken_back_in_euros(ledger, url):
    """Reversed while periods are settled in JPY, it is a claw-back in EUR that stands, and no yen are taken."""
    book(ledger, "r1", bank=1.0)
    close(ledger, "p1", **EUR, pool=5_000)
    ledger.reverse("r1", "copied", "me")
    book(ledger, "r2", bank=1.0)
    yen = close(ledger, "p2", **YEN, pool=9_000)
    book(ledger, "r3", bank=1.0)
    euro = close(ledger, "p3", **EUR, pool=6_000)

    assert [(0, 9_000), (5_000, 1_000)] == [
        (line_of(each, "bank").clawback, line_of(each, "bank").payout) for each in (yen, euro)
    ]
    assert 5_000 == line_of(euro, "commons").recovered
    assert audit(url).is_ok


def test_a_holdback_that_is_due_is_paid_without_new_responses(ledger):
    """A period in which nothing was booked is closed for what falls due, and is empty when nothing does."""
    book(ledger, "r1", bank=1.0)
    close(ledger, "p1", **EUR, pool=1000, holdback_percent=50)

    assert {"bank": 500} == paid(close(ledger, "p2", **EUR, pool=0))
    with pytest.raises(PeriodEmptyError, match="nothing in EUR falls due"):
        close(ledger, "p3", **EUR, pool=0)


def test_no_pool_is_paid_for_no_responses(ledger):
    """What falls due makes a period, and not a second pool, which the commons would have whole."""
    book(ledger, "r1", bank=1.0)
    close(ledger, "p1", **EUR, pool=1000, holdback_percent=50)

    with pytest.raises(PeriodEmptyError, match=r"nobody but the commons: .* since receipt 1; with pool: 0"):
        close(ledger, "p2", **EUR, pool=1000)
    assert {"bank": 500} == paid(close(ledger, "p2", **EUR, pool=0))


def test_a_holdback_of_several_periods_is_not_locked_in_while_nobody_earns(ledger, url):
    """Its wait is counted in periods, so a period may be closed that only brings it nearer; then there is none."""
    book(ledger, "r1", bank=1.0)
    close(ledger, "p1", **EUR, pool=1000, holdback_percent=50, holdback_release_after=3)
    with pytest.raises(PeriodEmptyError, match="nothing in JPY falls due"):
        close(ledger, "p2", **YEN, pool=0)
    hold = holds.place(ledger, "client", "bank", "doubt", "me")
    with pytest.raises(PeriodEmptyError):
        close(ledger, "p2", **EUR, pool=0)
    holds.release(ledger, hold, "settled", "me")

    assert [{}, {}, {"bank": 500}] == [paid(close(ledger, name, **EUR, pool=0)) for name in ("p2", "p3", "p4")]
    with pytest.raises(PeriodEmptyError):
        close(ledger, "p5", **EUR, pool=0)
    assert audit(url).is_ok


def test_what_a_hold_withheld_is_paid_without_new_responses(ledger):
    """The release of a client's hold alone makes a period; while the hold lasts there is none."""
    book(ledger, "r1", bank=1.0)
    hold = holds.place(ledger, "client", "bank", "doubt", "me")
    close(ledger, "p1", **EUR, pool=1000)
    with pytest.raises(PeriodEmptyError):
        close(ledger, "p2", **EUR, pool=0)
    holds.release(ledger, hold, "settled", "me")

    assert {"bank": 1000} == paid(close(ledger, "p2", **EUR, pool=0))


def test_a_carry_is_paid_when_the_minimum_falls_without_new_responses(ledger):
    """Money below the minimum is due as soon as the policy's minimum is no longer above it; in its currency alone."""
    book(ledger, "r1", bank=1.0)
    close(ledger, "p1", **EUR, pool=1000, minimum_payout=2000)
    for policy in (EUR | {"minimum_payout": 1001}, YEN):
        with pytest.raises(PeriodEmptyError):
            close(ledger, "p2", **policy, pool=0)

    assert {"bank": 1000} == paid(close(ledger, "p2", **EUR, pool=0, minimum_payout=1000))


def test_a_response_of_an_application_that_pays_nothing_takes_nothing_back(ledger, url):
    """Under `user_centric` only what an application's fee paid for is taken back, whatever a response was credited."""
    book(ledger, "free", "lab", tokens=9, bank=1.0)
    book(ledger, "dear", "shop", tokens=1, bank=1.0)
    policy = {**EUR, "allocation": "user_centric", "fees": {"shop": 10_000}}
    assert {"bank": 10_000} == paid(close(ledger, "p1", **policy))
    taken = []
    for place, name in enumerate(("free", "dear"), start=2):
        ledger.reverse(name, "copied", "me")
        taken.append(line_of(close(ledger, f"p{place}", **EUR, pool=0), "bank").clawback)

    assert [0, 10_000] == taken
    assert audit(url).is_ok


def test_a_response_that_changed_nothing_under_a_cap_takes_nothing_back(ledger):
    """A capped payout that stays what it was without the response is not touched by its reversal."""
    for number in range(4):
        book(ledger, f"r{number}", bank=0.9, clinic=0.1)
    first = close(ledger, "p1", **EUR, pool=90_000, cap_percent=60)
    ledger.reverse("r0", "copied", "me")

    assert (54_000, 0) == (line_of(first, "bank").gross, line_of(close(ledger, "p2", **EUR, pool=0), "bank").clawback)


def test_what_is_recovered_is_distributed_among_those_who_gave_nothing_back(ledger, url):
    """Under `commons: distribute` a claw-back goes to the other clients by credit, and the commons keeps nothing."""
    book(ledger, "r1", clinic=1.0)
    close(ledger, "p1", **EUR, price_per_million_tokens=300_000_000)
    ledger.reverse("r1", "copied", "me")
    book(ledger, "r2", tokens=4, bank=0.5, clinic=0.25, rider=0.25)
    settlement = close(ledger, "p2", **EUR, pool=2000, commons="distribute")

    assert {"bank": 1000 + 200, "clinic": 200, "rider": 500 + 100} == paid(settlement)
    assert {"bank": 200, "rider": 100, "clinic": 0, "commons": 0} == {
        line.account: line.recovered for line in settlement.lines
    }
    assert audit(url).is_ok


def test_what_was_recovered_for_a_response_is_taken_back_with_it(ledger, url):
    """Under `commons: distribute`, who had a part of a claw-back for a response that is reversed gives that back."""
    distribute = EUR | {"commons": "distribute"}
    book(ledger, "r1", bank=1.0)
    close(ledger, "p1", **EUR, pool=1000)
    ledger.reverse("r1", "copied", "me")
    book(ledger, "r2", bank=0.9, clinic=0.1)
    assert {"clinic": 1000} == paid(close(ledger, "p2", **distribute, pool=1000))
    ledger.reverse("r2", "copied", "me")
    book(ledger, "r3", rider=1.0)
    last = close(ledger, "p3", **EUR, pool=0)

    assert [(900, -1000), (1000, -1000)] == [
        (line_of(last, client).clawback, line_of(last, client).carried_out) for client in ("bank", "clinic")
    ]
    assert audit(url).is_ok


@pytest.mark.long
def test_a_pool_by_price_loses_no_fraction(ledger):
    """99.99 minor units in each of 100 periods are 9 999 in all, and not 9 900."""
    pools = []
    for number in range(100):
        book(ledger, f"r{number}", tokens=9_999, bank=1.0)
        pools.append(close(ledger, f"p{number}", **EUR, price_per_million_tokens=10_000).pool)

    assert 9_999 == sum(pools)
