"""What a service keeps beside its ledger: the folder of its spool, and its signing key. Knows files, and no thread."""

import os
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

from deployment.errors import StartError
from deployment.spool.files import make_folder, open_locked, reason, sync_folder, write_all
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import introduce, latest_checkpoint, verify_keys
from rewards.signing.keys import SigningKey
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
    probe = path / f".probe-{uuid4().hex}"
    try:
        make_folder(path)
        fd = open_locked(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            if fd is not None:
                write_all(fd, b"probe")
                os.fsync(fd)
        finally:
            if fd is not None:
                os.close(fd)
            probe.unlink(missing_ok=True)
        sync_folder(path)
    except OSError as error:
        raise StartError(
            f"{setting} {path} cannot be used: {reason(error)}; name a folder on a local disk that can be written, "
            f"locked and synced, by {setting} or PROTOKEN_{setting.upper()}"
        ) from error


def signing_key(path: Path, ledger: Ledger, name: str | None = None) -> SigningKey:
    """The key that signs checkpoints and statements of a ledger; its first is made under `name`, where that is given.

    Raises:
        SignatureError: the file holds no signing key, or another ledger's, or cannot be read or written.
        StartError: the file is missing although the ledger has a key, or where none is to be made; or its folder cannot
            be made.
    """
    if not path.exists():
        _require_none(path, ledger)
        if name is None:
            make = f"`protoken keys create --signing --out {path}` makes one"
            raise StartError(f"there is no signing key in {path} yet; {make}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(f"folder {path.parent} of the signing key cannot be made: {error.strerror}") from error
        SigningKey.generate(name).save(path)
    key = SigningKey.load(path)
    introduce(ledger, key.public)
    return key


def _require_none(path: Path, ledger: Ledger) -> None:
    """Refuse to make a key where there was one: members would be told by a stranger what they earned."""
    with ledger.database.read() as connection:
        known = verify_keys(connection)
    if known:
        raise StartError(
            f"signing key {path} is missing, and the ledger is signed by {', '.join(map(str, known))}: bring the file "
            "back, or name it by signing_key (PROTOKEN_SIGNING_KEY) or --key; where it is lost, `protoken keys create "
            f"--signing --out {path}` makes a new one, which the books record and members have to be told of"
        )


def log_origin(ledger: Ledger, key: SigningKey) -> str:
    """The name under which the ledger's log is sealed: for ever the one of the first seal, which is the key's."""
    with ledger.database.read() as connection:
        last = latest_checkpoint(connection)
    return key.name if last is None else last.origin
