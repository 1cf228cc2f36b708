"""The write-ahead log beside an SQLite file: whether it is there, and is all of it. Reads bytes, opens no database.

SQLite passes over what it cannot use of a log, so one that was cut, or is another database's, would be read in silence.
The format is that of https://www.sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from rewards.errors import LedgerError

SQLITE = b"SQLite format 3\0"
"""What an SQLite file begins with."""
_PAGE_SIZE = slice(16, 18)  # of the database's header
_LARGEST_PAGE = 65536  # is written as 1
_MODES = slice(18, 20)  # the file format's versions for writing and reading
_WRITE_AHEAD = b"\2\2"
_MAGIC, _VERSION = 0x377F0682, 3007000  # the magic's lowest bit: checksums are of big-endian words
_HEADER, _FRAME = struct.Struct(">8I"), struct.Struct(">6I")
_SUMMED, _FRAME_SUMMED = 24, 8  # bytes of each that their checksum is of
_MASK = 0xFFFFFFFF
_Sums = tuple[int, int]


def is_write_ahead(file: Path) -> bool:
    """Whether a file is an SQLite database in write-ahead mode, which is for ever."""
    return _start(file)[_MODES] == _WRITE_AHEAD


def lacks_write_ahead_log(file: Path) -> bool:
    """Whether a file is an SQLite database in write-ahead mode that has no -wal file beside it, or an empty one.

    Then nobody can say that it is whole: SQLite takes that file away when the last program closes the database, and
    so does whoever copies the database alone while it is in use. Nothing in the database tells the two apart.
    """
    return is_write_ahead(file) and _size(_log_of(file)) == 0


def require_whole_log(file: Path) -> None:
    """Return where a copy of an SQLite file has a -wal beside it that is its own and whole, or none, or an empty one.

    A log that ends with a whole transaction passes, as nothing tells that there was another one. For a file in use
    this is not: what is being written is not whole yet.

    Raises:
        LedgerError: the log is cut, damaged or another database's, or cannot be read; it is named.
    """
    start, log = _start(file), _log_of(file)
    if not start.startswith(SQLITE) or _size(log) == 0:
        return
    try:
        with log.open("rb") as opened:
            fault = _fault(opened, _size(log), start)
    except OSError as error:
        raise LedgerError(f"{log} cannot be read: {error.strerror}") from error
    if fault is not None:
        raise LedgerError(
            f"{log} {fault}, so nobody can say that {file.name} is whole: copy both again, while nobody writes them"
        )


def _fault(log: BinaryIO, size: int, start: bytes) -> str | None:
    """What is wrong with a log of so many bytes, beside a database that begins so."""
    page_size = int.from_bytes(start[_PAGE_SIZE])
    page_size = _LARGEST_PAGE if page_size == 1 else page_size
    frames, rest = divmod(size - _HEADER.size, _FRAME.size + page_size)
    if size < _HEADER.size:
        return f"is cut: it has {size} bytes, less than its header has"
    header = log.read(_HEADER.size)
    magic, version, log_page_size, _, *salts, first, second = _HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    if magic & ~1 != _MAGIC or version != _VERSION or _sum(header[:_SUMMED], order, (0, 0)) != (first, second):
        return "is damaged: its header is none of a write-ahead log"
    if start[_MODES] != _WRITE_AHEAD or log_page_size != page_size:
        return "is another database's: its pages are not of that one's kind"
    if rest:
        return f"is cut: it has {size} bytes, which are not whole pages"
    return _fault_of_frames(log, frames, page_size, salts, order, (first, second))


def _fault_of_frames(
    log: BinaryIO, frames: int, page_size: int, salts: list[int], order: str, sums: _Sums
) -> str | None:
    """What is wrong with the frames: those of the header's salts are the log's, and what is behind them is older."""
    is_whole = True
    for number in range(1, frames + 1):
        head, page = log.read(_FRAME.size), log.read(page_size)
        _, pages, *frame_salts, first, second = _FRAME.unpack(head)
        if frame_salts != salts:
            if number == 1:
                return "is another one's from its first page on: that does not fit its header"
            break
        sums = _sum(page, order, _sum(head[:_FRAME_SUMMED], order, sums))
        if sums != (first, second):
            return f"is damaged at page {number} of {frames}"
        is_whole = pages != 0  # the last frame of a transaction says how large the database is then
    return None if is_whole else "ends within a transaction"


def _sum(data: bytes, order: str, sums: _Sums) -> _Sums:
    """The checksum of a log, continued."""
    first, second = sums
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & _MASK
        second = (second + odd + first) & _MASK
    return first, second


def _start(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(_MODES.stop)
    except OSError:
        return b""


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
