"""The two secrets of a service: there or makeable, their owner's alone, and those of its ledger."""

from pathlib import Path

from deployment.cli.doctor.findings import require_no
from deployment.cli.doctor.folders import mode_doubts, nearest_of
from deployment.health.places import refused_folder, try_folder
from deployment.health.signing_key import find_signing_key
from rewards.files.private_files import mode_for_others
from rewards.keys import pepper
from rewards.signing.keys import SigningKey
from rewards.store.database import connect_unchanged


def look_at_pepper(path: Path, ledger: str | None) -> str:
    """The file by which keys are hashed.

    Args:
        path: of the file.
        ledger: its URL; None where none can be read.

    Raises:
        KeyRingError: it is missing although the ledger has keys, cannot be read, or is none.
        StartError: it cannot be made.
        DoubtError: others may read it.
    """
    if pepper.read(path) is not None:
        require_no([*mode_doubts(path, mode_for_others(path))])
        return f"{path} holds {pepper.PEPPER_BYTES} bytes"
    if ledger is not None:
        with connect_unchanged(ledger) as connection:
            if pepper.has_valid_keys(connection):
                raise pepper.absence_of(path)
    return _look_at_place(path, "pepper_file")


def look_at_signing_key(path: Path, ledger: str | None) -> str:
    """The file by which checkpoints and statements are signed; arguments as of the pepper.

    Raises:
        SignatureError: it holds no key, or another ledger's.
        StartError: it is missing although the ledger is signed, or cannot be made.
        DoubtError: others may read it.
    """
    if ledger is not None:
        with connect_unchanged(ledger) as connection:
            key = find_signing_key(path, connection)
    else:
        key = SigningKey.read(path) if path.exists() else None
    if key is None:
        return _look_at_place(path, "signing_key")
    require_no([*mode_doubts(path, mode_for_others(path))])
    return f"{path} signs as {key.public}"


def _look_at_place(path: Path, setting: str) -> str:
    try:
        try_folder(nearest_of(path))
    except OSError as error:
        raise refused_folder(path, setting, error) from error
    return f"{path} is not there yet: it is made when it is first needed"
