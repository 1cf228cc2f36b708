"""The pepper: 32 random bytes in a file of their own, without which the hashes in the database verify no key.

Whoever copies the database has no key by it, and cannot try one. Knows the file; how the hashes are made is `ring`'s.
"""

from __future__ import annotations

import secrets
from contextlib import closing, suppress
from pathlib import Path

from sqlalchemy import select
from sqlmodel import col

from rewards.errors import KeyRingError
from rewards.files import private_files
from rewards.store.database import Connection, Database, now_us
from rewards.store.tables import ApiKeyRow

PEPPER_BYTES = 32


def load_or_make(path: Path, url: str) -> bytes:
    """The pepper in a file; made, readable by its owner alone, where there is none and the ledger has no valid key.

    Any number of processes may call at once: they get the same.

    Args:
        path: the file; missing folders are made.
        url: the ledger, asked only where the file is missing.

    Raises:
        KeyRingError: the file is missing although there are valid keys, cannot be read or written, or is no pepper.
        LedgerError: the file is missing and the ledger cannot be read.
    """
    pepper = read(path)
    if pepper is None:
        with closing(Database(url)) as database, database.read() as connection:
            has_keys = has_valid_keys(connection)
        if not has_keys:
            _make(path)
        pepper = read(path)  # where there are keys, somebody may have made it, and then a key, after we looked
    if pepper is None:
        raise absence_of(path)
    private_files.tighten(path)  # only now: a file that was named by a slip is somebody's, who may want it to be read
    return pepper


def read(path: Path) -> bytes | None:
    """The pepper in a file, which stays as it is; None where there is no file.

    Raises:
        KeyRingError: it cannot be read, or is no pepper.
    """
    try:
        pepper = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyRingError(f"pepper {path}: {error.strerror}") from error
    if len(pepper) != PEPPER_BYTES:
        raise KeyRingError(f"pepper {path} holds {len(pepper)} bytes and must hold {PEPPER_BYTES}")
    return pepper


def absence_of(path: Path) -> KeyRingError:
    """What is said where the file is missing although the ledger has valid keys."""
    return KeyRingError(
        f"pepper {path} is missing, and without it no key of the ledger verifies: bring the file back, or name it "
        "by pepper_file (PROTOKEN_PEPPER_FILE); where it is lost, revoke the keys, and new ones get a new pepper"
    )


def has_valid_keys(connection: Connection) -> bool:
    """Whether the ledger has a key that opens anything, which none does without the pepper."""
    expires_at_us = col(ApiKeyRow.expires_at_us)
    valid = col(ApiKeyRow.revoked_at_us).is_(None) & (expires_at_us.is_(None) | (expires_at_us > now_us()))
    return connection.execute(select(col(ApiKeyRow.key_id)).where(valid).limit(1)).first() is not None


def _make(path: Path) -> None:
    """Write a pepper, unless somebody was quicker; keys that are made next must not outlive it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            private_files.write_new(path, secrets.token_bytes(PEPPER_BYTES))
    except OSError as error:
        raise KeyRingError(f"pepper {path}: {error.strerror}") from error
