"""Payouts of a real ledger explained: reversals of the period itself, claw-backs of earlier ones, holds, holdbacks."""

from rewards import periods
from rewards.credit import COMMONS
from rewards.ledger.ledger import Ledger
from rewards.periods import holds
from rewards.periods.period_totals import ReversedResponse
from rewards.settlement.policy import Policy
from tests.fixtures import copied
from tests.rewards.receipts import make_receipt

POLICY = {"currency": "EUR", "holdback_percent": 10, "holdback_release_after": 1, "fee_percent": "2.5"}


def amounts(ledger: Ledger, name: str, client: str) -> dict[str, int]:
    """Name of each line -> what it comes to."""
    return {step.name: step.amount for step in periods.explain(ledger, name, client).steps}


def require_explained(ledger: Ledger) -> int:
    """Every line is explained, and comes to what the settlement stores; how many there are of clients."""
    count = 0
    for period in periods.all(ledger):
        for line in period.settlement.lines:
            told = amounts(ledger, period.name, line.account)
            of_all = ("credit", "gross", "residue", "carried_in", "recovered", "carried_out", "payout")
            of_clients = ("clawback", "holdback", "drawn_holdback", "held")
            names = of_all if line.account == COMMONS else (*of_all, *of_clients)
            assert {name: getattr(line, name) for name in names} == {name: told[name] for name in names}
            count += line.account != COMMONS
    return count


def test_every_payout_of_three_periods_is_explained(ledger):
    """With a reversal in each, a hold, holdbacks that return, and other policies from period to period."""
    for number in range(4):
        ledger.append(make_receipt(f"a{number}", tokens=5 + number))
    ledger.reverse("a3", "a test question", "me")
    periods.close(ledger, "p1", Policy(**POLICY, price_per_million_tokens=10**9 + 1), "me")
    ledger.append(make_receipt("b0"))
    ledger.reverse("a1", "a test question", "me")
    holds.place(ledger, "client", "clinic", "audit", "me")
    periods.close(ledger, "p2", Policy(**POLICY, price_per_million_tokens=10**9, commons="distribute"), "me")
    ledger.append(make_receipt("c0"))
    ledger.reverse("b0", "a test question", "me")
    periods.close(ledger, "p3", Policy(**POLICY, pool=333, caps={"clinic": 50}, minimum_payout=200), "me")

    first, second, third = (amounts(ledger, name, "bank") for name in ("p1", "p2", "p3"))
    assert 9 == require_explained(ledger)
    assert 0 < first["reversed"] < first["measured"]
    assert (0, second["clawback_1"]) == (second["reversed"], second["clawback"])
    assert second["clawback"] > 0 < third["clawback"]
    assert 0 < amounts(ledger, "p2", "clinic")["held"]
    assert (ReversedResponse("a3", "p1", 2_000_000),) == periods.explain(ledger, "p1", "bank").reversed
    assert [("a1", "p1")] == [
        (each.response_id, each.period) for each in periods.explain(ledger, "p2", "bank").reversed
    ]
    assert () == periods.explain(ledger, "p2", "rider").reversed


def test_what_stands_in_another_currency_is_told_where_it_is_settled(ledger):
    """A claw-back of a period in euros waits while periods are settled in yen, and is a line of the next in euros."""
    for name, policy in (
        ("p1", Policy(currency="EUR", pool=1000)),
        ("p2", Policy(currency="JPY", pool=1000)),
        ("p3", Policy(currency="EUR", pool=1000)),
    ):
        if name == "p2":
            ledger.reverse("p1", "a test question", "me")
        ledger.append(make_receipt(name))
        periods.close(ledger, name, policy, "me")

    assert 9 == require_explained(ledger)
    assert (0, 500) == tuple(amounts(ledger, name, "clinic")["clawback_rest"] for name in ("p2", "p3"))


def test_there_may_be_nothing_to_explain(ledger):
    """Of a period that is not closed, and of a client that it has no line of."""
    ledger.append(make_receipt("r1"))
    assert periods.explain(ledger, "p1", "bank") is None
    periods.close(ledger, "p1", Policy(currency="EUR", pool=1000), "me")

    assert periods.explain(ledger, "p1", "nobody") is None


def test_what_clients_give_back_is_a_line_of_the_commons(ledger):
    """Under `retain` it is paid, and what was taken back of all clients is said in one sum."""
    ledger.append(make_receipt("a0"))
    ledger.append(make_receipt("a1"))
    policy = Policy(currency="EUR", price_per_million_tokens=10**9, commons="retain")
    periods.close(ledger, "p1", policy, "me")
    ledger.reverse("a1", "a test question", "me")
    ledger.append(make_receipt("b0"))
    closed = periods.close(ledger, "p2", policy, "me")
    told = amounts(ledger, "p2", COMMONS)

    assert told["recovered"] == told["clawbacks"] == sum(line.clawback for line in closed.lines) > 0
    assert told["gross"] + told["recovered"] == told["payout"] > told["recovered"]
    assert 6 == require_explained(ledger)


def test_payouts_of_the_version_before_are_explained(tmp_path):
    """Settlements of the first rule too, each by what it stores."""
    folder = copied(tmp_path)
    Ledger.migrate(f"sqlite:///{folder}/ledger.db")

    assert 12 == require_explained(Ledger(f"sqlite:///{folder}/ledger.db"))
