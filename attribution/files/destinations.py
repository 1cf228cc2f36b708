"""Where output may go: what was there before is replaced only where it is plainly an earlier one of the same kind.

A slip in a path then costs one clear line, before any work begins, and nothing of anybody's. Knows files and folders,
and no bundle: that is `replacement`.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from attribution.errors import DestinationError


def spell_out(path: Path) -> Path:
    """The same place as a path from the root without dots; a link that it is itself is not followed."""
    absolute = path.absolute()
    if ".." not in absolute.parts:
        return absolute
    return absolute.resolve() if absolute.name == ".." else absolute.parent.resolve() / absolute.name


def is_same_place(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, however they are spelled: by dots, by links, or by two names of it."""
    if one.resolve() == other.resolve():
        return True
    return one.exists() and other.exists() and one.samefile(other)


def prepare_folder(folder: Path) -> None:
    """Make sure of a folder in which files can be written; it is made with its parents where it is missing.

    Raises:
        DestinationError: it is no folder, or nothing can be written there.
    """
    require_makeable(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DestinationError(f"{folder}: the folder cannot be made: {error.strerror}") from error


def require_makeable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written, by trying in the nearest one that exists; makes nothing.

    Raises:
        DestinationError: naming what is in the way.
    """
    nearest = spell_out(folder)
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    if not nearest.is_dir():
        what = "a link that leads nowhere" if nearest.is_symlink() and not nearest.exists() else "no folder"
        raise DestinationError(f"{folder}: {nearest} is {what}; a folder is wanted there")
    try:
        with tempfile.TemporaryDirectory(dir=nearest, prefix=".protoken-"):
            pass
    except OSError as error:
        raise DestinationError(f"{folder}: nothing can be written in {nearest}: {error.strerror}") from error


def require_own_file(path: Path, is_own: Callable[[bytes], bool], kind: str) -> None:
    """Refuse to write a file over anything but an earlier one of its `kind`, as `is_own` knows from its content.

    Raises:
        DestinationError: there is a folder, a link or somebody else's file, or one that cannot be read.
    """
    if path.is_symlink():
        raise DestinationError(f"{path}: is a link; name the file itself, or remove the link")
    if not path.exists():
        return
    if not path.is_file():
        raise DestinationError(f"{path}: is no file, and {kind} is to be written there; name another")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DestinationError(f"{path}: cannot be read: {error.strerror}") from error
    if content and not is_own(content):
        raise DestinationError(f"{path}: is there and is not {kind}; name another place, or move it away")


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the whole of it, or what was there before.

    Raises:
        DestinationError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_bytes(content)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise DestinationError(f"{path}: cannot be written: {error.strerror}") from error
