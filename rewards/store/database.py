"""The ledger's database, SQLite or PostgreSQL: made, migrated, opened, and its transactions.

Knows the two databases; what their schema is `schema` knows. Knows nothing of receipts, periods or keys.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import sqlalchemy
from sqlalchemy import URL, Engine, NullPool, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from rewards.errors import LedgerError, LedgerLostError, LedgerRefusedError
from rewards.files import private_files
from rewards.store import schema
from rewards.store.engines import BUSY_TIMEOUT_MS, connect, preparing_engine, require_locks, write_ahead, writing_engine
from rewards.store.presence import Files, Origin, loss_of, require_whole
from rewards.store.url import file_of, parse, readable_url, url_without_password

Connection = sqlalchemy.Connection
"""What a transaction reads and writes through; whoever holds one needs no SQL library of its own."""

_SERVER_TIME = text("SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)")


def prepare(url: str) -> bool:
    """Make a ledger where there is none; any number of processes may call, at once and again.

    An older version's ledger is not touched: `migrate` does that, when it is asked for.

    Args:
        url: `sqlite:////absolute/path.db` (missing folders are made), or `postgresql://user@host/database`.

    Returns:
        Whether the ledger is a new one.

    Raises:
        LedgerError: the URL is of neither, the database cannot be reached or written, another version made the ledger,
            or it is none of ours.
    """
    parsed = parse(url)
    file = file_of(parsed)
    with _errors_of(readable_url(parsed)):
        if file is not None:
            require_whole(file)
            _make_private(file)
            require_locks(file)
        with _open_engine(parsed) as engine:
            with preparing_engine(engine).begin() as connection:
                is_new = schema.make(connection, url_without_password(url))
            if file is not None:
                _tighten(file)  # only now: what was named by a slip and is no ledger stays as it is
                write_ahead(engine)
    return is_new


def migrate(url: str) -> tuple[str, str]:
    """Bring an older version's ledger to the schema of this one, all of it or nothing; of this one's, change nothing.

    Returns:
        The schema that it had, and the one that it has.

    Raises:
        LedgerError: there is no ledger, it is of a newer version, or the database refuses.
    """
    parsed = parse(url)
    file = _required_file(parsed)
    with _errors_of(readable_url(parsed)), _open_engine(parsed) as engine:
        with preparing_engine(engine).begin() as connection:
            before = schema.migrate(connection, url_without_password(url))
        if file is not None:
            _tighten(file)
            write_ahead(engine)
    return before, schema.head()


@contextmanager
def connect_as_is(url: str, *, writing: bool = False) -> Iterator[Connection]:
    """A transaction on whatever schema is there: reading one moment, or alone in changing the schema.

    Raises:
        LedgerError: there is no such database, or it fails.
    """
    parsed = parse(url)
    _required_file(parsed)
    with (
        _errors_of(readable_url(parsed)),
        _open_engine(parsed) as engine,
        (preparing_engine(engine) if writing else engine).begin() as connection,
    ):
        yield connection


@contextmanager
def connect_unchanged(url: str) -> Iterator[Connection]:
    """A transaction that sees the ledger at one moment, of whatever schema, and leaves all files as they are.

    Of an SQLite file it sees what is in its write-ahead log only where somebody has that open, or left it in a crash.

    Raises:
        LedgerError: there is no such database, or it fails.
    """
    parsed = parse(url)
    file = _required_file(parsed)
    if file is None:
        with connect_as_is(url) as connection:
            connection.execute(text("SET TRANSACTION READ ONLY"))
            yield connection
        return
    is_shared = all(file.with_name(f"{file.name}{end}").exists() for end in ("-wal", "-shm"))
    with _errors_of(readable_url(parsed)), connect_to_file(file, is_shared=is_shared) as connection:
        yield connection


@contextmanager
def connect_to_file(file: Path, *, is_shared: bool) -> Iterator[Connection]:
    """A transaction on an SQLite file that is only read.

    Args:
        file: as it is.
        is_shared: whether somebody may write it; where nobody does, not even SQLite writes a file beside it.
    """
    uri = f"file:{quote(str(file.absolute()))}?mode=ro{'' if is_shared else '&immutable=1'}"
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(uri, uri=True), poolclass=NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        yield connection


class Database:
    """A prepared ledger database, usable from several threads; several processes may each have their own.

    Each transaction finds the ledger that was opened, or raises LedgerLostError: never one that took its place, nor a
    file that was taken away.

    Attributes:
        url: what it was opened by; may hold a password.
        origin: by which rows the ledger is known.

    Raises:
        LedgerError: there is no such database, or its schema is not at head; the message says what makes it so.
    """

    def __init__(self, url: str) -> None:
        parsed = parse(url)
        self.url = url
        self._name = readable_url(parsed)
        file = _required_file(parsed)
        self.origin = Origin()
        with _errors_of(self._name):
            self._files = None if file is None else Files(file, BUSY_TIMEOUT_MS / 1000)
        self._reader = connect(parsed)
        self._writer = writing_engine(
            connect(parsed)
        )  # connections of its own: who waits to write takes none of readers
        try:
            with self.read() as connection:
                schema.require_current(connection, url_without_password(url))
        except LedgerError:
            self.close()
            raise

    @property
    def is_postgresql(self) -> bool:
        """Whether this is PostgreSQL, with roles and row-level security; else it is SQLite."""
        return self._reader.dialect.name == "postgresql"

    @contextmanager
    def read(self, *, member: str | None = None) -> Iterator[Connection]:
        """A transaction that sees the database as it was at one moment, and holds nobody up.

        Args:
            member: read as this client. On PostgreSQL the database itself then hides the entries of every other
                client; on SQLite, which has no such wall, the queries alone do.
        """
        with _errors_of(self._name):
            self._require_files()
        with self._renew_if_damaged(self._reader), _errors_of(self._name), self._reader.begin() as connection:
            if member is not None and self.is_postgresql:
                connection.execute(text("SET LOCAL ROLE protoken_member"))
                connection.execute(text("SELECT set_config('protoken.client', :member, true)"), {"member": member})
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is alone in writing from its first statement, and durable when the block has ended."""
        with self._renew_if_damaged(self._writer), _errors_of(self._name):
            self._require_files()
            with self._writer.begin() as connection:
                self.origin.require(connection)
                yield connection
            self._require_files()  # a commit into a file that was taken away meanwhile is none

    def close(self) -> None:
        """Close every connection."""
        self._reader.dispose()
        self._writer.dispose()
        if self._files is not None:
            self._files.close()

    @contextmanager
    def _renew_if_damaged(self, engine: Engine) -> Iterator[None]:
        """Let go of connections that found no database: on SQLite they would say so still when the file is back."""
        try:
            yield
        except LedgerLostError as error:
            if error.code == "ledger_damaged":
                engine.dispose()
            raise

    def _require_files(self) -> None:
        if self._files is not None:
            self._files.check()


def now_us(connection: Connection | None = None) -> int:
    """This moment in microseconds since 1970, UTC: by the database's own clock where that is a server.

    Several replicas write to one PostgreSQL, each with a clock of its own; what they write is stamped by one.
    """
    if connection is None or connection.dialect.name != "postgresql":
        return time.time_ns() // 1000
    return int(connection.execute(_SERVER_TIME).scalar_one())


def _required_file(url: URL) -> Path | None:
    """The file of a ledger on SQLite, which is there and on a disk that will do; None for PostgreSQL."""
    file = file_of(url)
    if file is not None:
        require_whole(file)
        if not file.is_file():
            raise LedgerError(f"no ledger at {readable_url(url)}: `protoken keys create` or `protoken serve` makes one")
        require_locks(file)
    return file


def _make_private(path: Path) -> None:
    """An empty file that its owner alone may read, before SQLite would make one that everybody may."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private_files.MODE))


def _tighten(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        private_files.tighten(path.with_name(f"{path.name}{end}"))


@contextmanager
def _open_engine(url: URL) -> Iterator[Engine]:
    engine = connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        cause = getattr(error, "orig", None) or error
        reason, code = " ".join(str(cause).split()), loss_of(cause)
        if code is not None:
            raise LedgerLostError(f"ledger {name}: {reason}", code) from error
        refusal = LedgerRefusedError if _is_refusal(cause) else LedgerError
        raise refusal(f"ledger {name}: {reason}") from error
    except UnicodeError as error:  # half of a surrogate pair, as the shell gives for a byte that is not UTF-8
        raise LedgerError(f"ledger {name}: a name or label is not valid text: {error}") from error
    except BrokenPipeError:
        raise  # whoever reads what is shown has gone: no fault of the ledger
    except OSError as error:
        raise LedgerError(f"ledger {name}: {error.strerror}") from error


def _is_refusal(cause: BaseException) -> bool:
    """Whether a rule of the schema was broken: by class of the SQLSTATE, or what a trigger raised."""
    state = getattr(cause, "sqlstate", None) or ""
    return isinstance(cause, sqlite3.IntegrityError) or state[:2] in ("22", "23") or state == "P0001"
