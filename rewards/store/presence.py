"""Whether the ledger is still the one that was opened: its files under their names, and its rows.

A file that was taken away goes on being read and written by whoever has it open, and what is booked into it is lost
with the last of them. Knows SQLite's files and one row of each table; writes nothing.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import threading
from pathlib import Path
from typing import Final
from urllib.parse import quote

from sqlalchemy import Connection, bindparam, select
from sqlmodel import col

from rewards.errors import LedgerError, LedgerLostError
from rewards.store.tables import EventRow

_LOG = logging.getLogger(__name__)
CLIENT_REGISTERED: Final = "client.registered"
"""The kind of event by whose first one a ledger is known: nothing can change it, and every login may read it."""
_BESIDE: Final = ("-wal", "-shm")
# Each transaction asks these, so they are put together once.
_ORIGIN: Final = select(col(EventRow.sequence), col(EventRow.salt)).where(col(EventRow.kind) == CLIENT_REGISTERED)
_FIRST: Final = _ORIGIN.order_by(col(EventRow.sequence)).limit(1)
_KNOWN: Final = _ORIGIN.where(col(EventRow.sequence) == bindparam("sequence"))
_DROPPED: Final = re.compile('FATAL: +database "[^"]*" does not exist')  # a refused connection has no SQLSTATE


def existing_file(path: Path) -> str:
    """The URI of an SQLite file that is never made by opening it, not in the place of one that is gone either."""
    return f"file:{quote(str(path))}?mode=rw"


def loss_of(error: BaseException) -> str | None:
    """The code of a database's answer by which its ledger is no longer there; None where it may be back by itself."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return "ledger_damaged"
    return "ledger_missing" if _DROPPED.search(str(error)) else None


def require_whole(path: Path) -> None:
    """Refuse a write-ahead log without its ledger: whoever makes a ledger there, or opens an empty one, deletes it.

    Raises:
        LedgerError: the log is there, and the file is gone or empty.
    """
    if path.exists() and path.stat().st_size > 0:
        return
    log = Path(f"{path.resolve()}{_BESIDE[0]}")  # beside the file that a link leads to
    if log.exists() and log.stat().st_size > 0:
        raise LedgerError(
            f"ledger {path} is {'empty' if path.exists() else 'gone'}, and {log.name}, which holds its latest receipts,"
            " is there: bring the file back; to begin anew, move that one away, and stop whoever has it open"
        )


class Files:
    """The file of an SQLite ledger and its write-ahead log, as they were when this was made; usable from any thread.

    Holds a connection, as the write-ahead log keeps its name for as long as somebody has it open.

    Raises:
        sqlite3.Error: the file cannot be opened.
    """

    def __init__(self, path: Path, busy_timeout_s: float) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_rescued = False
        self._holder = sqlite3.connect(
            existing_file(path), busy_timeout_s, isolation_level=None, check_same_thread=False, uri=True
        )
        self._holder.execute("SELECT 1 FROM sqlite_schema").fetchone()  # opens the write-ahead log
        self._opened = identity(path)
        self._size = _size(path)  # a ledger only grows
        names = [Path(f"{path.resolve()}{ending}") for ending in _BESIDE]  # beside the file that a link leads to
        beside = {file: identity(file) for file in names}
        self._beside = {file: status for file, status in beside.items() if status is not None}

    def check(self) -> None:
        """Look at the names; some microseconds.

        Raises:
            LedgerLostError: what bears one of them is not what was opened.
            OSError: they cannot be looked at.
        """
        known = self._size  # before the look: another thread's look may come between
        current, size = identity(self._path), _size(self._path)
        if current != self._opened:
            self._rescue()  # into wherever it lies now: who moves a file leaves its log behind
        if current is None:
            raise LedgerLostError(f"ledger {self._path} is gone: put the file back", "ledger_missing")
        if current != self._opened:
            raise LedgerLostError(
                f"ledger {self._path} is another file than the one that was opened: put that back, or start again",
                "ledger_replaced",
            )
        if size < known:
            raise LedgerLostError(
                f"ledger {self._path} was cut from {known} bytes to {size}: put the file back as it was",
                "ledger_damaged",
            )
        self._size = size
        for file, opened in self._beside.items():
            if identity(file) != opened:
                self._rescue()
                raise LedgerLostError(
                    f"{file}, a part of the ledger, was taken away while in use: stop whoever uses the ledger in "
                    "order, by which all is written into its file, and start again",
                    "ledger_log_missing",
                )
        self._is_rescued = False

    def close(self) -> None:
        """Let go of the file; the last one to do so writes what is in the log into it."""
        self._holder.close()

    def _rescue(self) -> None:
        """Write what only the log holds into the file, unless somebody has begun another log; once for each loss."""
        with self._lock:
            if self._is_rescued or any(identity(file) not in (None, opened) for file, opened in self._beside.items()):
                return
            self._is_rescued = True
            try:
                self._holder.execute("PRAGMA wal_checkpoint(PASSIVE)")
            except sqlite3.Error:
                _LOG.exception("ledger %s: what is in its write-ahead log could not be written into it", self._path)


class Origin:
    """The row by which a database's ledger is known: the event of its first client, with the salt it was given."""

    def __init__(self) -> None:
        self._known: tuple[int, str] | None = None

    def require(self, connection: Connection) -> None:
        """Refuse the rows of another ledger; the first ones that are seen are right.

        Raises:
            LedgerLostError: these are not the rows of the ledger that was opened.
        """
        if self._known is None:
            first = connection.execute(_FIRST).one_or_none()
            self._known = None if first is None else (first[0], first[1])
            return
        row = connection.execute(_KNOWN, {"sequence": self._known[0]}).one_or_none()
        if row is None or tuple(row) != self._known:
            raise LedgerLostError(
                "another ledger has taken the place of the one that was opened: put that back, or start again",
                "ledger_replaced",
            )


def identity(path: Path) -> tuple[int, int] | None:
    """What a name stands for, by device and inode; None when for nothing."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


def _size(path: Path) -> int:
    """How many bytes bear a name; 0 where none do."""
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return 0
