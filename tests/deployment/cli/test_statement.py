"""`protoken statement` and `protoken keys create --signing`, as their users see them."""

import json
import stat
from pathlib import Path

import pytest

from rewards import periods
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import seal, verify_keys
from rewards.settlement.policy import Policy
from tests.deployment.cli.test_ledger import run
from tests.rewards.books import KEY, ORIGIN, OTHER_KEY
from tests.rewards.receipts import MEMBERS, make_receipt


def make_books(folder: Path, pool: int) -> None:
    """A ledger whose period is final, and the key of its signer."""
    url = f"sqlite:///{folder}/ledger.db"
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    ledger.append(make_receipt("r1"))
    periods.close(ledger, "2026-11", Policy(currency="EUR", pool=pool), "me")
    seal(ledger, KEY, ORIGIN)
    ledger.close()
    KEY.save(folder / "signing.key")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Such a folder, with public keys."""
    make_books(tmp_path, pool=100_000)
    (tmp_path / "public.key").write_text(KEY.public.encode() + "\n")
    (tmp_path / "other.key").write_text(OTHER_KEY.public.encode() + "\n")
    return tmp_path


def issue(capsys, folder, *options) -> tuple[int, str, str]:
    """`protoken statement issue` of the period into `statements`."""
    place = ("--ledger", f"sqlite:///{folder}/ledger.db", "--key", folder / "signing.key")
    return run(capsys, "statement", "issue", "2026-11", "--out", folder / "statements", *place, *options)


def test_statements_are_issued_and_verified(capsys, folder):
    """One file a client, whose check names five things; with another public key it fails."""
    code, out, err = issue(capsys, folder)
    file = folder / "statements" / "clinic.json"
    verified = run(capsys, "statement", "verify", file, "--public-key", folder / "public.key")
    foreign = run(capsys, "statement", "verify", file, "--public-key", folder / "other.key")

    assert (0, "") == (code, err)
    assert {f"{client}.json" for client in MEMBERS} == {Path(line).name for line in out.splitlines()}
    assert (0, 5) == (verified[0], verified[1].count("✓"))
    assert (1, "") == foreign[:2]


@pytest.mark.parametrize("form", ["json", "html", "csv"])
def test_statements_of_another_ledger_are_not_written_over(capsys, folder, form):
    """Its clients and periods may have the same names; an earlier issue of the same statement is written anew."""
    issue(capsys, folder, "--format", form)
    again = issue(capsys, folder, "--format", form)
    before = {file.name: file.read_bytes() for file in (folder / "statements").iterdir()}
    other = folder / "other"
    other.mkdir()
    make_books(other, pool=200_000)
    (folder / "statements").rename(other / "statements")
    code, _, err = issue(capsys, other, "--format", form)

    assert (0, 1, 1) == (again[0], code, err.count("\n"))
    assert before == {file.name: file.read_bytes() for file in (other / "statements").iterdir()}


def test_an_altered_statement_fails(capsys, folder):
    """One digit of a payout, and the exit code is 1 with one line that says why."""
    issue(capsys, folder)
    file = folder / "statements" / "clinic.json"
    document = json.loads(file.read_text())
    document["money"]["payout"] += "0"
    file.write_text(json.dumps(document))
    code, out, err = run(capsys, "statement", "verify", file, "--public-key", folder / "public.key")

    assert (1, "", 1) == (code, out, len(err.splitlines()))
    assert "signature" in err
    file.write_text("{")
    assert f"{file}: " in run(capsys, "statement", "verify", file, "--public-key", folder / "public.key")[2]


def test_statements_are_tables_and_pages_too(capsys, folder):
    """`--format`, as often as wanted."""
    code, _, _ = issue(capsys, folder, "--format", "csv", "--format", "html")

    assert code == 0
    assert (folder / "statements" / "bank.csv").read_text().startswith("line,minor units,amount in EUR,client,period\n")
    assert (folder / "statements" / "bank.html").read_text().startswith("<!DOCTYPE html>")
    assert not (folder / "statements" / "bank.json").exists()


def test_a_statement_is_shown(capsys, folder):
    """What it says, for people and as JSON; a file that is none is named."""
    issue(capsys, folder)
    shown = run(capsys, "statement", "show", folder / "statements" / "bank.json")
    document = run(capsys, "statement", "show", folder / "statements" / "bank.json", "--json")
    (folder / "none.json").write_text("{}")
    none = run(capsys, "statement", "show", folder / "none.json")
    missing = run(capsys, "statement", "show", folder / "nowhere.json")

    assert (0, True, True) == (shown[0], "A bank: statement of period 2026-11" in shown[1], "To be paid" in shown[1])
    assert "bank" == json.loads(document[1])["client"]
    assert (1, True) == (none[0], "none.json is no statement" in none[2])
    assert (1, True) == (missing[0], "nowhere.json cannot be read" in missing[2])


def test_a_statement_is_shown_from_the_ledger(capsys, folder):
    """By its period and client it is the statement that is issued; a client that has none is named."""
    issue(capsys, folder)
    place = ("--ledger", f"sqlite:///{folder}/ledger.db", "--key", folder / "signing.key")
    shown = run(capsys, "statement", "show", "2026-11", "bank", *place)
    document = run(capsys, "statement", "show", "2026-11", "bank", "--json", *place)
    nobody = run(capsys, "statement", "show", "2026-11", "nobody", *place)

    assert (0, True) == (shown[0], "A bank: statement of period 2026-11" in shown[1])
    assert json.loads((folder / "statements" / "bank.json").read_text()) == json.loads(document[1])
    assert (1, "", 1) == (*nobody[:2], len(nobody[2].splitlines()))
    assert "no statement of period '2026-11' for client 'nobody'" in nobody[2]


def test_a_period_without_statements_is_named(capsys, folder):
    """Nothing is written for a period that is not final."""
    place = ("--ledger", f"sqlite:///{folder}/ledger.db", "--key", folder / "signing.key")
    code, out, err = run(capsys, "statement", "issue", "2027-01", "--out", folder / "none", *place)

    assert (1, "") == (code, out)
    assert "no statement of period '2027-01'" in err
    assert not (folder / "none").exists()


def test_a_signing_key_is_made_rotated_and_kept(capsys, folder):
    """The secret is in a file for its owner alone; a second one needs --rotate, which keeps the first aside."""
    place = ("--ledger", f"sqlite:///{folder}/ledger.db", "--out", folder / "new.key", "--name", ORIGIN)
    first = run(capsys, "keys", "create", "--signing", *place)
    second = run(capsys, "keys", "create", "--signing", *place)
    rotated = run(capsys, "keys", "create", "--signing", "--rotate", *place)

    assert (0, 1, 0) == (first[0], second[0], rotated[0])
    assert "--rotate" in second[2]
    assert first[1] != rotated[1]
    assert 0o600 == stat.S_IMODE((folder / "new.key").stat().st_mode)
    assert 2 == len([*folder.glob("new.key*")])
    with Ledger(f"sqlite:///{folder}/ledger.db").database.read() as connection:
        assert {first[1].strip(), rotated[1].strip()} <= {key.encode() for key in verify_keys(connection)}


@pytest.mark.parametrize("form", ["json", "csv", "html"])
def test_a_file_of_others_is_not_written_over(capsys, folder, form):
    """A statement goes over an earlier issue of itself, and over nothing else; then no statement is written at all."""
    assert issue(capsys, folder, "--format", form)[0] == 0
    assert issue(capsys, folder, "--format", form)[0] == 0
    last = max((folder / "statements").glob(f"*.{form}"))
    for file in (folder / "statements").iterdir():
        file.unlink()
    last.write_text('{"period": "2026-10", "client": "c"}')

    code, _, err = issue(capsys, folder, "--format", form)

    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert str(last) in err
    assert [last] == list((folder / "statements").iterdir())
