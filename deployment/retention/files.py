"""A folder whose files are kept for a while: written whole, for their owner alone, and deleted when their time is over.

Knows no content: what a file holds is a document of whoever keeps it.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from deployment.errors import SpoolError
from deployment.spool.files import make_folder, reason, write_whole
from rewards.files import private_files

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")
_OURS = re.compile(rf"(chatcmpl|cmpl)-{_NAME.pattern}\.json(\.tmp)?")  # whole, or half written when a process died
_SWEEPS_IN_A_WINDOW = 10
_LONGEST_PAUSE_S = 3600.0  # so a file goes at most a tenth of its time too late, and at most an hour

_Kept = TypeVar("_Kept")


class KeptFiles:
    """A folder with a JSON file for each response; usable from several threads.

    Args:
        folder: is made when it is missing; only its owner may enter. What else lies in it is left alone.
        window_s: how long a file is kept, in seconds; it is deleted soon after.

    Raises:
        SpoolError: the folder cannot be made.
    """

    def __init__(self, folder: Path, window_s: float) -> None:
        try:
            make_folder(folder)
        except OSError as error:
            raise SpoolError(f"folder {folder} cannot be used: {reason(error)}") from error
        self.window_s = window_s
        self._folder = folder
        self._pause_s = min(window_s / _SWEEPS_IN_A_WINDOW, _LONGEST_PAUSE_S)
        self._lock = threading.Lock()
        self._is_sweeping = False
        self._is_kept_meanwhile = False  # something that a sweep under way may not have seen
        self._sweep_later(0)

    def keep(self, response_id: str, document: Mapping[str, Any]) -> None:
        """Keep a document, which is plain JSON, of a response of this service; durable on return.

        Raises:
            SpoolError: the disk refuses; nothing is kept.
        """
        assert _NAME.fullmatch(response_id), f"{response_id!r} is no response id of this service"
        path = self._folder / f"{response_id}.json"
        try:
            write_whole(path, json.dumps(document, separators=(",", ":")).encode())
        except OSError as error:
            raise SpoolError(f"{path} cannot be written: {reason(error)}") from error
        self._sweep_later(self._pause_s)

    def find(self, response_id: str, read: Callable[[Any], _Kept]) -> _Kept | None:
        """What `read` makes of a response's document; None when there is none, or its time is over.

        A file that cannot be read is reported, and counts as none.
        """
        return find_kept(self._folder, self.window_s, response_id, read)

    def _sweep_later(self, seconds: float) -> None:
        """Sweep from a thread of its own, again and again while something is kept, whether or not anybody calls."""
        with self._lock:
            if self._is_sweeping:
                self._is_kept_meanwhile = True
                return
            self._is_sweeping = True
        timer = threading.Timer(seconds, self._sweep)
        timer.daemon = True
        timer.start()

    def _sweep(self) -> None:
        """Delete what is over, and come again while anything is left, or where the folder could not be read."""
        left = True
        with self._lock:
            self._is_kept_meanwhile = False
        try:
            left = self._delete_what_is_over()
        except OSError as error:
            _LOG.error("what is over in %s cannot be deleted now: %s", self._folder, reason(error))
        finally:
            with self._lock:
                self._is_sweeping = False
                left = left or self._is_kept_meanwhile
            if left:
                self._sweep_later(self._pause_s)

    def _delete_what_is_over(self) -> bool:
        """Whether anything is left; what another process deletes meanwhile does not matter."""
        left = False
        for path in self._folder.iterdir():
            if _OURS.fullmatch(path.name) is None:  # the folder of somebody who named one that is in use already
                continue
            try:
                if _is_over(path, self.window_s):
                    path.unlink()
                else:
                    private_files.tighten(path)  # brought back by somebody's copy, say
                    left = True
            except FileNotFoundError:
                continue
            except OSError as error:
                left = True
                _LOG.error("%s, whose time is over, cannot be deleted: %s", path, reason(error))
        return left


def find_kept(folder: Path, window_s: float, response_id: str, read: Callable[[Any], _Kept]) -> _Kept | None:
    """What `read` makes of a response's document in a folder; makes and deletes nothing.

    Args:
        folder: as `KeptFiles` fills it.
        window_s: how long a file counts, in seconds.
        response_id: whatever somebody gave as one.
        read: raises ValueError, KeyError, TypeError or AttributeError where the document is none.
    """
    if not _NAME.fullmatch(response_id):
        return None
    path = folder / f"{response_id}.json"
    try:
        if _is_over(path, window_s):
            return None
        return read(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _LOG.error("%s cannot be read: %s", path, error)
        return None


def _is_over(path: Path, window_s: float) -> bool:
    """Whether a file's time is over; one from a future that far away was written under another clock."""
    return abs(time.time() - path.stat().st_mtime) > window_s
