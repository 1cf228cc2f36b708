"""The ledger's database: its schema at head, and transactions that read one moment or write alone.

Knows SQLite and Alembic; knows nothing of receipts, periods or keys.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from rewards.errors import LedgerError

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_TIMEOUT_MS = 30_000


def prepare(url: str) -> None:
    """Create the ledger's schema, or upgrade it to head. Any number of processes may call, at once and again.

    Args:
        url: `sqlite:////absolute/path.db`; missing folders are made.

    Raises:
        LedgerError: the URL is not one of a SQLite file, or the file cannot be written or is no database.
    """
    path = _file_of(url)
    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    with _errors_of(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        engine = _connect(url)
        try:
            with engine.execution_options(begin="IMMEDIATE").begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
            _write_ahead(engine)
        finally:
            engine.dispose()


class Database:
    """A prepared ledger database, usable from several threads; several processes may each have their own.

    Raises:
        LedgerError: there is no such file, or its schema is not at head; the message says what makes it so.
    """

    def __init__(self, url: str) -> None:
        self._path = _file_of(url)
        if not self._path.is_file():
            raise LedgerError(f"no ledger at {self._path}: Ledger.prepare({url!r}) makes one")
        self._reader = _connect(url)
        self._writer = self._reader.execution_options(begin="IMMEDIATE")
        with self.read() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
        head = ScriptDirectory(str(_migrations())).get_current_head()
        if found != head:
            self.close()
            raise LedgerError(
                f"ledger {self._path} is at schema {found}, this program needs {head}: "
                f"Ledger.prepare({url!r}) upgrades an older one"
            )

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees the database as it was at one moment, and holds nobody up."""
        with _errors_of(self._path), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is alone in writing from its first statement, and durable when the block has ended."""
        with _errors_of(self._path), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._reader.dispose()


def now_us() -> int:
    """This moment in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def _migrations() -> Path:
    return Path(__file__).with_name("migrations")


def _file_of(url: str) -> Path:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise LedgerError(f"{url!r} is not a database URL; one is sqlite:////absolute/path.db") from error
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        shown = parsed.render_as_string(hide_password=True)
        raise LedgerError(f"a ledger needs a SQLite file, as in sqlite:////absolute/path.db, not {shown!r}")
    return Path(str(parsed.database))


def _connect(url: str) -> Engine:
    engine = create_engine(url)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver shall not begin transactions: `begin` below does
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA synchronous = FULL")  # a commit is on disk before it returns
        connection.execute("PRAGMA foreign_keys = ON")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(f"BEGIN {connection.get_execution_options().get('begin', 'DEFERRED')}")

    return engine


def _write_ahead(engine: Engine) -> None:
    """Switch the file to WAL, which is for ever. SQLite may answer "busy" without waiting here, so the wait is ours."""
    deadline = time.monotonic() + BUSY_TIMEOUT_MS / 1000
    with closing(engine.raw_connection()) as connection:  # raw: the mode cannot change inside a transaction
        while True:
            try:
                (mode,) = connection.cursor().execute("PRAGMA journal_mode = WAL").fetchone()
            except sqlite3.OperationalError as error:
                if time.monotonic() > deadline:
                    raise LedgerError(f"cannot switch the ledger to WAL: {error}") from error
                time.sleep(0.01)
            else:
                assert mode == "wal", mode
                return


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, CommandError) as error:
        reason = getattr(error, "orig", None) or error
        raise LedgerError(f"ledger {path}: {reason}") from error
    except OSError as error:
        raise LedgerError(f"ledger {path}: {error.strerror}") from error
