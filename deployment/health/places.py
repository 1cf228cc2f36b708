"""What a service keeps beside its ledger: the folder of its spool, and its signing key. Knows files, and no thread."""

import fcntl
import os
import tempfile
from hashlib import sha256
from pathlib import Path

from deployment.errors import StartError
from deployment.spool.files import make_folder, reason, sync_folder
from rewards.ledger.ledger import Ledger
from rewards.log.sealer import introduce, latest_checkpoint, require_known, verify_keys
from rewards.signing.keys import SigningKey
from rewards.store import clients, events
from rewards.store.database import Connection
from rewards.store.presence import require_whole
from rewards.store.url import sqlite_file


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


def signing_key(path: Path, ledger: Ledger, name: str | None = None) -> SigningKey:
    """The key that signs checkpoints and statements of a ledger; its first is made under `name`, where that is given.

    Raises:
        SignatureError: the file holds no signing key, or another ledger's, or cannot be read or written.
        StartError: the file is missing although the ledger has a key, or where none is to be made; or its folder cannot
            be made.
    """
    if not path.exists():
        with ledger.database.read() as connection:
            _require_none(path, connection)
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


def find_signing_key(path: Path, connection: Connection) -> SigningKey | None:
    """The same key by a look at file and ledger, which stay as they are; None where there is none in either.

    Raises:
        SignatureError, StartError: as of `signing_key`.
    """
    if not path.exists():
        _require_none(path, connection)
        return None
    key = SigningKey.read(path)
    require_known(connection, key.public)
    return key


def _require_none(path: Path, connection: Connection) -> None:
    """Refuse to make a key where there was one: members would be told by a stranger what they earned."""
    known = verify_keys(connection)
    if known:
        raise StartError(
            f"signing key {path} is missing, and the ledger is signed by {', '.join(map(str, known))}: bring the file "
            "back, or name it by signing_key (PROTOKEN_SIGNING_KEY) or --key; where it is lost, `protoken keys create "
            f"--signing --out {path}` makes a new one, which the books record and members have to be told of"
        )


def require_no_lost_ledger(url: str, key: Path) -> None:
    """Refuse to begin new books where only the ledger's file is gone: its key would sign a second history by its name.

    Whoever makes a signing key makes the ledger too, so that a key without one is what was left of it.

    Raises:
        StartError: there is a signing key, and no ledger where an SQLite file is named.
        LedgerError: what waited for the ledger's file is there without it.
    """
    file = sqlite_file(url)
    if file is None or file.exists():
        return
    require_whole(file)
    if not key.exists():
        return
    raise StartError(
        f"there is no ledger {file}, and {key} is the signing key of one that was: bring the file back, as by "
        f"`protoken ledger restore`; where new books are meant, move {key} away first, as members who hold a "
        "checkpoint that it signed would take them for history that was rewritten"
    )


def log_origin(ledger: Ledger, key: SigningKey) -> str:
    """The name under which the ledger's log is sealed: for ever the one of the first seal, which is the key's."""
    with ledger.database.read() as connection:
        last = latest_checkpoint(connection)
    return key.name if last is None else last.origin
