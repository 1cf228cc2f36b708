"""Folders that a service keeps beside its ledger: that of its spool, and whether one can be used. Knows no thread."""

import fcntl
import os
import tempfile
from hashlib import sha256
from pathlib import Path

from deployment.errors import StartError
from deployment.spool.files import make_folder, reason, sync_folder
from rewards.ledger.ledger import Ledger
from rewards.store import clients, events


def ledger_folder(spool: Path, ledger: Ledger) -> Path:
    """The part of the spool's folder that belongs to one ledger, wherever that lies and whatever its URL.

    Several services may share a folder, and must not adopt for one ledger what was spooled for another. A ledger is
    known by the event of its first client, which nothing can change and a login that may only book is allowed to read.

    Raises:
        StartError: no client is registered in the ledger.
    """
    with ledger.database.read() as connection:
        first = events.find(connection, kinds=[clients.KIND], limit=1)
    if not first:
        raise StartError("the ledger is empty: register the consortium's clients before anything is spooled for it")
    return spool / sha256(first[0].salt.encode()).hexdigest()[:16]


def require_folder(path: Path, setting: str) -> None:
    """Refuse a folder in which the service could not keep files: write, lock and sync one there, and take it away.

    Raises:
        StartError: the system refuses; the setting, the folder and the reason are named.
    """
    try:
        make_folder(path)
        try_folder(path)
    except OSError as error:
        raise refused_folder(path, setting, error) from error


def try_folder(path: Path) -> None:
    """Write, lock and sync a file in a folder, and have no name left of it.

    Raises:
        OSError: the system refuses.
    """
    with tempfile.TemporaryFile(dir=path) as probe:  # has no name at all, where the system knows how
        fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        probe.write(b"probe")
        probe.flush()
        os.fsync(probe.fileno())
    sync_folder(path)


def refused_folder(path: Path, setting: str, error: OSError) -> StartError:
    """What is said of a folder that cannot be used."""
    return StartError(
        f"{setting} {path} cannot be used: {reason(error)}; name a folder on a local disk that can be written, "
        f"locked and synced, by {setting} or PROTOKEN_{setting.upper()}"
    )
