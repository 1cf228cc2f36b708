"""The local, fsynced queue of a replica: what was generated but is not in the ledger yet, safe from a crash.

Each process writes a file of its own and holds a lock on it for life; the kernel lets go of the lock when the process
dies, and whoever starts next adopts the file. One line per write: `<crc32, 8 hex digits> <canonical JSON>`. Knows no
ledger, no model and no HTTP; of a record it reads `id` and `kind`, the rest is the caller's.
"""

import fcntl
import json
import logging
import os
import threading
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from deployment.errors import SpoolError

__all__ = [
    "COMPACT_BYTES",
    "Adopted",
    "Record",
    "Spool",
    "document_of",
    "line_of",
    "make_folder",
    "open_locked",
    "sync_folder",
    "write_all",
]

_LOG = logging.getLogger(__name__)
COMPACT_BYTES = 8 * 2**20
"""A file larger than this is compacted once more than half of it is dead."""
_EMPTY_BYTES = 64 * 2**10  # a file larger than this is compacted once nothing in it is live
_CRC_BYTES = 9  # eight hex digits and a space
_NAMES_TRIED = 8

Record = Mapping[str, Any]
"""A JSON object with `id` (the response's) and `kind` (`progress` or `receipt`)."""


@dataclass(frozen=True)
class Adopted:
    """What was found in the file of a dead process.

    Attributes:
        path: the file; gone now, or its new name when it was damaged and is kept aside.
        records: what was live in it, now in the own spool too.
        damaged_lines: numbers of the lines that cannot be read, from 1.
        torn: the last line was cut by the crash and dropped; its append never returned.
    """

    path: Path
    records: tuple[Record, ...]
    damaged_lines: tuple[int, ...]
    torn: bool


class Spool:
    """A file of live records, used from several threads.

    Raises:
        SpoolError: the folder or the file cannot be made; names it and the reason.
    """

    def __init__(self, folder: Path) -> None:
        try:
            make_folder(folder)
            self.path, self._fd = _create(folder)
        except OSError as error:
            raise SpoolError(f"spool folder {folder} cannot be used: {_reason(error)}") from error
        self._lock = threading.Lock()
        self._closed = False
        self._live = _Live()
        self._bytes = 0
        self._named = False  # whether the folder durably lists the file
        self._no_compaction_below = 0

    def __len__(self) -> int:
        return len(self._live.lines)

    @property
    def bytes(self) -> int:
        """Length of the file, dead lines included."""
        return self._bytes

    def live(self) -> list[Record]:
        """The records that the ledger does not have yet, in the order in which their ids first appeared."""
        with self._lock:
            return self._live.records()

    def append(self, records: Sequence[Record]) -> None:
        """Write records in one write and one fsync; they are durable when this returns.

        A later record of an id replaces the earlier one, but progress never replaces a receipt.

        Raises:
            SpoolError: a record is malformed (the field is named), the disk refuses (file and reason are named), or
                the spool is closed. The file and the live records are then as they were.
        """
        if not records:
            return
        for record in records:
            _check(record)
        lines = [line_of(record) for record in records]
        with self._lock:
            self._check_open()
            try:
                self._write(b"".join(lines), durable=True)
            except OSError as error:
                raise SpoolError(f"{self.path} cannot be written: {_reason(error)}") from error
            for record, line in zip(records, lines, strict=True):
                self._live.put(record["id"], record["kind"], line)
            self._compact_if_worthwhile()

    def done(self, ids: Collection[str]) -> None:
        """Forget records that the ledger has. Not fsynced: after a crash they may come back, and are booked already.

        Raises:
            SpoolError: the spool is closed.
        """
        with self._lock:
            self._check_open()
            known = [name for name in ids if name in self._live.lines]
            if not known:
                return
            try:
                self._write(line_of({"kind": "done", "ids": known}), durable=False)
            except OSError as error:
                _LOG.warning("%s: %d booked records stay in the file: %s", self.path, len(known), _reason(error))
            self._live.forget(known)
            self._compact_if_worthwhile()

    def adopt(self) -> list[Adopted]:
        """Take over the files of dead processes: their live records go to this spool durably, then the file goes.

        A damaged file is kept aside as `<name>.damaged`. A file that cannot be taken over now is logged and left for
        the next call. A crash on the way loses nothing; a record may then be adopted twice.

        Raises:
            SpoolError: the spool is closed.
        """
        self._check_open()
        others = sorted(path for path in self.path.parent.glob("spool-*.jsonl") if path != self.path)
        return [adopted for path in others if (adopted := self._adopt(path)) is not None]

    def close(self) -> None:
        """Let go of the file, and delete it when nothing in it is live. A second call does nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._live.lines:
                _remove(self.path)
            os.close(self._fd)

    def _check_open(self) -> None:
        if self._closed:
            raise SpoolError(f"{self.path} is closed; open a new spool")

    def _write(self, data: bytes, *, durable: bool) -> None:
        """Append to the file, or leave it as it was; half a line that could not be cut off then is cut off now."""
        try:
            if durable and not self._named:
                sync_folder(self.path.parent)
                self._named = True
            if os.fstat(self._fd).st_size != self._bytes:
                os.ftruncate(self._fd, self._bytes)
            write_all(self._fd, data)
            if durable:
                os.fsync(self._fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._bytes)
            raise
        self._bytes += len(data)

    def _compact_if_worthwhile(self) -> None:
        limit = COMPACT_BYTES if self._live.lines else _EMPTY_BYTES
        mostly_dead = 2 * self._live.bytes < self._bytes
        if self._bytes <= max(limit, self._no_compaction_below) or not mostly_dead:
            return
        try:
            self._compact()
            self._no_compaction_below = 0
        except OSError as error:
            self._no_compaction_below = self._bytes + _EMPTY_BYTES  # a full disk is not tried at every append
            _LOG.warning("%s cannot be compacted now: %s", self.path, _reason(error))

    def _compact(self) -> None:
        """Move the live lines to a new file, locked before it gets the name, and durable before it does."""
        fresh = _fresh(self.path)
        fd = open_locked(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        assert fd is not None, "only the holder of the spool's lock makes this file"
        try:
            write_all(fd, b"".join(self._live.lines.values()))
            os.fsync(fd)
            fresh.replace(self.path)
        except OSError:
            _remove(fresh)
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd, self._bytes, self._named = fd, self._live.bytes, False
        sync_folder(self.path.parent)
        self._named = True

    def _adopt(self, path: Path) -> Adopted | None:
        """The records of another file, or None when its process lives, somebody else was first, or the disk refuses."""
        fd = None
        try:
            fd = open_locked(path, os.O_RDWR)
            if fd is None:
                return None
            found = _read(path.read_bytes())
            records = found.live.records()
            self.append(records)
            path = _retire(path, found)
            return Adopted(path, tuple(records), tuple(found.damaged_lines), found.torn)
        except FileNotFoundError:
            return None
        except (OSError, SpoolError) as error:
            _LOG.error("%s cannot be adopted now and is left for later: %s", path, error)  # noqa: TRY400
            return None
        finally:
            if fd is not None:
                os.close(fd)


@dataclass
class _Live:
    """Id -> the line of its current record, in the order of first appearance, and the length of all of them."""

    lines: dict[str, bytes] = field(default_factory=dict)
    receipts: set[str] = field(default_factory=set)
    bytes: int = 0

    def put(self, name: str, kind: str, line: bytes) -> None:
        if kind == "receipt":
            self.receipts.add(name)
        elif name in self.receipts:
            return
        self.bytes += len(line) - len(self.lines.get(name, b""))
        self.lines[name] = line

    def forget(self, names: Iterable[str]) -> None:
        for name in names:
            self.bytes -= len(self.lines.pop(name, b""))
            self.receipts.discard(name)

    def records(self) -> list[Record]:
        return [json.loads(line[_CRC_BYTES:]) for line in self.lines.values()]


@dataclass
class _Contents:
    """What a file says: live records, numbers of unreadable lines (from 1), and whether its end is torn."""

    live: _Live = field(default_factory=_Live)
    damaged_lines: list[int] = field(default_factory=list)
    torn: bool = False


def line_of(document: Mapping[str, Any]) -> bytes:
    """A line that says whether it is whole: CRC-32 of the JSON bytes, the JSON with sorted keys, a newline.

    Raises:
        SpoolError: the document holds NaN, an infinity, or something JSON cannot express.
    """
    try:
        text = json.dumps(dict(document), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        data = text.encode()
    except (TypeError, ValueError) as error:
        raise SpoolError(f"record {document.get('id')!r} cannot be written as JSON: {error}") from error
    return b"%08x %s\n" % (zlib.crc32(data), data)


def document_of(line: bytes) -> dict[str, Any] | None:
    """The object in a line without its newline, or None when a byte of it is not what was written."""
    data = line[_CRC_BYTES:]
    if line[:_CRC_BYTES] != b"%08x " % zlib.crc32(data):
        return None
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def make_folder(folder: Path) -> None:
    """Make a folder that only its owner may enter, durably, with the folders above it."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in missing:
        sync_folder(path.parent)


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


def _create(folder: Path) -> tuple[Path, int]:
    """A new file, locked. Whoever adopts it between the two steps gets an empty file, and another name is tried."""
    for _ in range(_NAMES_TRIED):
        path = folder / f"spool-{uuid4().hex}.jsonl"
        fd = open_locked(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND)
        if fd is not None:
            return path, fd
    raise SpoolError(f"spool folder {folder}: each of {_NAMES_TRIED} new files was adopted before it could be locked")


def _fresh(path: Path) -> Path:
    """Where a file is compacted to; no name that is adopted."""
    return path.with_name(f"{path.name}.tmp")


def _check(record: Record) -> None:
    name, kind = record.get("id"), record.get("kind")
    if not isinstance(name, str) or not name:
        raise SpoolError(f"id of a record must be non-empty text, not {name!r}")
    if kind not in ("progress", "receipt"):
        raise SpoolError(f"kind of record {name!r} must be 'progress' or 'receipt', not {kind!r}")


def _read(data: bytes) -> _Contents:
    """Replay a file line by line; what cannot be read at the very end is torn, anywhere else it is damage."""
    found = _Contents()
    *lines, tail = data.split(b"\n")
    found.torn = bool(tail)
    for number, line in enumerate(lines, start=1):
        document = document_of(line)
        if document is None and number == len(lines) and not tail:
            found.torn = True
        elif document is None or not _replay(document, line + b"\n", found.live):
            found.damaged_lines.append(number)
    return found


def _replay(document: dict[str, Any], line: bytes, live: _Live) -> bool:
    """Do what a line says; False when it says nothing that this module writes."""
    match document:
        case {"kind": "done", "ids": [*names]}:
            live.forget(names)
        case {"kind": "progress" | "receipt" as kind, "id": str(name)}:
            live.put(name, kind, line)
        case _:
            return False
    return True


def _retire(path: Path, found: _Contents) -> Path:
    """Delete a file whose live records are safe elsewhere, or keep it aside when it is damaged; where it is now."""
    if found.torn:
        _LOG.warning("%s: the last line was cut by a crash before it was promised; dropped", path)
    _remove(_fresh(path))
    if not found.damaged_lines:
        _remove(path)
        return path
    aside = path.with_name(f"{path.name}.damaged")
    path.rename(aside)
    _LOG.error("%s: damaged lines %s; the good ones are adopted, the file is kept", aside, found.damaged_lines)
    return aside


def _remove(path: Path) -> None:
    """Delete a file; one that stays is adopted again, and what is booked twice counts once."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _LOG.warning("%s cannot be deleted: %s", path, _reason(error))


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
