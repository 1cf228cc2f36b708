"""Files that survive a crash, and locks that do not: what the spool needs of the operating system."""

import fcntl
import logging
import os
import stat
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

_NAMES_TRIED = 8

_LOG = logging.getLogger(__name__)
_OTHERS = 0o077


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, durably, with the folders above it, which are made likewise.

    One that is there already stays as it is, since it may be more than ours; that others may look into it is told.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)
    folder.mkdir(exist_ok=True)  # raises where it is something else
    if (word := word_of_others(folder)) is not None:
        _LOG.warning("%s", word)


def word_of_others(folder: Path) -> str | None:
    """What is said of a folder that others than its owner may enter or list; None of one that they may not."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & _OTHERS:
        return None
    return f"others may look into folder {folder} (mode {mode:o}), where responses are kept: chmod 700"


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """Write all bytes, however few the system takes at a time."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def append_durably(path: Path, data: bytes) -> None:
    """Add to a file that its owner alone may read, all of it or nothing; durable on return."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    size = os.fstat(fd).st_size
    try:
        write_all(fd, data)
        os.fsync(fd)
    except OSError:
        with suppress(OSError):
            os.ftruncate(fd, size)
        raise
    finally:
        os.close(fd)
    sync_folder(path.parent)


def write_whole(path: Path, data: bytes) -> None:
    """A file that is there whole or not at all, readable by its owner alone, and durable on return."""
    fresh = path.with_name(f"{path.name}.tmp")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, data)
        os.fsync(fd)
        fresh.replace(path)
    except OSError:
        with suppress(OSError):
            fresh.unlink()
        raise
    finally:
        os.close(fd)
    sync_folder(path.parent)


def open_locked(path: Path, flags: int) -> int | None:
    """A descriptor that holds the lock of the file that bears the name; the lock ends when it is closed.

    None when somebody else holds it, or the name went to another file before the lock was there.
    """
    fd = os.open(path, flags, 0o600)
    held = False
    try:
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(fd), path.stat())
    finally:
        if not held:
            os.close(fd)
    return fd if held else None


def create_locked(folder: Path) -> tuple[Path, int]:
    """A new file, locked. Whoever adopts it between the two steps gets an empty file, and another name is tried."""
    for _ in range(_NAMES_TRIED):
        path = folder / f"spool-{uuid4().hex}.jsonl"
        fd = open_locked(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        if fd is not None:
            return path, fd
    raise OSError(f"each of {_NAMES_TRIED} new files was adopted before it could be locked")


def fresh_name(path: Path) -> Path:
    """Where a file is compacted to; no name that is adopted."""
    return path.with_name(f"{path.name}.tmp")


def reason(error: OSError) -> str:
    """Why the system refused, in its own words."""
    return error.strerror or str(error)
