"""The write-ahead log beside a copy: SQLite reads a part of it in silence, so what is wrong with it is told."""

import shutil
import sqlite3
from contextlib import closing

import pytest

from rewards.audit.replay import audit
from rewards.audit.write_ahead import lacks_write_ahead_log, require_whole_log
from rewards.backups import copying
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from tests.rewards.books import write_books
from tests.rewards.receipts import make_receipt

FRAME = 24 + 4096


def _write_served(folder):
    """The copy of a ledger in use with what waits in its log, 3 receipts."""
    folder.mkdir()
    write_books(f"sqlite:///{folder}/ledger.db")
    with closing(Ledger(f"sqlite:///{folder}/ledger.db")) as ledger:
        for number in range(3):
            ledger.append(make_receipt(f"waiting{number}"))
        for end in ("", "-wal"):
            shutil.copy(folder / f"ledger.db{end}", folder / f"copy.db{end}")
    return folder / "copy.db"


@pytest.fixture
def copy(tmp_path):
    """The copy of a ledger in use, with its log."""
    return _write_served(tmp_path / "served")


@pytest.fixture
def log(copy):
    """The log beside the copy."""
    return copy.with_name("copy.db-wal")


def _cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def _cut_within_the_header(data: bytes) -> bytes:
    return data[:31]


def _cut_within_a_transaction(data: bytes) -> bytes:
    return data[: 32 + FRAME]


def _spoil_a_page(data: bytes) -> bytes:
    return data[: 32 + FRAME + 100] + b"\xff" * 8 + data[32 + FRAME + 108 :]


def _spoil_the_header(data: bytes) -> bytes:
    return bytes(32) + data[32:]


def _spoil_the_salt(data: bytes) -> bytes:
    return data[: 32 + 8] + bytes(8) + data[32 + 16 :]


FAULTS = {
    _cut: r"copy\.db-wal is cut: it has \d+ bytes, which are not whole pages",
    _cut_within_the_header: r"copy\.db-wal is cut: it has 31 bytes, less than its header has",
    _cut_within_a_transaction: r"copy\.db-wal ends within a transaction",
    _spoil_a_page: r"copy\.db-wal is damaged at page 2 of \d+",
    _spoil_the_header: r"copy\.db-wal is damaged: its header is none of a write-ahead log",
    _spoil_the_salt: r"copy\.db-wal is another one's from its first page on",
}


@pytest.mark.parametrize("spoil", FAULTS)
def test_a_log_that_is_not_whole_is_named_by_audit_backup_and_restore(tmp_path, copy, log, spoil):
    """Each of the three would read the copy without the receipts that are lost, and call it in order."""
    log.write_bytes(spoil(log.read_bytes()))
    before = copy.read_bytes()
    for read in (
        lambda: audit(copy),
        lambda: copying.backup(f"sqlite:///{copy}", tmp_path / "backup.db"),
        lambda: copying.restore(copy, f"sqlite:///{tmp_path}/new.db"),
    ):
        with pytest.raises(LedgerError, match=FAULTS[spoil]):
            read()
    assert ["served"] == [path.name for path in tmp_path.iterdir()]
    assert before == copy.read_bytes()


def test_a_log_of_another_kind_of_database_is_named(tmp_path, copy, log):
    """One of other pages, or any beside a backup, which has no log: SQLite would read a foreign page as its own."""
    other = tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as database:
        database.executescript("PRAGMA page_size = 1024; PRAGMA journal_mode = WAL; CREATE TABLE holidays (day TEXT)")
        foreign = (tmp_path / "other.db-wal").read_bytes()
    copying.backup(f"sqlite:///{copy.parent}/ledger.db", tmp_path / "backup.db")
    shutil.copy(log, tmp_path / "backup.db-wal")
    log.write_bytes(foreign)
    for file in (copy, tmp_path / "backup.db"):
        with pytest.raises(LedgerError, match=rf"{file.name}-wal is another database's"):
            audit(file)


def test_an_empty_log_is_like_none(tmp_path, copy, log):
    """A copy with an empty log beside it lost as much as one with none; the ledger itself may be backed up so."""
    log.write_bytes(b"")
    report = audit(copy)

    assert (True, True) == (report.is_ok, report.lacks_write_ahead_log)
    with pytest.raises(LedgerError, match=r"copy.db is a bare copy of a ledger in write-ahead mode"):
        copying.restore(copy, f"sqlite:///{tmp_path}/new.db")
    assert copying.restore(copy, f"sqlite:///{tmp_path}/new.db", incomplete=True).is_audited
    assert copying.backup(f"sqlite:///{copy}", tmp_path / "backup.db").is_audited


def test_a_whole_log_passes(copy, log, tmp_path):
    """With all of it the copy has every receipt."""
    assert not lacks_write_ahead_log(copy)
    require_whole_log(copy)
    assert 13 == audit(copy).counts["receipts"]
    assert 13 == copying.restore(copy, f"sqlite:///{tmp_path}/new.db").rows["receipts"]


def test_older_pages_behind_those_of_a_log_that_began_anew_are_no_fault(tmp_path):
    """SQLite writes a log over from its start once all of it is in the file: what is behind has other salts."""
    file = tmp_path / "ledger.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE days (day TEXT)")
        for _ in range(20):
            database.execute("INSERT INTO days VALUES ('a day')")
        database.execute("PRAGMA wal_checkpoint(FULL)")
        size = file.with_name("ledger.db-wal").stat().st_size
        database.execute("INSERT INTO days VALUES ('the first of a new log')")

        assert size == file.with_name("ledger.db-wal").stat().st_size
        require_whole_log(file)


def test_a_backup_of_a_ledger_that_crashed_is_made(tmp_path, copy, log):
    """What a crash leaves has the file that is shared beside it, and a log that may end in the middle of a page."""
    log.write_bytes(log.read_bytes() + b"half a page")
    shutil.copy(copy, tmp_path / "crashed.db")
    shutil.copy(log, tmp_path / "crashed.db-wal")
    (tmp_path / "crashed.db-shm").touch()

    assert 13 == copying.backup(f"sqlite:///{tmp_path}/crashed.db", tmp_path / "backup.db").rows["receipts"]
