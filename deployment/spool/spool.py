"""The queue itself: records appended durably, forgotten once the ledger has them, and taken over from the dead."""

import json
import logging
import os
import threading
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from deployment.errors import PartLostError, SpoolError
from deployment.spool.files import (
    append_durably,
    create_locked,
    fresh_name,
    make_folder,
    open_locked,
    reason,
    sync_folder,
    write_all,
)
from deployment.spool.lines import Live, Record, check, line_of, read
from deployment.spool.wiper import Wiper, erase, keep_no_tokens, retire, without_tokens
from rewards.files import private_files

_LOG = logging.getLogger(__name__)
COMPACT_BYTES = 8 * 2**20
"""A file larger than this is compacted once more than half of it is dead."""
_GROWTH_BYTES = 64 * 2**10  # a compaction that the disk refused is tried again after this much


@dataclass(frozen=True)
class Adoption:
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
            for path in folder.glob("*.jsonl*"):  # of other processes, and what was set aside: responses, all of it
                private_files.tighten(path)
            self.path, self._fd = create_locked(folder)
            self._wiper = Wiper(self.path)
            keep_no_tokens(folder)
        except OSError as error:
            raise SpoolError(f"spool folder {folder} cannot be used: {reason(error)}") from error
        self._lock = threading.Lock()
        self._closed = False
        self._live = Live()
        self._size = 0
        self._named = False  # whether the folder durably lists the file
        self._no_compaction_below = 0

    def __len__(self) -> int:
        return len(self._live.lines)

    @property
    def size(self) -> int:
        """Length of the file in bytes, dead lines included."""
        return self._size

    def live_records(self) -> list[Record]:
        """The records that the ledger does not have yet, in the order in which their ids first appeared."""
        with self._lock:
            return self._live.records()

    def check(self) -> None:
        """Look whether the file bears its name still.

        Raises:
            PartLostError: it was taken away, and what is appended would be lost with this process.
        """
        with self._lock:
            if not self._closed:
                self._require_named()

    def append(self, records: Sequence[Record]) -> None:
        """Write records in one write and one fsync; they are durable when this returns.

        A later record of an id replaces the earlier one, but progress never replaces a receipt. Progress holds tokens:
        it is wiped from the file as soon as it is replaced.

        Raises:
            SpoolError: a record is malformed (the field is named), the disk refuses (file and reason are named), or
                the spool is closed. The file and the live records are then as they were.
        """
        if not records:
            return
        for record in records:
            check(record)
        lines = [line_of(record) for record in records]
        with self._lock:
            self._check_open()
            at = self._size
            try:
                self._append(b"".join(lines))
            except PartLostError as error:
                raise SpoolError(str(error)) from error
            except OSError as error:
                raise SpoolError(f"{self.path} cannot be written: {reason(error)}") from error
            for record, line in zip(records, lines, strict=True):
                if record["kind"] == "progress":
                    self._wiper.note(record["id"], at, len(line))
                self._live.put(record["id"], record["kind"], line)
                at += len(line)
            self._wiper.wipe({record["id"] for record in records}, self._live)
            self._compact_if_worthwhile()

    def mark_done(self, ids: Collection[str]) -> None:
        """Forget records that the ledger has. Not fsynced: after a crash they may come back, and are booked already.

        Their tokens are wiped from the file, and when nothing is left it is emptied, so that nobody's tokens lie about
        longer than they are needed.

        Raises:
            SpoolError: the spool is closed.
        """
        with self._lock:
            self._check_open()
            known = [name for name in ids if name in self._live.lines]
            if not known:
                return
            self._live.forget(known)
            self._wiper.wipe(known, self._live)
            try:
                if self._live.lines:
                    self._write(line_of({"kind": "done", "ids": known}), durable=False)
                else:
                    os.ftruncate(self._fd, 0)
                    self._size = 0
            except OSError as error:
                _LOG.warning("%s: %d booked records stay in the file: %s", self.path, len(known), reason(error))
            self._compact_if_worthwhile()

    def set_aside(self, record: Record, why: str) -> None:
        """Move a record that can never be booked to `refused-*.jsonl` beside the spool, for somebody to look at.

        Of a stream's progress it holds no tokens, only how many there were.

        When the disk refuses that too it stays in the spool, and comes up again with the next adoption.

        Raises:
            SpoolError: the spool is closed.
        """
        path = self.path.with_name(f"refused-{self.path.stem.removeprefix('spool-')}.jsonl")
        line = json.dumps({"at_us": time.time_ns() // 1000, "why": why, "record": without_tokens(record)}) + "\n"
        name = record["id"]
        try:
            with self._lock:
                append_durably(path, line.encode())
        except OSError as error:
            _LOG.error("record %r cannot be booked (%s), nor set aside: %s", name, why, reason(error))
            return
        _LOG.error("record %r cannot be booked and is set aside in %s: %s", name, path, why)
        self.mark_done([name])

    def adopt(self) -> list[Adoption]:
        """Take over the files of dead processes: their live records go to this spool durably, then the file goes.

        A damaged file is kept aside as `<name>.damaged`, without the lines that hold tokens or may. A file that cannot
        be taken over now is logged and left for the next call. A crash on the way loses nothing; a record may then be
        adopted twice.

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
                erase(self.path)
            os.close(self._fd)
            self._wiper.close()

    def _check_open(self) -> None:
        if self._closed:
            raise SpoolError(f"{self.path} is closed; open a new spool")

    def _append(self, data: bytes) -> None:
        """Write durably under the file's name; what went into one that lost it meanwhile is taken back."""
        self._require_named()
        before = self._size
        self._write(data, durable=True)
        try:
            self._require_named()
        except PartLostError:
            self._size = before
            with suppress(OSError):
                os.ftruncate(self._fd, before)
            raise

    def _require_named(self) -> None:
        try:
            is_named = os.path.samestat(os.fstat(self._fd), self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            raise PartLostError(f"{self.path} is gone", "spool_missing") from None
        if not is_named:
            raise PartLostError(f"{self.path} is another file than the one that was made", "spool_replaced")

    def _write(self, data: bytes, *, durable: bool) -> None:
        """Append to the file, or leave it as it was; half a line that could not be cut off then is cut off now."""
        try:
            if durable and not self._named:
                sync_folder(self.path.parent)
                self._named = True
            if os.fstat(self._fd).st_size != self._size:
                os.ftruncate(self._fd, self._size)
            write_all(self._fd, data)
            if durable:
                os.fsync(self._fd)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise
        self._size += len(data)

    def _compact_if_worthwhile(self) -> None:
        mostly_dead = 2 * self._live.size < self._size
        if self._size <= max(COMPACT_BYTES, self._no_compaction_below) or not mostly_dead:
            return
        try:
            self._compact()
            self._no_compaction_below = 0
        except OSError as error:
            self._no_compaction_below = self._size + _GROWTH_BYTES  # a full disk is not tried at every append
            _LOG.warning("%s cannot be compacted now: %s", self.path, reason(error))

    def _compact(self) -> None:
        """Move the live lines to a new file, locked before it gets the name, and durable before it does."""
        fresh = fresh_name(self.path)
        fd = open_locked(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
        assert fd is not None, "only the holder of the spool's lock makes this file"
        try:
            write_all(fd, b"".join(self._live.lines.values()))
            os.fsync(fd)
            wiper = Wiper(fresh)
            fresh.replace(self.path)
        except OSError:
            erase(fresh)
            os.close(fd)
            raise
        for name, at, length in self._live.places():
            wiper.note(name, at, length)
        self._wiper.leave()
        os.close(self._fd)
        self._fd, self._wiper, self._size, self._named = fd, wiper, self._live.size, False
        sync_folder(self.path.parent)
        self._named = True

    def _adopt(self, path: Path) -> Adoption | None:
        """The records of another file, or None when its process lives, somebody else was first, or the disk refuses."""
        fd = None
        try:
            fd = open_locked(path, os.O_RDWR)
            if fd is None:
                return None
            contents = read(path.read_bytes())
            records = contents.live.records()
            self.append(records)
            path = retire(path, contents)
            return Adoption(path, tuple(records), tuple(contents.damaged_lines), contents.torn)
        except FileNotFoundError:
            return None
        except (OSError, SpoolError) as error:
            _LOG.error("%s cannot be adopted now and is left for later: %s", path, error)
            return None
        finally:
            if fd is not None:
                os.close(fd)
