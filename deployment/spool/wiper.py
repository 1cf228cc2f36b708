"""Token ids go from the disk once they are not needed: lines are overwritten where they stand, files before they go.

What is kept aside for somebody to look at holds none from the first. Overwritten is the file, as far as the system lets
it: copies that a snapshot, a backup or the disk itself made are beyond reach. Knows which fields of a record hold
tokens.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from deployment.spool.files import fresh_name, reason, write_all, write_whole
from deployment.spool.lines import Live, Record, SpoolContents, document_of, is_wiped, wiped_line

_LOG = logging.getLogger(__name__)
_BLOCK: Final = bytes(2**16)
_TOKENS: Final = ("prompt_ids", "token_ids")
_TELLING: Final = (
    "response_id",
    "application",
    "created_at_us",
    "consortium",
    "model_sha256",
    "temperature",
    "duration_us",
)
_NUMBERS: Final = re.compile(rb"\d\s*,\s*\d")
_TRACE: Final = b"a line that held tokens, or was damaged: "


class Wiper:
    """Knows where in a spool's file the tokens of which ids stand, and writes over them.

    Raises:
        OSError: the file cannot be opened for that.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY)  # where the spool's own descriptor only appends
        self._places: dict[str, list[tuple[int, int]]] = {}  # id -> offset and length of its lines that hold tokens

    def note(self, name: str, at: int, length: int) -> None:
        """A line that holds tokens of an id stands there."""
        self._places.setdefault(name, []).append((at, length))

    def wipe(self, names: Collection[str], live: Live) -> None:
        """Write over the tokens of ids, but for the last of those whose progress is live."""
        for name in names:
            places = self._places.pop(name, [])
            if places and name in live.lines and name not in live.receipts:
                self._places[name] = [places.pop()]
            self._wipe(name, places)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def leave(self) -> None:
        """Write over all that is left, as the file's live lines stand in another one now, and let go of it."""
        for name, places in self._places.items():
            self._wipe(name, places)
        self.close()

    def _wipe(self, name: str, places: Sequence[tuple[int, int]]) -> None:
        try:
            for at, length in places:
                _overwrite(self._fd, at, wiped_line(name, length - 1))
        except OSError as error:
            _LOG.warning("%s: tokens of %r stay in the file for now: %s", self._path, name, reason(error))


def erase(path: Path) -> None:
    """Overwrite a file and delete it; one that is not there does not matter, and one that stays is logged."""
    try:
        fd = os.open(path, os.O_WRONLY)
    except FileNotFoundError:
        return
    except OSError as error:
        _LOG.warning("%s cannot be overwritten: %s", path, reason(error))
    else:
        try:
            with suppress(OSError):
                for _ in range(0, os.fstat(fd).st_size, len(_BLOCK)):
                    write_all(fd, _BLOCK)
        finally:
            os.close(fd)
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("%s cannot be deleted: %s", path, reason(error))


def retire(path: Path, contents: SpoolContents) -> Path:
    """Delete a file whose live records are safe elsewhere, or keep it aside when it is damaged; where it is now."""
    if contents.torn:
        _LOG.warning("%s: the last line was cut by a crash before it was promised; dropped", path)
    erase(fresh_name(path))
    if not contents.damaged_lines:
        erase(path)
        return path
    aside = path.with_name(f"{path.name}.damaged")
    write_whole(aside, without_tokens_in_lines(path.read_bytes()))
    erase(path)
    _LOG.error("%s: damaged lines %s; the good ones are adopted, the file is kept", aside, contents.damaged_lines)
    return aside


def without_tokens(record: Record) -> Record:
    """A record as it may be kept: of a stream's progress whose and how long it was, and none of its tokens."""
    if record.get("kind") != "progress":
        return dict(record)
    progress = record.get("progress")
    fields = progress if isinstance(progress, Mapping) else {}
    kept = {
        name: value
        for name in _TELLING
        if isinstance(value := fields.get(name), str | int | float) and len(str(value)) < 200
    }
    counts = {
        f"{name.removesuffix('_ids')}_count": len(value)
        for name in _TOKENS
        if isinstance(value := fields.get(name), list | tuple)
    }
    return {"id": record.get("id"), "kind": "progress", "progress": {**kept, **counts}}


def without_tokens_in_lines(data: bytes) -> bytes:
    """A spool file as it may be kept: of a line that holds tokens, or may, its length and hash; the rest as it is."""
    return b"\n".join(line if _is_free_of_tokens(line) else _trace(line) for line in data.split(b"\n"))


def keep_no_tokens(folder: Path) -> None:
    """Take the tokens out of what earlier versions kept aside in a spool's folder."""
    for path in (*folder.glob("spool-*.damaged"), *folder.glob("refused-*.jsonl")):
        name = path.name.removeprefix("refused-").removesuffix(".jsonl")
        if path.suffix == ".jsonl" and (folder / f"spool-{name}.jsonl").exists():
            continue  # whoever writes it lives
        try:
            data = path.read_bytes()
            kept = without_tokens_in_lines(data) if path.suffix == ".damaged" else _refused_without_tokens(data)
            if kept != data:
                moved = path.with_name(f"{path.name}.old")
                path.rename(moved)
                write_whole(path, kept)
                erase(moved)
        except OSError as error:
            _LOG.error("%s may hold tokens of prompts and cannot be cleared of them: %s", path, reason(error))


def _overwrite(fd: int, at: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(fd, view, at)
        view, at = view[count:], at + count


def _is_free_of_tokens(line: bytes) -> bool:
    if not line or is_wiped(line) or line.startswith(_TRACE):
        return True
    document = document_of(line)
    if document is not None:
        return document.get("kind") in {"receipt", "done"}
    return b'"kind":"receipt"' in line and not _NUMBERS.search(line)


def _trace(line: bytes) -> bytes:
    return b"%s%d bytes, sha256 %s" % (_TRACE, len(line), hashlib.sha256(line).hexdigest().encode())


def _refused_without_tokens(data: bytes) -> bytes:
    lines = []
    for line in data.split(b"\n"):
        try:
            document = json.loads(line)
            record = document["record"]
            kept = record if record.get("kind") != "progress" or _is_kept(record) else without_tokens(record)
            lines.append(line if kept is record else json.dumps({**document, "record": kept}).encode())
        except (ValueError, KeyError, TypeError, AttributeError):
            lines.append(line if _is_free_of_tokens(line) else _trace(line))
    return b"\n".join(lines)


def _is_kept(record: Mapping[str, Any]) -> bool:
    progress = record.get("progress")
    return isinstance(progress, Mapping) and not progress.keys() & set(_TOKENS)
