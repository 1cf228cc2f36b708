"""`protoken explain`, as its users see it."""

import json

import pytest

from deployment.cli.output import console
from rewards import periods
from rewards.ledger.ledger import Ledger
from rewards.settlement.policy import Policy
from tests.deployment.cli.test_ledger import run
from tests.rewards.receipts import MEMBERS, make_receipt


@pytest.fixture
def url(tmp_path) -> str:
    """A ledger of one period, in which a response was reversed."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    for name in ("r1", "r2"):
        ledger.append(make_receipt(name))
    ledger.reverse("r2", "a test question", "me")
    policy = Policy(currency="EUR", pool=1_000_000, fee_percent="2.5", holdback_percent=10)
    periods.close(ledger, "2026-11", policy, "me")
    ledger.close()
    return url


def test_a_payout_is_explained(capsys, monkeypatch, url):
    """Each line with its amount and what it follows from, the payout last, then what was reversed."""
    monkeypatch.setattr(console, "_width", 200)
    code, out, err = run(capsys, "explain", "2026-11", "clinic", "--ledger", url)
    lines = [" ".join(cell.strip() for cell in line.split("│")) for line in out.splitlines()]

    assert (0, "") == (code, err)
    assert "payout of clinic in period 2026-11 (number 1, final)" in out
    for told in (
        "fee_percent 2.5 % Fee of the service (of the pool)",
        "distributable 9,750.00 EUR To be shared = pool − fee",
        "part 4,875.00000000000000 EUR Part of the whole = part_down + part_rest",
        "holdback 487.50 EUR Kept back = gross × holdback_percent ÷ 10^8 (rounded down; returns in period number 2)",
        "kept_before + holdback − drawn_holdback (487.50 EUR in period number 2)",
        "payout 4,387.50 EUR Payout = payable − held − carried_out",
        "r2 2026-11 3 500 000",
    ):
        assert any(told in line for line in lines), told


def test_an_explanation_is_json_too(capsys, url):
    """Amounts as decimal text, formulas as they are computed."""
    code, out, _ = run(capsys, "explain", "2026-11", "bank", "--ledger", url, "--json")
    told = json.loads(out)

    assert (0, "explanation", "bank") == (code, told["object"], told["client"])
    assert ("payout", "219375", "payable - held - carried_out") == tuple(
        told["steps"][-1][name] for name in ("name", "amount", "formula")
    )
    assert [{"response_id": "r2", "period": "2026-11", "credit": "1750000"}] == told["reversed"]


def test_the_commons_is_explained_too(capsys, monkeypatch, url):
    """It is paid and has a line in the file of payouts: the same amount is the last line of its explanation."""
    monkeypatch.setattr(console, "_width", 200)
    code, out, err = run(capsys, "explain", "2026-11", "commons", "--ledger", url)
    steps = json.loads(run(capsys, "explain", "2026-11", "commons", "--ledger", url, "--json")[1])["steps"]
    settlement = periods.get(Ledger(url), "2026-11").settlement
    (line,) = [line for line in settlement.lines if line.account == "commons"]

    assert (0, "") == (code, err)
    assert "payout of commons in period 2026-11 (number 1, final)" in out
    assert "whole − clients_part" in out
    assert ("payout", line.payout) == (steps[-1]["name"], int(steps[-1]["amount"]))
    assert line.payout > 0


@pytest.mark.parametrize(
    ("whose", "why"),
    [
        (("2026-12", "bank"), "no period '2026-12' is closed; the last one is '2026-11'"),
        (("2026-11", "nobody"), "client 'nobody' in period '2026-11': it has no line there"),
    ],
)
def test_what_is_not_there_is_one_line(capsys, url, whose, why):
    """A period that is not closed, and a client without a line: which of the two it is."""
    code, out, err = run(capsys, "explain", *whose, "--ledger", url)

    assert (1, "", 1) == (code, out, len(err.splitlines()))
    assert why in err
