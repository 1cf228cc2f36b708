"""Files that their owner alone may read, whole and durable before anybody relies on them. Knows no content."""

from __future__ import annotations

import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

MODE = 0o600
_OTHERS = 0o077
_LOG = logging.getLogger(__name__)


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is there whole or not at all, durable on return; never over another.

    Raises:
        FileExistsError: there is one of that name.
        OSError: the system refuses.
    """
    with draft_of(path) as draft:
        with draft.open("wb") as file:
            file.write(data)
        put(draft, path)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """An empty file beside a name, to be filled and `put` there; deleted at the end, unless it was moved."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE))
    try:
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def put(draft: Path, path: Path, *, replace: bool = False) -> None:
    """Give a finished draft its name, durably: over what bears it, if that is to be replaced.

    Raises:
        FileExistsError: there is a file of that name, and it is not to be replaced.
        OSError: the system refuses.
    """
    sync(draft)  # first its content: a name must never lead to half of it
    if replace:
        draft.replace(path)
    else:
        path.hardlink_to(draft)
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file's content, or the names in a folder, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def tighten(path: Path) -> None:
    """Take a file away from everybody's eyes but its owner's, and say so; where that is not ours to do, warn, once."""
    try:
        if (mode := mode_for_others(path)) is not None:
            path.chmod(MODE)
            _LOG.warning("%s could be read by others (mode %o); it is its owner's alone now", path, mode)
    except FileNotFoundError:
        return
    except OSError as error:
        _warn(path, error.strerror or str(error))


def mode_for_others(path: Path) -> int | None:
    """The mode of a file that is open to others than its owner; None where it is not, or is no file."""
    mode = path.stat().st_mode
    if stat.S_ISREG(mode) and mode & _OTHERS:  # a folder, mistaken for a file, is nobody's to close
        return stat.S_IMODE(mode)
    return None


@cache  # a key is loaded for every statement
def _warn(path: Path, why: str) -> None:
    _LOG.warning("%s can be read by others, and that cannot be changed here (%s): chmod 600", path, why)
