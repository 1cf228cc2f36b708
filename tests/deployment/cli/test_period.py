"""`protoken period`: the settlement's table, the file to pay by, and a rehearsal, as their users see them."""

import csv
import io
import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from deployment.cli.output import console
from rewards import money, periods
from rewards.ledger.ledger import Ledger
from rewards.periods import holds
from tests.deployment.cli.test_ledger import run
from tests.rewards.receipts import MEMBERS, make_receipt

POLICY = """
currency: EUR
pool: 1000003
fee_percent: "2.5"
holdback_percent: 10
holdback_release_after: 3
minimum_payout: 50
"""


@pytest.fixture
def ledger(tmp_path) -> Ledger:
    """A ledger with two responses that nobody has settled yet, a client on hold, and policies beside it."""
    Ledger.prepare(f"sqlite:///{tmp_path}/ledger.db")
    ledger = Ledger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.register("demo", MEMBERS)
    for name in ("r1", "r2"):
        ledger.append(make_receipt(name))
    holds.place(ledger, "client", "bank", "audit", "me")
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "slow.yaml").write_text(POLICY + "dispute_days: 5\ngrace_hours: 2\n")
    return ledger


def place(tmp_path: Path, policy: str = "policy.yaml") -> tuple[object, ...]:
    """The options that name the ledger and a policy."""
    return ("--ledger", f"sqlite:///{tmp_path}/ledger.db", "--policy", tmp_path / policy)


def shown_table(out: str) -> dict[str, dict[str, int]]:
    """Account -> title of a column -> minor units, of the first table; empty cells are left out."""
    lines = [line.replace("┃", "│").split("│")[1:-1] for line in out.splitlines() if line[:1] in ("│", "┃")]
    titles, *rows = [[cell.strip() for cell in line] for line in lines]
    return {
        row[0]: {title: money.parse(cell, 2) for title, cell in zip(titles[3:], row[3:], strict=True) if cell}
        for row in rows[: next(number for number, row in enumerate(rows, 1) if row[0] == "sum")]
    }


@pytest.mark.usefixtures("ledger")
def test_the_table_of_a_settlement_sums_to_the_pool(capsys, monkeypatch, tmp_path):
    """Fee, gross, holdback and hold of each account: down to the sums, across to the payouts, as the console shows."""
    monkeypatch.setattr(console, "_width", 200)
    code, out, _ = run(capsys, "period", "preview", "2026-11", *place(tmp_path))
    table = shown_table(out)
    total = table.pop("sum")

    assert 0 == code
    assert {"gross", "− holdback", "− on hold", "= payout"} == set(total)
    assert 1_000_003 == total["gross"] == sum(row["gross"] for row in table.values())
    assert 25_000 == table.pop("fee of the service")["gross"]
    assert {"bank", "clinic", "commons", "rider"} == set(table)
    for name, row in table.items():
        assert row["= payout"] == row["gross"] - row["− holdback"] - row["− on hold"], name
    for title, amount in total.items():
        assert title == "gross" or amount == sum(row[title] for row in table.values())
    assert "gross and fee sum to the pool of 10,000.03 EUR; the fee of the service is 250.00 EUR" in out
    assert "this is period number 1; what is kept back of it returns in number 4" in out


def test_claw_backs_have_a_column(capsys, monkeypatch, tmp_path, ledger):
    """What is taken back of a member, and what the commons recovers of it."""
    monkeypatch.setattr(console, "_width", 250)
    policy = tmp_path / "policy.yaml"
    policy.write_text(POLICY.replace("pool: 1000003", "price_per_million_tokens: 100000000000"))
    assert 0 == run(capsys, "period", "close", "2026-11", *place(tmp_path))[0]
    ledger.reverse("r1", "a test question", "me")
    ledger.append(make_receipt("r3"))
    table = shown_table(run(capsys, "period", "preview", "2026-12", *place(tmp_path))[1])

    assert table["clinic"]["− taken back"] > 0
    assert table["sum"]["− taken back"] == table["bank"]["− taken back"] + table["clinic"]["− taken back"]
    assert table["commons"]["+ recovered"] > 0


def test_one_file_pays_all_members(capsys, tmp_path, ledger):
    """Every member and the commons, with names, minor units and amounts; over no other file."""
    url, out = place(tmp_path)[:2], tmp_path / "payments" / "2026-11.csv"
    before = run(capsys, "period", "payouts", "2026-11", "--out", out, *url)
    name = "2026-11"
    assert 0 == run(capsys, "period", "close", name, *place(tmp_path))[0]
    first, again = (run(capsys, "period", "payouts", name, "--out", out, *url) for _ in range(2))
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    settlement = periods.get(ledger, name).settlement
    out.write_text("of somebody else")
    refused = run(capsys, "period", "payouts", name, "--out", out, *url)

    assert (1, 0, 0, 1) == tuple(each[0] for each in (before, first, again, refused))
    assert "is not closed: what it pays is certain only once it is final" in before[2]
    assert str(out) in refused[2] and "of somebody else" == out.read_text()
    assert 0o600 == stat.S_IMODE(out.stat().st_mode)  # what each member earns is its own business
    assert {line.account: line.payout for line in settlement.lines} == {
        row["client"]: int(row["minor units"]) for row in rows
    }
    for row in rows:
        assert int(row["minor units"]) == money.parse(row["amount"], 2)
        assert (name, "EUR", settlement.sha256) == (row["period"], row["currency"], row["settlement"])
    assert MEMBERS | {"commons": "the consortium's treasury"} == {row["client"]: row["name"] for row in rows}


@pytest.mark.usefixtures("ledger")
def test_a_draft_pays_nobody(capsys, tmp_path):
    """What it pays may change until it is final, so there is no file of it."""
    (tmp_path / "slow.yaml").write_text(POLICY + "dispute_days: 5\n")
    closed, said, _ = run(capsys, "period", "close", "2026-11", *place(tmp_path, "slow.yaml"))
    assert (0, True) == (closed, "`protoken period finalise 2026-11`" in said)
    code, _, err = run(capsys, "period", "payouts", "2026-11", "--out", tmp_path / "out.csv", *place(tmp_path)[:2])

    assert (1, False) == (code, (tmp_path / "out.csv").exists())
    assert "period '2026-11' is draft: what it pays is certain only once it is final" in err


def test_a_period_is_rehearsed(capsys, monkeypatch, tmp_path, ledger):
    """At a moment to come: its end and grace hours are over, then come dispute days, and what is kept back returns."""
    monkeypatch.setattr(console, "_width", 200)
    end = datetime.now(UTC).replace(microsecond=0, tzinfo=None) + timedelta(days=3)
    at, final = end + timedelta(hours=2), end + timedelta(days=5, hours=2)
    asked = ("period", "preview", "2026-11", *place(tmp_path, "slow.yaml"), "--until", end.isoformat())
    now = run(capsys, *asked)
    early = run(capsys, *asked, "--at", (end + timedelta(hours=1)).isoformat())
    code, out, _ = run(capsys, *asked, "--at", at.isoformat())
    told = json.loads(run(capsys, *asked, "--at", at.isoformat(), "--json")[1])

    assert (1, 1) == (now[0], early[0])
    assert "it can be closed from" in now[2] and now[2] == early[2]
    assert (0, 5 * 86_400_000_000) == (code, told["final_from_us"] - told["at_us"])
    assert f"closed at {at} UTC, it is a draft and may be disputed until {final} UTC, and finalised from then on" in out
    assert any(["bank", "4"] == line.replace("│", " ").split()[:2] for line in out.splitlines())
    assert () == periods.all(ledger)


def test_a_draft_is_rehearsed(capsys, tmp_path, ledger):
    """While its dispute days run it says until when; at a moment after them, that it can be finalised then."""
    (tmp_path / "slow.yaml").write_text(POLICY + "dispute_days: 5\n")
    asked = ("period", "preview", "2026-11", *place(tmp_path, "slow.yaml"))
    assert 0 == run(capsys, "period", "close", "2026-11", *place(tmp_path, "slow.yaml"))[0]
    closed = datetime.fromtimestamp(periods.get(ledger, "2026-11").closed_at_us / 1e6, UTC).replace(tzinfo=None)
    during, after = (
        run(capsys, *asked, "--at", (closed + timedelta(days=days)).isoformat(timespec="seconds")) for days in (4, 6)
    )

    assert "it may be disputed until" in during[1]
    assert "it can be finalised then" in after[1]
    assert "draft" == periods.get(ledger, "2026-11").state


def test_a_holdback_is_rehearsed_past_a_draft(capsys, monkeypatch, tmp_path, ledger):
    """A draft that is due by then is taken as final, as is said, and what was kept back before it returns as money."""
    monkeypatch.setattr(console, "_width", 200)
    (tmp_path / "slow.yaml").write_text(POLICY.replace("after: 3", "after: 1") + "dispute_days: 3\n")
    asked = ("period", "preview", "2026-12", *place(tmp_path, "slow.yaml"))
    assert 0 == run(capsys, "period", "close", "2026-11", *place(tmp_path, "slow.yaml"))[0]
    ledger.append(make_receipt("r3"))
    moment = datetime.now(UTC).replace(microsecond=0, tzinfo=None)
    early, due = ((moment + timedelta(days=days)).isoformat() for days in (2, 4))
    refused = run(capsys, *asked, "--at", early)
    code, out, _ = run(capsys, *asked, "--at", due)
    told = json.loads(run(capsys, *asked, "--at", due, "--json")[1])
    kept = next(line for line in periods.get(ledger, "2026-11").settlement.lines if line.account == "clinic").holdback

    assert (1, 0, "draft") == (refused[0], code, periods.get(ledger, "2026-11").state)
    assert "'2026-11' before it is draft, and can be finalised from" in refused[2]
    assert f"2026-11 is taken as finalised at {due.replace('T', ' ')} UTC, with the holds of now" in out
    assert kept == shown_table(out)["clinic"]["+ holdback released"] > 0
    assert "2026-11" == told["taken_as_final"]


@pytest.mark.usefixtures("ledger")
def test_a_rehearsal_at_the_end_of_the_calendar_is_worded(capsys, tmp_path):
    """Dispute days that end beyond what calendars reach are said in words, and not in microseconds."""
    asked = ("period", "preview", "2026-11", *place(tmp_path, "slow.yaml"), "--at", "9999-12-31")
    code, out, _ = run(capsys, *asked)

    assert (0, False) == (code, "µs" in out)
    assert "it is a draft and may be disputed until a moment after the year 9999, and finalised from then on" in out


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("command", ["close", "finalise", "pay", "dispute"])
def test_only_a_preview_is_rehearsed(capsys, tmp_path, command):
    """No command that writes takes a moment to come; and a preview takes none that is over."""
    code, _, err = run(capsys, "period", command, "2026-11", "--at", "2030-01-01")
    over = run(capsys, "period", "preview", "2026-11", *place(tmp_path), "--at", "2026-01-01")

    assert (2, True) == (code, "No such option" in err and "--at" in err)
    assert (1, "protoken: only a moment to come can be rehearsed, and 2026-01-01 00:00:00 UTC is over\n") == (
        over[0],
        over[2],
    )


@pytest.mark.usefixtures("ledger")
def test_what_is_final_is_finalised_again_to_no_effect(capsys, tmp_path):
    """A policy without dispute days makes it final at once, and whoever finalises it then is no error."""
    closed = run(capsys, "period", "close", "2026-11", *place(tmp_path), "--json")
    first, again = (
        run(capsys, "period", "finalise", "2026-11", *place(tmp_path)[:2], *more) for more in ([], ["--json"])
    )

    assert (0, 0, 0) == (closed[0], first[0], again[0])
    assert "settlement 2026-11 (final already)" in first[1]
    assert json.loads(closed[1])["sha256"] == json.loads(again[1])["sha256"]


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize(("name", "goes_on"), [("9999-11", True), ("2020-02", False), ("autumn", False)])
def test_a_month_that_goes_on_is_told(capsys, tmp_path, name, goes_on):
    """Before and after it is closed: what comes later counts in the next period, whatever this one is called."""
    told = [run(capsys, "period", command, name, *place(tmp_path))[1] for command in ("preview", "close")]

    assert [goes_on] * 2 == ["the month goes on until 9999-12-01 00:00:00 UTC" in out for out in told]


@pytest.mark.usefixtures("ledger")
def test_of_a_draft_no_other_end_is_told(capsys, tmp_path):
    """It ended when it was closed, and not where its preview is asked for."""
    (tmp_path / "slow.yaml").write_text(POLICY + "dispute_days: 5\n")
    closed = run(capsys, "period", "close", "9999-11", *place(tmp_path, "slow.yaml"))
    draft = run(capsys, "period", "preview", "9999-11", *place(tmp_path, "slow.yaml"))

    assert (0, 0) == (closed[0], draft[0])
    assert "settlement 9999-11 (preview)" in draft[1]
    assert "month goes on" not in draft[1]
