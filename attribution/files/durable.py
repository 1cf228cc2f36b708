"""That what was written is on the disk. Knows no format."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Return once what was written to a file or a folder is on the disk.

    Raises:
        OSError: it cannot be opened, or the disk does not take it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
