"""A folder as the service would use it: there or makeable, private, with room, and on which kind of disk."""

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path

from deployment.cli.doctor.findings import require_no
from deployment.health.places import refused_folder, try_folder
from deployment.spool.files import word_of_others

_GIB = 2**30
ROOM_BYTES = _GIB
"""Free space below which a disk will soon be full: receipts and texts of a busy day take less."""
_OF_A_NETWORK = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "glusterfs", "lustre", "afs", "9p", "fuse.sshfs"}
_OF_MEMORY = {"tmpfs", "ramfs"}


def look_at_folder(setting: str, path: Path) -> str:
    """A folder that a setting names.

    Raises:
        StartError: it cannot be used, or made.
        DoubtError: others may look into it, its disk is nearly full, or is none of this machine's.
    """
    nearest = nearest_of(path)
    try:
        try_folder(nearest)
    except OSError as error:
        raise refused_folder(path, setting, error) from error
    is_there = path.is_dir()
    word = word_of_others(path) if is_there else None
    require_no([*([] if word is None else [word]), *disk_doubts(nearest)])
    return f"{path} can be {'written, locked and synced' if is_there else 'made when it is first needed'}"


def nearest_of(path: Path) -> Path:
    """The path itself, or what there is of the way to it."""
    while not os.path.lexists(path):
        path = path.parent
    return path


def disk_doubts(folder: Path) -> Iterable[str]:
    """What is doubtful of the disk on which a folder lies."""
    free = shutil.disk_usage(folder).free
    if free < ROOM_BYTES:
        yield f"{folder} has {free / _GIB:.2f} GiB free on its disk; at least {ROOM_BYTES / _GIB:g} would be right"
    kind = _kind_of_disk(folder)
    if kind in _OF_A_NETWORK:
        yield f"{folder} is on a network disk ({kind}), whose locks and fsync may be none: a local disk would be right"
    if kind in _OF_MEMORY:
        yield f"{folder} is in memory ({kind}), and lost with this machine: a local disk would be right"


def _kind_of_disk(folder: Path) -> str:
    """The kind of the file system, as Linux tells it; empty where it does not."""
    device = folder.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    kinds = [line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == name]
    return kinds[-1] if kinds else ""


def mode_doubts(path: Path, mode: int | None) -> Iterable[str]:
    """What is doubtful of a file that is its owner's alone, by its mode for others."""
    if mode is not None:
        yield f"{path} can be read by others (mode {stat.S_IMODE(mode):o}): chmod 600"
