"""`protoken ledger backup | restore | migrate`: what an operator does with a ledger as a whole, and is told."""

import json
import shutil
import socket
import sqlite3
from contextlib import closing

import pytest

from attribution.bundle.bundle import open_bundle
from deployment.cli import main
from deployment.health.places import ledger_folder
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.recovery import Recovery
from deployment.replica.messages import ModelCard
from deployment.spool.spool import Spool
from rewards.ledger.ledger import Ledger
from rewards.log.checkpoints import latest_checkpoint
from rewards.log.sealer import seal, verify_keys
from rewards.signing.keys import SigningKey
from tests.fixtures import copied
from tests.rewards.books import KEY, ORIGIN
from tests.rewards.receipts import MEMBERS, make_receipt
from tests.waiting import until


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return ended.value.code or 0, captured.out, captured.err


@pytest.fixture
def before(tmp_path):
    """All that a service of the version before kept."""
    return copied(tmp_path)


@pytest.fixture
def url(before):
    """Its ledger."""
    return f"sqlite:///{before}/ledger.db"


def test_migrate_says_what_it_did(capsys, url):
    """The first time it names both schemas, the second that nothing was changed; `--json` is for machines."""
    code, out, err = run(capsys, "ledger", "migrate", "--ledger", url, "--json")
    again = run(capsys, "ledger", "migrate", "--ledger", url)

    assert (0, "") == (code, err)
    assert {"ledger": url, "before": "0002"} == {name: json.loads(out)[name] for name in ("ledger", "before")}
    assert 0 == again[0]
    assert f"is of schema {json.loads(out)['schema']} already; nothing was changed" in again[1]


@pytest.mark.parametrize(
    "command",
    [
        ["ledger", "balances"],
        ["ledger", "verify"],
        ["ledger", "migrate"],
        ["keys", "list"],
        ["keys", "create", "--role", "operator"],
        ["period", "list"],
        ["exporter", "--port", "0"],
    ],
)
def test_every_command_says_the_same_of_a_newer_ledger(capsys, before, url, command):
    """Whatever is tried with a ledger of a version to come ends with one line that says so, and 1."""
    with sqlite3.connect(before / "ledger.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    code, out, err = run(capsys, *command, "--ledger", url)

    assert (1, "") == (code, out)
    assert err.startswith(f"protoken: ledger {url} was made by a newer protoken: it is of schema 9999")
    assert 1 == err.count("\n")


@pytest.mark.parametrize(
    "command",
    [
        ["ledger", "balances"],
        ["ledger", "verify"],
        ["ledger", "seal"],
        ["keys", "list"],
        ["keys", "create", "--role", "operator"],
        ["period", "list"],
        ["hold", "list"],
        ["exporter", "--port", "0"],
        ["serve", "--bundle", "BUNDLE", "--port", "28113", "--metrics-port", "0"],
    ],
)
def test_no_command_opens_a_ledger_of_an_older_version(capsys, before, url, command, monkeypatch):
    """Whatever is tried before it is migrated ends with one line that says how, and 1, and changes nothing of it."""
    monkeypatch.chdir(before)
    monkeypatch.setenv("PROTOKEN_REPLICA_METRICS_PORT", "28114")  # the usual ports may be another service's
    was = (before / "ledger.db").read_bytes()
    code, _, err = run(capsys, *(before / "bundle" if word == "BUNDLE" else word for word in command), "--ledger", url)

    assert 1 == code
    assert f"`protoken ledger migrate --ledger {url}`" in err
    assert 1 == err.count("\n")
    assert was == (before / "ledger.db").read_bytes()


@pytest.fixture
def served(tmp_path):
    """A ledger in use, of 235 tokens in its file and 21 in its write-ahead log, sealed; and its latest checkpoint."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    Ledger.prepare(url)
    for tokens, name in ((235, "first"), (21, "last")):
        ledger = Ledger(url)
        ledger.register("demo", MEMBERS)
        ledger.append(make_receipt(name, tokens=tokens))
        seal(ledger, KEY, ORIGIN)
        if name == "first":
            ledger.close()
    with ledger.database.read() as connection:
        (tmp_path / "checkpoint.txt").write_text(latest_checkpoint(connection).note)
    yield url
    ledger.close()


def test_a_backup_of_a_ledger_in_use_has_every_token(capsys, tmp_path, served):
    """The copy verifies, with all 256 tokens, under the latest checkpoint; a second one wants --replace."""
    copy, held = tmp_path / "copy.db", tmp_path / "checkpoint.txt"
    made = run(capsys, "ledger", "backup", copy, "--ledger", served)
    code, out, err = run(capsys, "ledger", "verify", "--copy", copy, "--checkpoint", held)
    again = run(capsys, "ledger", "backup", copy, "--ledger", served)
    replaced = run(capsys, "ledger", "backup", copy, "--ledger", served, "--replace", "--json")

    assert (0, "") == (made[0], made[2])
    assert "2 receipts" in made[1]
    assert "books rebuilt from their rows" in made[1]
    assert (0, "") == (code, err)
    assert "256 tokens" in out
    assert (1, 1) == (again[0], again[2].count("\n"))
    assert "copy.db: there is a file already" in again[2]
    assert {"receipts": 2, "audited": True} == {
        "receipts": json.loads(replaced[1])["rows"]["receipts"],
        "audited": json.loads(replaced[1])["audited"],
    }


def test_a_bare_copy_of_a_ledger_in_use_is_never_called_whole(capsys, tmp_path, served):
    """What `cp` lost is told as far as it can be proved: that a log is missing, and by a checkpoint, how much."""
    bare, held = tmp_path / "bare.db", tmp_path / "checkpoint.txt"
    shutil.copy(tmp_path / "ledger.db", bare)
    code, out, err = run(capsys, "ledger", "verify", "--copy", bare)
    proved = run(capsys, "ledger", "verify", "--copy", bare, "--checkpoint", held)
    as_json = run(capsys, "ledger", "verify", "--copy", bare, "--json")

    assert (1, 1) == (code, err.count("\n"))
    assert "235 tokens" in out
    assert "waited in bare.db-wal is not in it" in err
    assert "protoken ledger backup" in err
    assert 1 == proved[0]
    assert "the checkpoint proves 6 leaves, so what came after the first 5 is missing" in proved[2]
    assert "it is in the -wal file that was not copied with the ledger" in proved[2]
    assert (1, True) == (as_json[0], json.loads(as_json[1])["lacks_write_ahead_log"])


@pytest.mark.parametrize(
    ("end", "why"), [(0, "waited in copy.db-wal is not in it"), (1000, "copy.db-wal is cut: it has")]
)
def test_a_copy_whose_log_was_cut_is_never_called_whole(capsys, tmp_path, served, end, why):
    """An empty log is like none; one that lost its end is named; both end with 1, and one line."""
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"ledger.db{suffix}", tmp_path / f"copy.db{suffix}")
    log = tmp_path / "copy.db-wal"
    log.write_bytes(log.read_bytes()[:end])
    code, _, err = run(capsys, "ledger", "verify", "--copy", tmp_path / "copy.db")

    assert (1, 1) == (code, err.count("\n"))
    assert why in err


def test_a_restored_ledger_is_told_to_be_older_than_what_members_may_hold(capsys, tmp_path, served):
    """With how far its log reaches, before anything is signed that they would take for another history."""
    run(capsys, "ledger", "backup", tmp_path / "copy.db", "--ledger", served)
    code, out, _ = run(capsys, "ledger", "restore", tmp_path / "copy.db", "--ledger", f"sqlite:///{tmp_path}/new.db")

    assert 0 == code
    assert "its log has 6 leaves, sealed at " in out
    assert "by `protoken ledger verify --checkpoint FILE`, and tell them what is lost" in out


def test_a_backup_of_postgresql_is_told_to_be_one(capsys, tmp_path):
    """Where its books are to be rebuilt from the file, and not that it is no database."""
    (tmp_path / "books.dump").write_bytes(b"PGDMP\x01\x0e\x00")
    code, _, err = run(capsys, "ledger", "verify", "--copy", tmp_path / "books.dump")

    assert (1, 1) == (code, err.count("\n"))
    assert "books.dump is a backup of a PostgreSQL ledger, which is read where it is restored" in err


@pytest.mark.long
def test_what_belongs_together_makes_a_service_again(capsys, tmp_path, before, url):
    """Ledger, pepper, signing key, spool, bundle and policy in a new folder: all that the service knew, it knows again.

    The parts are those that deployment/README.md names, each taken as it says there.
    """
    new = tmp_path / "new"
    (new / "var").mkdir(parents=True)
    run(capsys, "ledger", "migrate", "--ledger", url)
    assert 0 == run(capsys, "ledger", "backup", tmp_path / "copy.db", "--ledger", url)[0]
    for name in ("bundle", "base", "spool", "texts", "policies"):
        shutil.copytree(before / name, new / "var" / name)
    for name in ("ledger.db.pepper", "signing.key"):
        shutil.copy(before / name, new / "var" / name)
    shutil.rmtree(before / "spool")
    (before / "ledger.db").unlink()
    restored = f"sqlite:///{new}/var/ledger.db"
    assert 0 == run(capsys, "ledger", "restore", tmp_path / "copy.db", "--ledger", restored)[0]

    options = ["--ledger", restored]
    keys = ["--public-key", before / "public-keys.txt", "--checkpoint", before / "checkpoint.txt"]
    presented = json.loads((before / "keys.json").read_text())
    statement = tmp_path / "statements" / "north.json"
    key = ["--key", new / "var" / "signing.key"]
    assert 0 == run(capsys, "ledger", "verify", *keys, *options)[0]
    assert 0 == run(capsys, "statement", "issue", "2026-03", "--out", statement.parent, *key, *options)[0]
    assert 0 == run(capsys, "statement", "verify", statement, "--public-key", before / "public-keys.txt")[0]
    assert presented["shop"].split("_")[1] in run(capsys, "keys", "list", "--json", *options)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("PROTOKEN_PEPPER_FILE", raising=False)
        rotated = run(capsys, "keys", "rotate", presented["desk"].split("_")[1], *options)
    assert 0 == rotated[0]
    assert _booked_from_the_spool(new / "var", restored)
    assert 0 == run(capsys, "ledger", "verify", *options)[0]


def _booked_from_the_spool(folder, url):
    """Whether what waited in the spool is booked once the next replica has taken it over."""
    ledger, bundle = Ledger(url), open_bundle(folder / "bundle")
    spool = Spool(ledger_folder(folder / "spool", ledger))
    bookings = BookingQueue(ledger, spool, lambda _spooled, _seconds: None)
    card = ModelCard("valley", bundle.manifest.global_.sha256, bundle.client_ids, 128)
    recovery = Recovery(spool, bookings, ledger, card.global_sha256.__eq__, lambda _progress: None)
    found = until(lambda: ledger.is_booked("chatcmpl-0052"))
    recovery.close()
    bookings.close()
    spool.close()
    ledger.close()
    return found


@pytest.mark.parametrize(
    "command",
    [
        ["serve", "--bundle", "BUNDLE", "--port", "PORT", "--metrics-port", "0"],
        ["ledger", "seal", "--key", "KEY"],
        ["statement", "issue", "2026-03", "--out", "OUT", "--key", "KEY"],
        ["statement", "show", "2026-03", "north", "--key", "KEY"],
    ],
)
def test_every_command_that_signs_refuses_to_become_somebody_else(capsys, tmp_path, before, url, monkeypatch, command):
    """With the key missing, or another ledger's in its place, each ends with one line, and nothing is signed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    key = before / "var" / "signing.key"
    named = {"BUNDLE": str(before / "bundle"), "PORT": port, "KEY": str(key), "OUT": str(tmp_path / "out")}
    monkeypatch.setenv("PROTOKEN_SIGNING_KEY", str(key))
    monkeypatch.setenv("PROTOKEN_REPLICA_METRICS_PORT", "0")
    run(capsys, "ledger", "migrate", "--ledger", url)
    words = [named.get(word, word) for word in command]
    missing = run(capsys, *words, "--ledger", url)
    made = key.exists()
    key.parent.mkdir(exist_ok=True)
    SigningKey.generate("valley/ledger").save(key)
    foreign = run(capsys, *words, "--ledger", url)

    assert not made
    for (code, _, err), why in ((missing, f"signing key {key} is missing"), (foreign, "is none of this ledger's")):
        assert (1, 1) == (code, err.count("\n"))
        assert why in err
        assert "protoken keys create --signing" in err
    assert not (tmp_path / "out").exists()
    with closing(Ledger(url)) as ledger, ledger.database.read() as connection:
        assert 2 == len(verify_keys(connection))


def test_a_lost_signing_key_is_replaced_when_that_is_said(capsys, before, url):
    """`keys create --signing` makes a new identity under the log's name, records it, and the service signs again."""
    key = before / "signing.key"
    key.unlink()
    run(capsys, "ledger", "migrate", "--ledger", url)
    renamed = run(capsys, "keys", "create", "--signing", "--name", "other/name", "--out", key, "--ledger", url)
    made = run(capsys, "keys", "create", "--signing", "--out", key, "--ledger", url)
    sealed = run(capsys, "ledger", "seal", "--key", key, "--ledger", url)

    assert 1 == renamed[0]
    assert "log is named 'valley/ledger'" in renamed[2]
    assert 0 == made[0]
    assert made[1].startswith("valley/ledger+")
    assert 0 == sealed[0]
    assert 0 == run(capsys, "ledger", "verify", "--ledger", url)[0]
