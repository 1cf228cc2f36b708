"""The folder of `protoken demo`: known by its stamp, cleared of what the last demo booked, and one demo's at a time.

Knows the names of files, and nothing of what is in them.
"""

import fcntl
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from attribution.files.destinations import prepare_folder
from deployment.errors import StartError
from rewards.files.open_files import find_user

STAMP = "recipe.sha256"
"""File that only a demo writes: the hash of the recipe and data that its bundle was made from, empty until it is."""

# The signing key is its ledger's alone: with books that do not know it no service starts.
_LEDGER = ("signing.key", "ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db-journal", "ledger.db.pepper")
_FOLDERS = ("spool", "texts")
_UNFINISHED = ".building-"  # of a bundle, whose writer was killed


@contextmanager
def demo_folder(work: Path) -> Iterator[None]:
    """The folder, made where it is missing and cleared, for as long as a `with` lasts; its bundle stays.

    Raises:
        StartError: it holds something and is no demo's, whose ledger may be removed; or another demo runs there, or a
            service that was started with what a demo left.
        DestinationError: it is no folder, or nothing can be written there.
    """
    _require_demo(work)
    prepare_folder(work)
    with (work / STAMP).open("a") as stamp:
        try:
            fcntl.flock(stamp, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"{work}: another demo runs there; end it, or name another folder by --work") from None
        _require_unused(work)
        _clear(work)
        yield


def _require_demo(work: Path) -> None:
    """Refuse a folder that was not a demo's before: a service's ledger bears the same name as a demo's."""
    if not work.is_dir() or all(path.name.startswith(_UNFINISHED) for path in work.iterdir()):
        return
    stamp = work / STAMP
    if stamp.is_symlink() or not stamp.is_file() or not re.fullmatch(rb"([0-9a-f]{64})?", stamp.read_bytes()):
        raise StartError(
            f"{work}: is not empty and is no demo's folder (it holds no {STAMP}), and a demo removes ledger, spool and"
            " texts of the one before; name an empty folder, or one that is not there yet, by --work"
        )


def _require_unused(work: Path) -> None:
    """Refuse to remove what somebody books into: a demo's ledger may be served by hand, too."""
    place = work.resolve()
    user = find_user([f"{place}/{name}" for name in (*_LEDGER, *(f"{folder}/" for folder in _FOLDERS))])
    if user is not None:
        raise StartError(
            f"{work}: process {user} has the ledger, spool or texts there open, and a demo removes them; end it first, "
            "or name another folder by --work"
        )


def _clear(work: Path) -> None:
    """Remove what the last demo booked, kept and owed."""
    for name in _LEDGER:
        (work / name).unlink(missing_ok=True)
    for folder in _FOLDERS:
        shutil.rmtree(work / folder, ignore_errors=True)
