"""The signing key on disk: made, registered in the ledger, and replaced without a moment in which there is none."""

import os
from contextlib import closing
from pathlib import Path

from deployment.errors import StartError
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import latest_checkpoint, register_signing_key, verify_keys
from rewards.signing.keys import SigningKey

_FIRST_NAME = "consortium/ledger"


def make_signing_key(ledger: str, name: str | None, file: Path, *, rotate: bool) -> str:
    """Make a signing key in a file, register it in the ledger, and return its public half, spelled out.

    Registered before it is in place: nothing is ever signed with a key that the ledger does not know.

    Args:
        ledger: URL of the ledger, prepared.
        name: under which it signs; None for the name of the ledger's log, which it must be once there is one: whoever
            checks a statement goes by it.
        file: where it is to be; missing folders are made.
        rotate: keep the key that is there aside, as `<file>.<its id>`; else its file is refused.

    Raises:
        SignatureError: a name that a key may not have, or a file that holds no key or cannot be written.
        StartError: there is a key already, and it is not to be rotated; or the ledger's log has another name.
        LedgerError: the ledger cannot be written.
    """
    if file.exists() and not rotate:
        raise StartError(f"there is a signing key in {file}; --rotate keeps it aside and makes a new one")
    aside = file.with_name(f"{file.name}.{SigningKey.load(file).public.key_id}") if file.exists() else None
    key = SigningKey.generate(_name(ledger, name))
    draft = file.with_name(f"{file.name}.{key.public.key_id}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        key.save(draft)
        with closing(Ledger(ledger)) as book:
            register_signing_key(book, key.public)
        if aside is not None and not aside.exists():
            aside.hardlink_to(file)
        _put(draft, file, replace=rotate)
    except OSError as error:
        raise StartError(f"signing key {file}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
    return key.public.encode()


def _name(ledger: str, name: str | None) -> str:
    with closing(Ledger(ledger)) as book, book.database.read() as connection:
        sealed, keys = latest_checkpoint(connection), verify_keys(connection)
    origin = None if sealed is None else sealed.origin
    if origin is not None and name not in (None, origin):
        raise StartError(
            f"this ledger's log is named {origin!r}, and what a key of another name signs is not taken for its: leave "
            f"--name {name} out"
        )
    return name or origin or (keys[-1].name if keys else _FIRST_NAME)


def _put(draft: Path, file: Path, *, replace: bool) -> None:
    """Move the new key into its place; where it is not to replace another, not over one that came meanwhile."""
    if replace:
        draft.replace(file)
    else:
        file.hardlink_to(draft)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
