"""The URL of a ledger: a SQLite file, or a database of PostgreSQL. Opens nothing."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from rewards.errors import LedgerError


def parse(url: str) -> URL:
    """The URL in its parts, for SQLAlchemy.

    Raises:
        LedgerError: it is of neither database.
    """
    examples = "sqlite:////absolute/path.db or postgresql://user@host/database"
    try:
        url.encode()
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # ValueError: a port that is no number, or what is no text
        raise LedgerError(f"{url!r} is not a database URL; one is {examples}") from error
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    if not is_file and parsed.get_backend_name() != "postgresql":
        raise LedgerError(f"a ledger needs a SQLite file or PostgreSQL, as in {examples}, not {readable_url(parsed)!r}")
    if is_file and (parsed.query or "\0" in str(parsed.database)):
        raise LedgerError(f"{url!r}: the URL of a SQLite ledger is the path of its file and takes no options")
    return parsed


def file_of(url: URL) -> Path | None:
    """The file of a ledger on SQLite; None for one on PostgreSQL."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None


def readable_url(url: URL) -> str:
    """How errors name the database: the file, or the URL without its password."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return url.set(drivername=url.get_backend_name()).render_as_string(hide_password=True)


def sqlite_file(url: str) -> Path | None:
    """The file of a ledger on SQLite; None for one on PostgreSQL.

    Raises:
        LedgerError: it is no ledger's URL.
    """
    return file_of(parse(url))


def url_without_password(url: str) -> str:
    """A ledger's URL without its password.

    Raises:
        LedgerError: it is none.
    """
    parsed = parse(url)
    return parsed.set(drivername=parsed.get_backend_name()).render_as_string(hide_password=True)
