"""The signing key on disk: made, registered in the ledger, found again, and replaced without a moment without one.

A ledger knows every key that ever signed for it, its first from before that had its place on the disk. So a key that is
there and unknown means that the ledger which it signed for is gone: it would begin a second history under the first
one's name.
"""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from deployment.errors import StartError
from deployment.settings import url_without_secrets
from rewards.ledger.ledger import Ledger
from rewards.log.checkpoints import latest_checkpoint
from rewards.log.sealer import introduce, register_signing_key, require_known, verify_keys
from rewards.signing.keys import SigningKey, VerifyKey
from rewards.store import schema
from rewards.store.database import Connection, connect_unchanged
from rewards.store.presence import require_whole
from rewards.store.url import sqlite_file

_FIRST_NAME = "consortium/ledger"


def signing_key(path: Path, ledger: Ledger, name: str | None = None) -> SigningKey:
    """The key that signs checkpoints and statements of a ledger; its first is made under `name`, where that is given.

    Raises:
        SignatureError: the file holds no signing key, or one that the ledger does not know, or cannot be read or
            written.
        StartError: the file is missing although the ledger has a key, or where none is to be made; or its folder cannot
            be made.
    """
    if not path.exists():
        _make_first(path, ledger, name)
    key = SigningKey.load(path)
    with ledger.database.read() as connection:
        require_known(connection, key.public)
    return key


def find_signing_key(path: Path, connection: Connection) -> SigningKey | None:
    """The same key by a look at file and ledger, which stay as they are; None where there is none in either.

    Raises:
        SignatureError, StartError: as of `signing_key`.
    """
    known = verify_keys(connection)
    file = path if path.exists() else _unfinished_key(path, known)
    if file is None:
        _require_none(path, known)
        return None
    key = SigningKey.read(file)
    require_known(connection, key.public)
    return key


def make_signing_key(ledger: str, name: str | None, file: Path, *, rotate: bool) -> str:
    """Make a signing key in a file, register it in the ledger, and return its public half, spelled out.

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
    before = SigningKey.load(file).public if file.exists() else None
    with closing(Ledger(ledger)) as book:
        key = SigningKey.generate(_name(book, name))
        _write(key, file, before, lambda: register_signing_key(book, key.public))
    return key.public.encode()


def require_no_lost_ledger(url: str, key: Path) -> None:
    """Refuse to begin new books beside the signing key of others, before any are made in their place.

    Raises:
        StartError: there is a signing key, and no ledger.
        LedgerError: what waited for the ledger's file is there without it; or the database cannot be read.
    """
    file = sqlite_file(url)
    if file is not None:
        require_whole(file)
    if not key.exists() or not _is_to_be_made(url, file):
        return
    place = file or url_without_secrets(url)
    raise StartError(
        f"there is no ledger in {place}, and {key} is the signing key of one that was: bring that back, as by "
        f"`protoken ledger restore`; where new books are meant, move {key} away or name another file by signing_key "
        "first, as members who hold a checkpoint that it signed would take them for history that was rewritten"
    )


def _is_to_be_made(url: str, file: Path | None) -> bool:
    if file is not None and not file.exists():
        return True
    with connect_unchanged(url) as connection:
        return schema.is_empty(connection, url_without_secrets(url))


def _make_first(path: Path, ledger: Ledger, name: str | None) -> None:
    with ledger.database.read() as connection:
        known = verify_keys(connection)
    if (draft := _unfinished_key(path, known)) is not None:
        _put(draft, path, replace=False)
        draft.unlink()
        return
    _require_none(path, known)
    if name is None:
        raise StartError(
            f"there is no signing key in {path} yet; `protoken keys create --signing --out {path}` makes one"
        )
    key = SigningKey.generate(name)
    _write(key, path, None, lambda: introduce(ledger, key.public))


def _require_none(path: Path, known: list[VerifyKey]) -> None:
    """Refuse to make a key where there was one: members would be told by a stranger what they earned."""
    if known:
        raise StartError(
            f"signing key {path} is missing, and the ledger is signed by {', '.join(map(str, known))}: bring the file "
            "back, or name it by signing_key (PROTOKEN_SIGNING_KEY) or --key; where it is lost, `protoken keys create "
            f"--signing --out {path}` makes a new one, which the books record and members have to be told of"
        )


def _write(key: SigningKey, file: Path, before: VerifyKey | None, register: Callable[[], None]) -> None:
    """Put a key in its place once the ledger knows it, as nothing is to be signed by one that it does not know.

    Args:
        key: the new one.
        file: its place.
        before: the key that is there and is kept aside; None where there is none.
        register: lets the ledger know the new one.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"folder {file.parent} of the signing key cannot be made: {error.strerror}") from error
    draft = _draft(file, key.public)
    try:
        key.save(draft)
        register()
        if before is not None and not (aside := file.with_name(f"{file.name}.{before.key_id}")).exists():
            aside.hardlink_to(file)
        _put(draft, file, replace=before is not None)
    except OSError as error:
        raise StartError(f"signing key {file}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)


def _draft(file: Path, key: VerifyKey) -> Path:
    return file.with_name(f"{file.name}.{key.key_id}.new")


def _unfinished_key(file: Path, known: list[VerifyKey]) -> Path | None:
    """The ledger's key where it was made and not put in its place: the process that did so was killed in between."""
    drafts = [_draft(file, key) for key in known[-1:]]
    return next((draft for draft in drafts if draft.exists()), None)


def _name(ledger: Ledger, name: str | None) -> str:
    with ledger.database.read() as connection:
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
