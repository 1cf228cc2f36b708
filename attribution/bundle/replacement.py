"""Putting a finished bundle where it belongs: in the place of nothing, of an empty folder, or of an older bundle.

Everything else is somebody's and is refused: a service's folder in which a bundle's file lies, too. Does not know how a
bundle is made, nor whether the older one is sound: a damaged one may be replaced.
"""

import ctypes
import errno
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from attribution.bundle.bundle import manifest_of
from attribution.bundle.manifest import MANIFEST_NAME
from attribution.errors import BundleError, DestinationError
from attribution.files.destinations import require_makeable, spell_out
from attribution.files.durable import sync

_FOLDERS = {"global", "clients"}
_MODEL_FILE = re.compile(
    r"config\.json|generation_config\.json|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json"
    r"|(tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json"
    r"|chat_template\.jinja|tokenizer\.model|(vocab|merges)\.txt"
)
_CLIENT_FILES = {"update.safetensors", "last_round.safetensors"}
_CURRENT_FOLDER, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


def require_bundle_place(target: Path, base: str | None = None, consortium: str | None = None) -> None:
    """Refuse a place where a bundle cannot be written without a loss, or at all.

    To be asked before hours of training, and again before the older bundle goes.

    Args:
        target: where the bundle is to be.
        base: reference of the base model that it is made from, which must not go with an older bundle.
        consortium: whose bundle it is to be: an older one of the same is replaced, another's never.

    Raises:
        DestinationError: naming what is there.
    """
    place = spell_out(target)
    if place.is_symlink():
        raise DestinationError(f"{target}: is a link; name the folder that it is to lead to")
    if place.exists() and not place.is_dir():
        raise DestinationError(f"{target}: is no folder; a bundle is one, and takes no other's place")
    if place.is_mount():
        raise DestinationError(f"{target}: is where a disk is mounted and cannot be replaced; name a folder within it")
    require_makeable(place.parent)
    scheme, _, folder = (base or "").partition(":")
    if scheme == "path" and Path(folder).expanduser().resolve().is_relative_to(place.resolve()):
        raise DestinationError(
            f"{target}: the base model {base!r} lies in it, and would go with it; name another place"
        )
    if place.is_dir() and any(place.iterdir()):
        _require_nothing_else(target, consortium)


def put_in_place(finished: Path, target: Path) -> None:
    """Put a finished folder where `target` is; who looks there finds the older one or this one, after a crash, too.

    What was in `target` is where `finished` was, for the caller to remove. Whoever holds its files open keeps them.

    Raises:
        DestinationError: something else came to `target` meanwhile.
        OSError: the system cannot rename here; the older folder is where it was.
    """
    _sync(finished)
    place = spell_out(target)
    require_bundle_place(place)
    if not place.exists() or not any(place.iterdir()):
        finished.rename(place)  # the system itself refuses a folder that is not empty by now
    elif not _exchange(finished, place):
        _put_aside_and_rename(finished, place)
    sync(place.parent)


def _require_nothing_else(folder: Path, consortium: str | None) -> None:
    if not os.path.lexists(folder / MANIFEST_NAME):
        raise DestinationError(
            f"{folder}: is not empty and holds no bundle ({MANIFEST_NAME} is missing);"
            " name a folder that is empty or not there yet"
        )
    try:
        manifest = manifest_of(folder)
    except BundleError as error:
        raise DestinationError(f"{error}; so it is not replaced: name another folder, or remove it yourself") from error
    if consortium not in (None, manifest.consortium):
        raise DestinationError(
            f"{folder}: holds the bundle of consortium {manifest.consortium!r}, which one of {consortium!r} does not "
            "replace; name another folder, or remove it yourself"
        )
    clients = {client.id for client in manifest.clients}
    for path in _others(folder, clients):
        raise DestinationError(
            f"{folder}: holds {path.relative_to(folder)}, which is no part of a bundle and would be lost;"
            " name another folder, or move it away"
        )


def _others(folder: Path, clients: set[str]) -> Iterator[Path]:
    """What lies in a bundle's folder and is none of its files, or no plain file or folder."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_symlink():
            yield path
        elif path.is_dir():
            if not (
                parts in {(name,) for name in _FOLDERS}
                or (parts[0] == "clients" and parts[1:] in {(c,) for c in clients})
            ):
                yield path
        elif not path.is_file() or not _is_part(parts, clients):
            yield path


def _is_part(parts: tuple[str, ...], clients: set[str]) -> bool:
    match parts:
        case (name,):
            return name == MANIFEST_NAME
        case ("global", name):
            return _MODEL_FILE.fullmatch(name) is not None
        case ("clients", client, name):
            return client in clients and name in _CLIENT_FILES
    return False


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step, where the system can: Linux, on most of its file systems."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(_CURRENT_FOLDER, os.fsencode(one), _CURRENT_FOLDER, os.fsencode(other), _EXCHANGE) == 0:
        return True
    error = ctypes.get_errno()
    if error in {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP}:
        return False
    raise OSError(error, os.strerror(error), str(other))


def _put_aside_and_rename(finished: Path, place: Path) -> None:
    """The same in two steps: between them the older folder lies beside, under a name that begins with its own."""
    aside = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}-replaced-")) / place.name
    place.rename(aside)
    try:
        finished.rename(place)
    except BaseException:
        aside.rename(place)
        aside.parent.rmdir()
        raise
    aside.rename(finished)
    aside.parent.rmdir()


def _sync(folder: Path) -> None:
    """Make all of a folder durable: a name that outlived its content would be a bundle that is lost."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
