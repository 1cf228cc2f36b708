"""Texts of finished responses, kept for a while on this disk so that a request that is repeated gets the same answer.

Only where the application sent an `Idempotency-Key`. Pieces of text and the end of a response, no prompts; gone when
their time is over. Knows no HTTP and no ledger.
"""

import json
import logging
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployment.errors import SpoolError
from deployment.messages import Finished, Summary, TokenCredit
from deployment.spool.files import make_folder, reason, write_whole

__all__ = ["Replay", "Replays"]

_LOG = logging.getLogger(__name__)
_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")
_SWEEPS_IN_A_WINDOW = 10  # so a text goes at most a tenth of its time too late


@dataclass(frozen=True)
class Replay:
    """A response as it was sent: when it was asked for, its text in the pieces it came in, and its end."""

    created_at_us: int
    pieces: tuple[str, ...]
    end: Finished


class Replays:
    """A folder with a file for each response; usable from several threads.

    Args:
        folder: is made when it is missing; only its owner may enter.
        window_s: how long a response is kept, in seconds. A file whose time is over is deleted soon after.

    Raises:
        SpoolError: the folder cannot be made.
    """

    def __init__(self, folder: Path, window_s: float) -> None:
        try:
            make_folder(folder)
        except OSError as error:
            raise SpoolError(f"replay folder {folder} cannot be used: {reason(error)}") from error
        self.window_s = window_s
        self._folder = folder
        self._lock = threading.Lock()
        self._is_sweeping = False
        self._sweep_later(0)

    def keep(self, response_id: str, replay: Replay) -> None:
        """Keep a response; durable on return.

        Raises:
            SpoolError: the disk refuses; nothing is kept.
        """
        path = self._path(response_id)
        data = json.dumps(asdict(replay), separators=(",", ":")).encode()
        try:
            write_whole(path, data)
        except OSError as error:
            raise SpoolError(f"{path} cannot be written: {reason(error)}") from error
        self._sweep_later(self.window_s / _SWEEPS_IN_A_WINDOW)

    def find(self, response_id: str) -> Replay | None:
        """A response whose time is not over, or None."""
        path = self._path(response_id)
        try:
            if time.time() - path.stat().st_mtime > self.window_s:
                return None
            return _read(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            _LOG.error("%s cannot be read: %s", path, error)
            return None

    def _path(self, response_id: str) -> Path:
        assert _NAME.fullmatch(response_id), f"{response_id!r} is no response id of this service"
        return self._folder / f"{response_id}.json"

    def _sweep_later(self, seconds: float) -> None:
        """Sweep from a thread of its own, again and again while something is kept, whether or not anybody calls."""
        with self._lock:
            if self._is_sweeping:
                return
            self._is_sweeping = True
        timer = threading.Timer(seconds, self._sweep)
        timer.daemon = True
        timer.start()

    def _sweep(self) -> None:
        """Delete what is over; what another process deletes meanwhile does not matter."""
        over = time.time() - self.window_s
        left = False
        for path in self._folder.glob("*"):
            try:
                if path.stat().st_mtime < over:
                    path.unlink()
                else:
                    left = True
            except FileNotFoundError:
                continue
            except OSError as error:
                _LOG.error("%s, whose time is over, cannot be deleted: %s", path, reason(error))
        with self._lock:
            self._is_sweeping = False
        if left:
            self._sweep_later(self.window_s / _SWEEPS_IN_A_WINDOW)


def _read(fields: Mapping[str, Any]) -> Replay:
    end = fields["end"]
    return Replay(
        created_at_us=fields["created_at_us"],
        pieces=tuple(fields["pieces"]),
        end=Finished(
            **{
                **end,
                "summary": Summary(**end["summary"]),
                "tokens": tuple(TokenCredit(**token) for token in end["tokens"]),
            }
        ),
    )
