"""Where a backup or a ledger may be put, so that nothing is lost by a slip. Knows files and processes, and no row."""

from __future__ import annotations

from pathlib import Path

from rewards.audit.source import POSTGRESQL_DUMP
from rewards.audit.write_ahead import SQLITE
from rewards.errors import LedgerError
from rewards.files.open_files import GONE, find_user

_BESIDE = ("-wal", "-shm", "-journal")


def require_free(file: Path, ledger: Path | None, *, replace: bool) -> None:
    """Refuse a file that a backup must not be written to.

    Raises:
        LedgerError: it is the ledger itself, or one that is in use, or has the name of a file beside one; there is a
            file already that is not to be replaced; or there is no such folder.
    """
    _require_lasting_name(file, "backup")
    if not file.parent.is_dir():
        raise LedgerError(f"backup {file}: there is no folder {file.parent}; make it, or mount it, first")
    if ledger is not None and ledger.exists() and file.exists() and file.samefile(ledger):
        raise LedgerError(f"backup {file}: this is the ledger itself; give another name")
    beside = _files_beside(file)
    if beside:
        raise LedgerError(
            f"backup {file}: {beside[0].name} lies beside it, so that name is a ledger's; give another one"
        )
    if file.is_symlink() or (file.exists() and not file.is_file()):
        raise LedgerError(f"backup {file}: this is no file; give another name")
    if file.exists() and not replace:
        raise LedgerError(f"backup {file}: there is a file already; give another name, or --replace")


def require_vacant(ledger: Path) -> None:
    """Refuse to restore where a ledger is, was half taken away, or is still in use; or where there is no folder.

    Raises:
        LedgerError: says which, and what to do.
    """
    _require_lasting_name(ledger, "ledger")
    if ledger.exists() or ledger.is_symlink():
        raise LedgerError(
            f"there is a ledger at {ledger} already, and a restore never takes the place of one: stop the service, and "
            f"move it away with the files {ledger.name}-wal and {ledger.name}-shm beside it"
        )
    beside = _files_beside(ledger)
    if beside:
        raise LedgerError(
            f"{beside[0]} is there without its ledger: stop the service that has it open, and move it away; beside "
            "another ledger it would spoil that"
        )
    if not ledger.parent.is_dir():
        raise LedgerError(f"ledger {ledger}: there is no folder {ledger.parent}; make it, or mount it, first")
    names = [f"{ledger.parent.resolve() / ledger.name}{end}{GONE}" for end in ("", *_BESIDE)]
    process = find_user(names)
    if process is not None:
        raise LedgerError(f"process {process} has {ledger} open, though it is gone: stop that service first")


def require_copy(file: Path, *, is_sqlite: bool) -> None:
    """Refuse to restore from what is no copy of a ledger on that database.

    Raises:
        LedgerError: there is no such file, or it is of another kind.
    """
    try:
        with file.open("rb") as opened:
            start = opened.read(len(SQLITE))
    except OSError as error:
        raise LedgerError(f"backup {file} cannot be read: {error.strerror}") from error
    if start == SQLITE and not is_sqlite:
        raise LedgerError(f"{file} is of a ledger on SQLite; give --ledger sqlite:///FILE")
    if start.startswith(POSTGRESQL_DUMP) and is_sqlite:
        raise LedgerError(f"{file} is of a ledger on PostgreSQL; give --ledger postgresql://USER@HOST/DATABASE")
    if start != SQLITE and not start.startswith(POSTGRESQL_DUMP):
        raise LedgerError(f"{file} is no backup of a ledger")


def _require_lasting_name(file: Path, what: str) -> None:
    """Refuse a name that SQLite gives to a file beside a database: the next command would delete what bears it."""
    for end in _BESIDE:
        if file.name.endswith(end):
            raise LedgerError(
                f"{what} {file}: a name that ends in {end} is of a file that SQLite makes and deletes beside a "
                "database; give another name"
            )


def _files_beside(file: Path) -> list[Path]:
    names = [file.with_name(f"{file.name}{end}") for end in _BESIDE]
    return [path for path in names if path.exists()]
