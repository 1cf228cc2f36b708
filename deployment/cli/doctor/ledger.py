"""The ledger as it is. Every look opens it anew, and leaves it as it is."""

from pathlib import Path

from deployment.cli.doctor.findings import Finding, finding_of, require_no
from deployment.cli.doctor.folders import disk_doubts, mode_doubts, nearest_of
from deployment.health.places import refused_folder, try_folder
from deployment.health.signing_key import require_no_lost_ledger
from deployment.settings import url_without_secrets
from rewards.audit.write_ahead import is_write_ahead
from rewards.files.private_files import mode_for_others
from rewards.store import queries, schema
from rewards.store.database import connect_unchanged
from rewards.store.url import sqlite_file


def look_at_ledger(item: str, url: str, signing_key: Path) -> tuple[Finding, str | None]:
    """What was found of the ledger of a signing key, and its URL where it can be read, by this program's schema."""
    read: list[str] = []

    def look() -> str:
        file = sqlite_file(url)
        if file is not None and not file.exists():
            return _look_at_place(file, url, signing_key)
        with connect_unchanged(url) as connection:
            if schema.is_empty(connection, url_without_secrets(url)):
                require_no_lost_ledger(url, signing_key)
                return f"{url_without_secrets(url)} is an empty database, in which the first start makes the ledger"
            schema.require_current(connection, url_without_secrets(url))
            read.append(url)
            receipts = queries.last_sequence(connection, None)
        require_no([] if file is None else _file_doubts(file))
        return f"{url_without_secrets(url)} is of schema {schema.head()}, with {receipts} receipts"

    finding = finding_of(item, look)
    return finding, read[0] if read else None


def _look_at_place(file: Path, url: str, signing_key: Path) -> str:
    nearest = nearest_of(file)
    try:
        try_folder(nearest)
    except OSError as error:
        raise refused_folder(file, "ledger", error) from error
    require_no_lost_ledger(url, signing_key)
    require_no([*disk_doubts(nearest)])
    return f"{file} is not there yet: the first start makes it, or `protoken keys create`"


def _file_doubts(file: Path) -> list[str]:
    doubts = [*mode_doubts(file, mode_for_others(file)), *disk_doubts(file.parent)]
    log, shared = (file.with_name(f"{file.name}{end}") for end in ("-wal", "-shm"))
    if not is_write_ahead(file):
        doubts.append(f"{file} is in no write-ahead mode, so that who reads holds up who books: a start changes that")
    if log.exists() and log.stat().st_size and not shared.exists():
        doubts.append(f"{log} holds receipts that nobody has open, and that were not looked at: a start takes them in")
    return doubts
