"""The ledger's database, SQLite or PostgreSQL: made, migrated, opened, and its transactions.

Knows the two databases; what their schema is `schema` knows. Knows nothing of receipts, periods or keys.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
import tempfile
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rewards import private_files, schema
from rewards.errors import LedgerError, LedgerLostError
from rewards.presence import Files, Origin, existing_file, loss_of

__all__ = [
    "BUSY_TIMEOUT_MS",
    "Connection",
    "Database",
    "as_it_is",
    "migrate",
    "now_us",
    "prepare",
    "shown_url",
    "sqlite_file",
]

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_TIMEOUT_MS = 30_000
CONNECT_TIMEOUT_S = 5
_SCHEMA_LOCK = 0x70726F746F6B656E  # "protoken": the advisory lock of whoever makes the schema on PostgreSQL
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
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
    parsed = _parse(url)
    with _errors_of(_shown(parsed)):
        if _is_sqlite(parsed):
            _make_private(Path(str(parsed.database)))
            _require_locks(Path(str(parsed.database)))
        with _connected(parsed) as engine:
            with _preparing(engine).begin() as connection:
                is_new = schema.make(connection, shown_url(url))
            if _is_sqlite(parsed):
                _tighten(
                    Path(str(parsed.database))
                )  # only now: what was named by a slip and is no ledger stays as it is
                _write_ahead(engine)
    return is_new


def migrate(url: str) -> tuple[str, str]:
    """Bring an older version's ledger to the schema of this one, all of it or nothing; of this one's, change nothing.

    Returns:
        The schema that it had, and the one that it has.

    Raises:
        LedgerError: there is no ledger, it is of a newer version, or the database refuses.
    """
    parsed = _parse(url)
    _require_file(parsed)
    with _errors_of(_shown(parsed)), _connected(parsed) as engine:
        with _preparing(engine).begin() as connection:
            before = schema.migrate(connection, shown_url(url))
        if _is_sqlite(parsed):
            _tighten(Path(str(parsed.database)))
            _write_ahead(engine)
    return before, schema.head()


@contextmanager
def as_it_is(url: str, *, writing: bool = False) -> Iterator[Connection]:
    """A transaction on whatever schema is there: reading one moment, or alone in changing the schema.

    Raises:
        LedgerError: there is no such database, or it fails.
    """
    parsed = _parse(url)
    _require_file(parsed)
    with (
        _errors_of(_shown(parsed)),
        _connected(parsed) as engine,
        (_preparing(engine) if writing else engine).begin() as there,
    ):
        yield there


def sqlite_file(url: str) -> Path | None:
    """The file of a ledger on SQLite; None for one on PostgreSQL.

    Raises:
        LedgerError: it is no ledger's URL.
    """
    parsed = _parse(url)
    return Path(str(parsed.database)) if _is_sqlite(parsed) else None


def shown_url(url: str) -> str:
    """A ledger's URL without its password.

    Raises:
        LedgerError: it is none.
    """
    parsed = _parse(url)
    return parsed.set(drivername=parsed.get_backend_name()).render_as_string(hide_password=True)


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
        parsed = _parse(url)
        self.url = url
        self._name = _shown(parsed)
        _require_file(parsed)
        self.origin = Origin()
        with _errors_of(self._name):
            self._files = Files(Path(str(parsed.database)), BUSY_TIMEOUT_MS / 1000) if _is_sqlite(parsed) else None
        self._reader = _connect(parsed)
        self._writer = _writing(_connect(parsed))  # connections of its own: who waits to write takes none of readers
        try:
            with self.read() as connection:
                schema.require_current(connection, shown_url(url))
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
        with _errors_of(self._name), self._reader.begin() as connection:
            if member is not None and self.is_postgresql:
                connection.execute(text("SET LOCAL ROLE protoken_member"))
                connection.execute(text("SELECT set_config('protoken.client', :member, true)"), {"member": member})
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is alone in writing from its first statement, and durable when the block has ended."""
        with _errors_of(self._name):
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


def _parse(url: str) -> URL:
    examples = "sqlite:////absolute/path.db or postgresql://user@host/database"
    try:
        url.encode()
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number, or what is no text
        raise LedgerError(f"{url!r} is not a database URL; one is {examples}") from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    is_file = _is_sqlite(parsed) and parsed.database not in (None, "", ":memory:")
    if not is_file and parsed.get_backend_name() != "postgresql":
        raise LedgerError(f"a ledger needs a SQLite file or PostgreSQL, as in {examples}, not {_shown(parsed)!r}")
    if is_file and (parsed.query or "\0" in str(parsed.database)):
        raise LedgerError(f"{url!r}: the URL of a SQLite ledger is the path of its file and takes no options")
    return parsed


def _is_sqlite(url: URL) -> bool:
    return url.get_backend_name() == "sqlite"


def _shown(url: URL) -> str:
    """How errors name the database: the file, or the URL without its password."""
    if _is_sqlite(url) and url.database:
        return url.database
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def _connect(url: URL) -> Engine:
    return _connect_sqlite(url) if _is_sqlite(url) else _connect_postgresql(url)


def _connect_postgresql(url: URL) -> Engine:
    """An engine whose transactions read one moment; a connection that died while idle is replaced, not handed out."""
    try:
        engine = create_engine(
            url,
            isolation_level="REPEATABLE READ",
            pool_pre_ping=True,
            # the encoding is said, since PGCLIENTENCODING or the URL may name one that cannot hold the ledger's texts
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "client_encoding": "utf8",
                "prepare_threshold": None,  # behind a pooler the next transaction may run on another connection
            },
        )
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise LedgerError(f"ledger {_shown(url)}: the driver is missing: pip install 'psycopg[binary]'") from error

    @event.listens_for(engine, "connect")
    def require_utf8(connection: Any, _record: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")  # told by the server; costs no query
        if encoding != "UTF8":
            connection.close()
            raise LedgerError(
                f"ledger {_shown(url)}: the database's encoding is {encoding}, which cannot hold every name and label;"
                " make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )

    return engine


def _connect_sqlite(url: URL) -> Engine:
    """An engine over a file, which connecting never makes: one that is gone gets no empty successor."""
    file = existing_file(Path(str(url.database)))
    engine = create_engine(url, creator=lambda: sqlite3.connect(file, check_same_thread=False, uri=True))

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


def _require_locks(ledger: Path) -> None:
    """Refuse a disk that grants no locks: SQLite would take each for one that somebody holds, and wait for its end."""
    try:
        # Another file than the ledger: whoever closes a file lets go of all locks that the process has on it.
        with tempfile.TemporaryFile(dir=ledger.parent) as probe:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _NO_LOCKS:
            raise LedgerError(
                f"ledger {ledger}: its disk has no locks ({error.strerror}), which SQLite needs: put "
                "the ledger on a local disk, or use PostgreSQL"
            ) from error


def _writing(engine: Engine) -> Engine:
    """The engine, such that a transaction has the database's one place to write from its first statement.

    On PostgreSQL that is a lock which ends with the transaction, behind a function that only who may write may call;
    while the schema is made there is no such function, and `prepare` takes an advisory lock before it. READ COMMITTED
    there: what the writer before us committed while we waited must be seen.
    """
    if engine.dialect.name == "sqlite":
        return engine.execution_options(begin="IMMEDIATE")
    writer = engine.execution_options(isolation_level="READ COMMITTED")

    @event.listens_for(writer, "begin")
    def lock(connection: Connection) -> None:
        connection.execute(text("SELECT protoken_lock()"))

    return writer


def _preparing(engine: Engine) -> Engine:
    """The engine, such that a transaction is alone in changing the schema; it waits for writers when it changes it."""
    if engine.dialect.name == "sqlite":
        return _writing(engine)
    writer = engine.execution_options(isolation_level="READ COMMITTED")

    @event.listens_for(writer, "begin")
    def lock(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SCHEMA_LOCK})

    return writer


def _require_file(url: URL) -> None:
    if not _is_sqlite(url):
        return
    if not Path(str(url.database)).is_file():
        raise LedgerError(f"no ledger at {_shown(url)}: `protoken keys create` or `protoken serve` makes one")
    _require_locks(Path(str(url.database)))


def _make_private(path: Path) -> None:
    """An empty file that its owner alone may read, before SQLite would make one that everybody may."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, private_files.MODE))


def _tighten(path: Path) -> None:
    for end in ("", "-wal", "-shm"):
        private_files.tighten(path.with_name(f"{path.name}{end}"))


@contextmanager
def _connected(url: URL) -> Iterator[Engine]:
    engine = _connect(url)
    try:
        yield engine
    finally:
        engine.dispose()


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
                if mode != "wal":
                    raise LedgerError(
                        f"the ledger's disk cannot hold a write-ahead log (SQLite stays in {mode!r}), without which "
                        "nobody could read while receipts are booked: put it on a local disk, or use PostgreSQL"
                    )
                return


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    try:
        yield
    except (SQLAlchemyError, CommandError, sqlite3.Error) as error:
        cause = getattr(error, "orig", None) or error
        reason, code = " ".join(str(cause).split()), loss_of(cause)
        if code is not None:
            raise LedgerLostError(f"ledger {name}: {reason}", code) from error
        raise LedgerError(f"ledger {name}: {reason}") from error
    except UnicodeError as error:  # half of a surrogate pair, as the shell gives for a byte that is not UTF-8
        raise LedgerError(f"ledger {name}: a name or label is not valid text: {error}") from error
    except OSError as error:
        raise LedgerError(f"ledger {name}: {error.strerror}") from error
