"""Which process has a file open: what somebody is at work with is not to be taken away. Knows no content.

Linux alone tells (https://man7.org/linux/man-pages/man5/proc.5.html), and of others' processes to nobody but root.
"""

from collections.abc import Collection
from pathlib import Path

GONE = " (deleted)"
"""What ends the name of an open file that lost it."""


def find_user(names: Collection[str]) -> int | None:
    """A process that has a file of one of these names open; None where none does, or the system does not tell.

    Args:
        names: whole paths without links, those of files that are gone with `GONE` behind them; one that ends in a
            slash stands for all that lies in the folder.
    """
    folders = tuple(name for name in names if name.endswith("/"))
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            name = str(entry.readlink())
        except OSError:  # it ended, or is somebody else's
            continue
        if name in names or name.startswith(folders):
            return int(entry.parts[2])
    return None
