"""The schema of a ledger's database: made where there is none, told apart from another version's, migrated.

Knows the migrations, and Alembic, which is imported only where one runs; opens no database.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from pathlib import Path

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import ProgrammingError

from rewards.errors import LedgerError

_UNRELEASED = "0001"
REVISION_TABLE = "alembic_version"
"""Holds the one row by which a ledger says its schema."""
_OURS = {"receipts", "entries", "events"}
_NOT_PERMITTED = "42501"  # SQLSTATE insufficient_privilege


def make(connection: Connection, url: str) -> bool:
    """Make the tables in an empty database; where a ledger is, require that it is of this version.

    Returns:
        Whether the ledger is a new one.

    Args:
        connection: of a transaction that is alone in writing.
        url: of the ledger, as it may be shown.

    Raises:
        LedgerError: another version made the ledger, or the database holds something else.
    """
    if _current_revision(connection, url) is None and not _tables(connection):
        _upgrade(connection)
        return True
    require_current(connection, url)
    return False


def require_current(connection: Connection, url: str) -> None:
    """Return where the ledger is of the schema that this program works with; args as for `make`.

    Raises:
        LedgerError: it is of an older or a newer program, or none; says what to do.
    """
    revision = _current_revision(connection, url)
    if revision == head():
        return
    _require_ledger(connection, url, revision)
    require_known(revision, url)
    raise LedgerError(
        f"ledger {url} was made by an older protoken: it is of schema {revision}, and this one needs {head()}; stop "
        f"the service, keep a copy by `protoken ledger backup FILE --ledger {url}`, then run "
        f"`protoken ledger migrate --ledger {url}`"
    )


def require_known(revision: str | None, url: str) -> None:
    """Return where this program can open a schema, or migrate it.

    Args:
        revision: which the ledger says.
        url: of the ledger, as it may be shown.

    Raises:
        LedgerError: it is of a newer program.
    """
    if revision not in _known_revisions():
        raise LedgerError(
            f"ledger {url} was made by a newer protoken: it is of schema {revision}, and this one knows those up to "
            f"{head()}; use that version, or a later one; nothing was changed"
        )


def require_not_newer(connection: Connection, url: str) -> None:
    """Return where a ledger is of this program's schema or an older one; args and errors as for `require_known`."""
    require_known(_current_revision(connection, url), url)


def is_ledger(tables: Collection[str]) -> bool:
    """Whether these are the tables of a ledger; others may be among them."""
    return {*_OURS, REVISION_TABLE} <= {*tables}


def migrate(connection: Connection, url: str) -> str:
    """Bring a ledger of an older version to this one's schema, and return which it had; args as for `make`.

    Raises:
        LedgerError: the ledger is of a newer program, or none; nothing was changed.
    """
    revision = _current_revision(connection, url)
    if revision is None or revision not in _known_revisions():
        require_current(connection, url)
    _require_ledger(connection, url, revision)
    _upgrade(connection)
    return str(revision)


def is_current(connection: Connection, url: str) -> bool:
    """Whether the ledger is of this program's schema; args and errors as for `require_current`, another one's apart."""
    revision = _current_revision(connection, url)
    _require_ledger(connection, url, revision)
    return revision == head()


def is_empty(connection: Connection, url: str) -> bool:
    """Whether it is a database in which a ledger could be made; args as for `make`.

    Raises:
        LedgerError: this login may not read what is there.
    """
    return _current_revision(connection, url) is None and not _tables(connection)


def require_empty(connection: Connection, url: str) -> None:
    """Return where a ledger could be made; args as for `make`.

    Raises:
        LedgerError: there is one, or something else.
    """
    if not is_empty(connection, url):
        raise LedgerError(f"there is a ledger at {url} already, or something else; restore to an empty database")


def head() -> str:
    """The revision that this program needs."""
    return max(_known_revisions())


@cache  # a running program's schema does not change
def _known_revisions() -> frozenset[str]:
    """The revisions that there are: with each its migration's file begins, and the last is the highest."""
    return frozenset(file.name.partition("_")[0] for file in (_migrations() / "versions").glob("[0-9]*_*.py"))


def _migrations() -> Path:
    return Path(__file__).with_name("migrations")


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - takes as long to import as all else, and ledgers are seldom made
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_migrations()).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _current_revision(connection: Connection, url: str) -> str | None:
    """The revision that the database says; None where it says none."""
    try:
        if not inspect(connection).has_table(REVISION_TABLE):
            return None
        revisions = connection.execute(text(f"SELECT version_num FROM {REVISION_TABLE}")).scalars().all()  # noqa: S608
    except ProgrammingError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_PERMITTED:
            raise
        raise LedgerError(
            f"ledger {url}: this login may not read it; grant it protoken_auditor, protoken_exporter or "
            "protoken_replica"
        ) from error
    if len(revisions) > 1:
        raise LedgerError(
            f"ledger {url} says of itself that it is of several schemas, {', '.join(sorted(revisions))}, so it was "
            "damaged: `protoken ledger restore` a backup"
        )
    return str(revisions[0]) if revisions else None


def _tables(connection: Connection) -> set[str]:
    """The tables that stand in the way of a new ledger: on PostgreSQL, other programs may have some of their own."""
    names = set(inspect(connection).get_table_names()) - {REVISION_TABLE}
    return names if connection.dialect.name == "sqlite" else names & _OURS


def _require_ledger(connection: Connection, url: str, revision: str | None) -> None:
    """Refuse what is no ledger, one that does not say its version, and the one kind that no version migrates."""
    tables = _tables(connection)
    if not tables >= _OURS:
        what = "holds the tables of something else and no ledger" if tables or revision else "holds no ledger yet"
        raise LedgerError(
            f"{url} {what}; give the ledger a database of its own: `protoken keys create` or `protoken serve` makes it"
        )
    if revision is None:
        raise LedgerError(
            f"ledger {url} does not say of which schema it is, so it was damaged: `protoken ledger restore` a backup"
        )
    if revision == _UNRELEASED:
        raise LedgerError(
            f"ledger {url} was made before there was a Merkle log, by a version that was never released; "
            "nothing was changed: keep it, and give a new name to the new ledger"
        )
