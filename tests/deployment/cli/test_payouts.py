"""`protoken period payouts --sepa`: the file for a bank, as whoever pays meets it."""

import logging
import stat
import sys
from pathlib import Path

import pytest

from deployment.cli import extras
from rewards.ledger.ledger import Ledger
from tests.deployment.books.test_sepa import DEBTOR, IBANS, transfers
from tests.deployment.cli.test_ledger import run
from tests.rewards.receipts import MEMBERS, make_receipt

PAYEES = f"""
debtor: {{name: Office, iban: {DEBTOR}}}
payees:
  bank: {{name: A Bank, iban: {IBANS["bank"]}}}
  clinic: {{name: A Clinic, iban: {IBANS["clinic"]}}}
  commons: debtor
"""


@pytest.fixture
def asked(tmp_path, capsys) -> list[object]:
    """The words of the command for a closed period, whose accounts lie beside the ledger."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    ledger.append(make_receipt("r1"))
    (tmp_path / "policy.yaml").write_text("{pool: 1000003, currency: EUR}\n")
    (tmp_path / "payees.yaml").write_text(PAYEES)
    assert 0 == run(capsys, "period", "close", "2026-11", "--policy", tmp_path / "policy.yaml", "--ledger", url)[0]
    options = ["--sepa", tmp_path / "out" / "payouts.xml", "--accounts", tmp_path / "payees.yaml"]
    return ["period", "payouts", "2026-11", *options, "--execute-on", "2100-01-31", "--ledger", url]


def written(folder: Path) -> list[str]:
    """What the command wrote."""
    return sorted(file.name for file in (folder / "out").glob("*")) if (folder / "out").exists() else []


def test_a_file_for_a_bank_is_its_owner_s_alone(capsys, tmp_path, asked):
    """It pays the members, says how much, stays what it is when made again, and nobody else can read it."""
    first = run(capsys, *asked)
    file = tmp_path / "out" / "payouts.xml"
    content = file.read_bytes()
    file.chmod(0o644)
    again = run(capsys, *asked, "--out", tmp_path / "out" / "payouts.csv")

    assert (0, 0) == (first[0], again[0])
    assert "2 transfers of 7,500.02 EUR in all" in first[1]
    assert "2,500.01 EUR stay with the debtor: commons" in first[1]
    assert {IBANS["bank"], IBANS["clinic"]} == set(transfers(content))
    assert content == file.read_bytes()
    assert 0o600 == stat.S_IMODE(file.stat().st_mode)
    assert ["payouts.csv", "payouts.xml"] == written(tmp_path)


def test_another_file_stays(capsys, tmp_path, asked):
    """It is written over nothing but itself; for another day it is another file, which takes another place."""
    assert 0 == run(capsys, *asked)[0]
    other_day = run(capsys, *("2100-02-01" if word == "2100-01-31" else word for word in asked))
    (tmp_path / "out" / "payouts.xml").write_text("of somebody else")
    refused = run(capsys, *asked, "--out", tmp_path / "out" / "payouts.csv")

    assert (1, 1) == (other_day[0], refused[0])
    assert "payouts.xml: is there and is not the payouts of period '2026-11' as they are now" in refused[2]
    assert ["payouts.xml"] == written(tmp_path)
    assert "of somebody else" == (tmp_path / "out" / "payouts.xml").read_text()


def test_nothing_is_written_where_a_member_has_no_account(capsys, tmp_path, asked, caplog):
    """It is named; neither file comes to be, and no account is in what is printed, logged or booked."""
    (tmp_path / "payees.yaml").write_text(PAYEES.replace("  clinic", "  klinik"))
    with caplog.at_level(logging.DEBUG):
        code, out, err = run(capsys, *asked, "--out", tmp_path / "out" / "payouts.csv")
    told = out + err + caplog.text + (tmp_path / "ledger.db").read_bytes().decode(errors="replace")

    assert (1, []) == (code, written(tmp_path))
    assert "payees has no 'clinic', paid in period '2026-11'" in err
    assert [] == [number for number in (DEBTOR, *IBANS.values()) if number in told]


def test_the_ledger_and_the_log_hold_no_account(capsys, tmp_path, asked, caplog):
    """Nor do they after a file was made."""
    with caplog.at_level(logging.DEBUG):
        code, out, err = run(capsys, *asked)
    books = b"".join(file.read_bytes() for file in tmp_path.glob("ledger.db*"))

    assert 0 == code
    assert [] == [number for number in (DEBTOR, *IBANS.values()) if number in out + err + caplog.text]
    assert [] == [number for number in (DEBTOR, *IBANS.values()) if number.encode() in books]


@pytest.mark.parametrize("lacking", [("--sepa", "--accounts"), ("--accounts",), ("--execute-on",), ("--sepa",)])
def test_what_goes_together_is_asked_for_together(capsys, tmp_path, asked, lacking):
    """A file without accounts or a day, or these without a file: wrong usage, and nothing is written."""
    words = list(asked)
    for option in lacking:
        place = words.index(option)
        del words[place : place + 2]
    code, _, err = run(capsys, *words)

    assert (2, []) == (code, written(tmp_path))
    assert "--" in err


@pytest.mark.parametrize("spelling", ["out/payouts.xml", "link/payouts.xml", "link/../out/./payouts.xml", "twin.xml"])
def test_both_files_are_two(capsys, tmp_path, asked, spelling):
    """One place for both would leave the second alone, however it is spelled: by dots, links or a second name."""
    folder = tmp_path / "out"
    folder.mkdir()
    (tmp_path / "link").symlink_to(folder)
    before = []
    if spelling == "twin.xml":
        (folder / "payouts.xml").touch()
        (tmp_path / "twin.xml").hardlink_to(folder / "payouts.xml")
        before = ["payouts.xml"]
    code, _, err = run(capsys, *asked, "--out", tmp_path / spelling)

    assert (2, before) == (code, written(tmp_path))
    assert "two files" in err


def test_the_extra_is_named_where_it_is_missing(capsys, monkeypatch, tmp_path, asked):
    """Only for the file of a bank; the other one needs nothing more than the base."""
    monkeypatch.setitem(extras.EXTRAS, "sepa", ("no_such_module",))
    for name in [name for name in sys.modules if name in ("deployment.books.sepa", "deployment.books.accounts")]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = run(capsys, *asked)
    plain = run(capsys, "period", "payouts", "2026-11", "--out", tmp_path / "payouts.csv", *asked[-2:])

    assert (1, 0) == (code, plain[0])
    assert "`protoken period payouts --sepa` needs the extra 'sepa'" in err
    assert err.rstrip().endswith("pip install 'protoken[sepa]'")
