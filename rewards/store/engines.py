"""Connections to SQLite and PostgreSQL, such that a transaction reads one moment or is alone in writing.

Knows what the two databases need for that; knows no schema and no row.
"""

from __future__ import annotations

import errno
import fcntl
import sqlite3
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, text
from sqlalchemy.exc import NoSuchModuleError

from rewards.errors import LedgerError
from rewards.store.presence import existing_file
from rewards.store.url import file_of, readable_url

BUSY_TIMEOUT_MS = 30_000
CONNECT_TIMEOUT_S = 5
_SCHEMA_LOCK = 0x70726F746F6B656E  # "protoken": the advisory lock of whoever makes the schema on PostgreSQL
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


def connect(url: URL) -> Engine:
    """An engine whose transactions read one moment.

    Raises:
        LedgerError: the driver is missing, or there is no such file.
    """
    file = file_of(url)
    return _connect_postgresql(url) if file is None else _connect_sqlite(file)


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
        raise LedgerError(
            f"ledger {readable_url(url)}: the driver is missing: pip install 'protoken[postgresql]'"
        ) from error

    @event.listens_for(engine, "connect")
    def require_utf8(connection: Any, _record: Any) -> None:
        encoding = connection.info.parameter_status("server_encoding")  # told by the server; costs no query
        if encoding != "UTF8":
            connection.close()
            raise LedgerError(
                f"ledger {readable_url(url)}: the database's encoding is {encoding}, which cannot hold every name and "
                "label; make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
            )

    return engine


def _connect_sqlite(path: Path) -> Engine:
    """An engine over a file, which connecting never makes: one that is gone gets no empty successor."""
    file = existing_file(path)
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        creator=lambda: sqlite3.connect(file, check_same_thread=False, uri=True),
    )

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


def require_locks(ledger: Path) -> None:
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


def writing_engine(engine: Engine) -> Engine:
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


def preparing_engine(engine: Engine) -> Engine:
    """The engine, such that a transaction is alone in changing the schema; it waits for writers when it changes it."""
    if engine.dialect.name == "sqlite":
        return writing_engine(engine)
    writer = engine.execution_options(isolation_level="READ COMMITTED")

    @event.listens_for(writer, "begin")
    def lock(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _SCHEMA_LOCK})

    return writer


def write_ahead(engine: Engine) -> None:
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
