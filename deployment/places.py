"""What a service keeps beside its ledger: the folder of its spool, and its signing key. Knows files, and no thread."""

from hashlib import sha256
from pathlib import Path

from deployment.errors import StartError
from rewards import Ledger, clients, events
from rewards.sealing import introduce, latest_checkpoint, verify_keys
from rewards.signing import SigningKey

__all__ = ["ledger_folder", "log_origin", "signing_key"]


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
