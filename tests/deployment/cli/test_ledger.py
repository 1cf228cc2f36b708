"""`protoken ledger`: reversals, the signed log and its proofs, and the audit, as their users see them."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from deployment.cli import main
from deployment.health.signing_key import signing_key
from rewards.ledger.ledger import Ledger
from rewards.log import proofs
from rewards.log.checkpoints import latest_checkpoint
from tests.rewards.books import KEY, ORIGIN, OTHER_KEY, write_books
from tests.rewards.receipts import MEMBERS, make_receipt


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with sealed books, the public key of their signer, another key, and the first checkpoint."""
    notes = write_books(f"sqlite:///{tmp_path}/ledger.db")
    (tmp_path / "public.key").write_text(KEY.public.encode() + "\n")
    (tmp_path / "other.key").write_text(OTHER_KEY.public.encode() + "\n")
    (tmp_path / "held.note").write_text(notes[0])
    return tmp_path


@pytest.fixture
def url(folder) -> str:
    """The URL of the books."""
    return f"sqlite:///{folder}/ledger.db"


def spoil(folder, statement):
    """Write past the ledger."""
    with closing(sqlite3.connect(folder / "ledger.db")) as raw, raw:
        for (name,) in raw.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            raw.execute(f"DROP TRIGGER {name}")
        raw.execute(statement)


def test_verify_passes_honest_books(capsys, folder, url):
    """The audit prints balances, counts and the log's root, and says whose keys it believed."""
    code, out, err = run(capsys, "ledger", "verify", "--ledger", url)

    assert (0, "") == (code, err)
    assert all(word in out for word in ("in order", "10 receipts", ORIGIN, "19 leaves", "compare them", "clinic"))
    assert KEY.public.encode() in out


def test_verify_says_what_it_rests_on(capsys, folder, url):
    """With a public key and an older checkpoint it says that both held."""
    options = ["--public-key", folder / "public.key", "--checkpoint", folder / "held.note"]
    code, out, _ = run(capsys, "ledger", "verify", "--ledger", url, *options)

    assert 0 == code
    assert "signed by keys that you gave" in out
    assert "extends the 7 leaves of the checkpoint that you hold" in out


def test_verify_as_json_is_the_report(capsys, folder, url):
    """`--json` prints the whole report, also of a copy."""
    assert 0 == run(capsys, "ledger", "backup", folder / "copy.db", "--ledger", url)[0]
    code, out, _ = run(capsys, "ledger", "verify", "--copy", folder / "copy.db", "--json")
    with closing(Ledger(url)) as ledger:
        balances = ledger.balances()

    assert 0 == code
    assert (True, None, {account: str(amount) for account, amount in balances.items()}, 0) == tuple(
        json.loads(out)[name] for name in ("ok", "difference", "balances", "unsealed")
    )


@pytest.mark.parametrize("option", [[], ["--json"]])
def test_verify_names_the_first_row_that_differs(capsys, folder, url, option):
    """One clear line on stderr names table, key, field and both values, and the exit code is 1."""
    spoil(folder, "UPDATE entries SET amount = amount + 1 WHERE receipt_sequence = 2 AND account = 'bank'")
    code, out, err = run(capsys, "ledger", "verify", "--ledger", url, *option)

    assert 1 == code
    assert "protoken: the books are not in order: entries[2, 'bank']: amount is 1500001, expected 1500000\n" == err
    assert (json.loads(out)["difference"]["key"] == [2, "bank"]) if option else (out == "")


def test_verify_counts_what_is_not_sealed(capsys, folder, url):
    """Receipts behind the last checkpoint are told apart."""
    with closing(Ledger(url)) as ledger:
        ledger.append(make_receipt("new"))
    _, out, _ = run(capsys, "ledger", "verify", "--ledger", url)

    assert "not in the log yet: 1 receipts and events" in out


def test_verify_under_a_stranger_s_key_fails(capsys, folder, url):
    """Books that the auditor's key did not sign are not in order."""
    code, _, err = run(capsys, "ledger", "verify", "--ledger", url, "--public-key", folder / "other.key")

    assert 1 == code
    assert "checkpoints[7]" in err and "no known key" in err
    assert 1 == len(err.strip().splitlines())


def test_a_proof_goes_from_the_operator_to_anybody(capsys, folder, url):
    """What `proof` prints, `check-proof` accepts offline with the public key alone, and says what it shows."""
    code, out, _ = run(capsys, "ledger", "proof", "r4", "--client", "clinic", "--ledger", url)
    (folder / "proof.json").write_text(out)
    (folder / "ledger.db").unlink()
    checked = run(capsys, "ledger", "check-proof", folder / "proof.json", "--public-key", folder / "public.key")
    as_json = run(
        capsys, "ledger", "check-proof", folder / "proof.json", "--public-key", folder / "public.key", "--json"
    )

    assert 0 == code
    assert (0, "") == (checked[0], checked[2])
    assert "clinic has 3 000 000 micro-credits of r4" in checked[1]
    assert ("clinic", "3000000", "r4", True) == tuple(
        json.loads(as_json[1])[name] for name in ("client", "amount", "response_id", "ok")
    )


def test_an_altered_proof_is_refused(capsys, folder, url):
    """An altered amount, an unknown key, another log are refused in one line that names the file, with exit code 1."""
    document = json.loads(run(capsys, "ledger", "proof", "r4", "--client", "bank", "--ledger", url)[1])
    (folder / "proof.json").write_text(json.dumps(document))
    entry = document["opening"]["entry"]
    entry["amount"] = str(int(entry["amount"]) + 1)
    (folder / "altered.json").write_text(json.dumps(document))
    for name, options, named in (
        ("altered.json", ["--public-key", folder / "public.key"], "altered.json: "),
        ("altered.json", ["--public-key", folder / "public.key"], "not in the log"),
        ("proof.json", ["--public-key", folder / "other.key"], "no known key"),
        ("proof.json", ["--public-key", folder / "public.key", "--origin", "elsewhere"], "not of 'elsewhere'"),
        ("held.note", ["--public-key", folder / "public.key"], "no JSON"),
        ("nowhere.json", ["--public-key", folder / "public.key"], "nowhere.json cannot be read"),
        ("proof.json", ["--public-key", folder / "held.note"], "held.note: a public key"),
    ):
        code, out, err = run(capsys, "ledger", "check-proof", folder / name, *options)

        assert (1, "") == (code, out)
        assert named in err
        assert 1 == len(err.strip().splitlines())


def test_a_proof_of_consistency_is_checked(capsys, folder, url):
    """A member who kept an older checkpoint checks offline that the newer log extends it."""
    with closing(Ledger(url)) as ledger, ledger.database.read() as connection:
        (folder / "growth.json").write_text(json.dumps(proofs.consistency(connection, 7)))
    options = ["--public-key", folder / "public.key"]
    code, out, _ = run(
        capsys, "ledger", "check-proof", folder / "growth.json", *options, "--checkpoint", folder / "held.note"
    )

    assert 0 == code
    assert "19 leaves extends the 7 leaves of the checkpoint that you hold" in out
    assert 2 == run(capsys, "ledger", "check-proof", folder / "growth.json", *options)[0]


def test_the_file_that_is_no_checkpoint_is_named(capsys, folder, url):
    """As the answer of the service is none, but holds one, and a proof is none; the log is not blamed."""
    options = ["--public-key", folder / "public.key"]
    with closing(Ledger(url)) as ledger, ledger.database.read() as connection:
        (folder / "growth.json").write_text(json.dumps(proofs.consistency(connection, 7)))
    (folder / "checkpoint.json").write_text(json.dumps({"note": (folder / "held.note").read_text()}))
    for held, named in (("checkpoint.json", "of which the field `note` is wanted"), ("public.key", "no signed note")):
        for command in (("check-proof", folder / "growth.json"), ("verify", "--ledger", url)):
            code, out, err = run(capsys, "ledger", *command, *options, "--checkpoint", folder / held)

            assert (1, "", 1) == (code, out, len(err.strip().splitlines()))
            assert f"{folder / held} is no checkpoint: it holds " in err and named in err


def test_sealing_and_checkpoints(capsys, tmp_path):
    """`seal` signs what is new with the key file, once; `checkpoint` prints the note as it is kept."""
    url, key = f"sqlite:///{tmp_path}/l.db", tmp_path / "signing.key"
    Ledger.prepare(url)
    with closing(Ledger(url)) as ledger:
        ledger.register("demo", MEMBERS)
        ledger.append(make_receipt("r"))
        signing_key(key, ledger, "demo.example/ledger")
    before = run(capsys, "ledger", "checkpoint", "--ledger", url)
    first = run(capsys, "ledger", "seal", "--key", key, "--ledger", url)
    second = run(capsys, "ledger", "seal", "--key", key, "--ledger", url)
    as_json = run(capsys, "ledger", "seal", "--key", key, "--ledger", url, "--json")
    note = run(capsys, "ledger", "checkpoint", "--ledger", url)[1]
    with closing(Ledger(url)) as ledger, ledger.database.read() as connection:
        latest = latest_checkpoint(connection)

    assert (1, "") == before[:2] and "nothing is sealed" in before[2]
    assert 0 == first[0] and "demo.example/ledger at 5 leaves" in first[1]
    assert (0, "nothing is new since the last checkpoint\n") == second[:2]
    assert {"sealed": False, "checkpoint": None} == json.loads(as_json[1])
    assert latest.note == note
    assert latest.root == json.loads(run(capsys, "ledger", "checkpoint", "--ledger", url, "--json")[1])["root"]


def test_a_response_is_reversed_once(capsys, url):
    """`reverse` books the counter-entries with its reason; again it says that they were there before."""
    first = run(capsys, "ledger", "reverse", "r0", "--reason", "a test question", "--ledger", url)
    again = json.loads(run(capsys, "ledger", "reverse", "r0", "--reason", "again", "--ledger", url, "--json")[1])
    with closing(Ledger(url)) as ledger:
        reversal = ledger.receipt("reversal-r0")

    assert (0, "r0 is reversed by receipt 11, reversal-r0\n") == first[:2]
    assert (11, True) == (again["sequence"], again["replayed"])
    assert {"actor": "command line", "reason": "a test question"} == reversal.measurement


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["reverse", "nothing", "--reason", "why"], 1, "no response 'nothing'"),
        (["reverse", "r0", "--reason", " "], 1, "reason"),
        (["reverse", "r0"], 2, "--reason"),
        (["proof", "r0"], 2, "--client"),
        (["proof", "nothing", "--client", "bank"], 1, "no receipt 'nothing'"),
        (["proof", "r0", "--client", "stranger"], 1, "no entry of 'stranger'"),
        (["seal", "--key", "FOLDER/none.key"], 1, "none.key"),
        (["verify", "--copy", "FOLDER/ledger.db"], 2, "--copy"),
        (["verify", "--public-key", "FOLDER/none.key"], 1, "none.key cannot be read"),
        (["verify", "--checkpoint", "FOLDER/public.key"], 1, "signed note"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(capsys, folder, url, arguments, code, named):
    """Wrong usage ends with 2, everything else with 1 and one line that names what is wrong."""
    filled = [argument.replace("FOLDER", str(folder)) for argument in arguments]
    found, out, err = run(capsys, "ledger", *filled, "--ledger", url)

    assert (code, "") == (found, out)
    assert named in err
    assert code == 2 or 1 == len(err.strip().splitlines())


@pytest.mark.parametrize(("option", "named"), [("--copy", "no ledger at"), ("--ledger", "no ledger at")])
def test_books_that_are_not_there_are_named(capsys, tmp_path, option, named):
    """A missing ledger or copy is said to be missing, by name."""
    where = tmp_path / "none.db" if option == "--copy" else f"sqlite:///{tmp_path}/none.db"
    code, _, err = run(capsys, "ledger", "verify", option, where)

    assert 1 == code
    assert named in err and "none.db" in err


def test_a_proof_needs_a_key_that_is_known(capsys, folder):
    """Without a public key a proof shows nothing, so that is wrong usage."""
    code, _, err = run(capsys, "ledger", "check-proof", folder / "held.note")

    assert 2 == code
    assert "--public-key" in err
