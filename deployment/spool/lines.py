"""What a spool file says: one line per write, `<crc32, 8 hex digits> <canonical JSON>`, replayed to what is live.

A line whose tokens are not needed any more is overwritten: `wiped <crc32> <id as JSON> ###…`, of the same length, of
which only the id still counts, for the order of what comes later of it.
Of a record it reads `id` and `kind`, the rest is the caller's. Touches no disk.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployment.errors import SpoolError

_CRC_BYTES = 9  # eight hex digits and a space
_WIPED = b"wiped "

Record = Mapping[str, Any]
"""A JSON object with `id` (the response's) and `kind` (`progress` or `receipt`)."""


@dataclass
class Live:
    """Id -> the line of its current record, in the order of first appearance, and the size of all of them in bytes."""

    lines: dict[str, bytes] = field(default_factory=dict)
    receipts: set[str] = field(default_factory=set)
    size: int = 0

    def put(self, name: str, kind: str, line: bytes) -> None:
        """Replace what is there of an id; progress never replaces a receipt."""
        if kind == "receipt":
            self.receipts.add(name)
        elif name in self.receipts:
            return
        self.size += len(line) - len(self.lines.get(name, b""))
        self.lines[name] = line

    def forget(self, names: Iterable[str]) -> None:
        """Drop ids; those that are not there do not matter."""
        for name in names:
            self.size -= len(self.lines.pop(name, b""))
            self.receipts.discard(name)

    def places(self) -> Iterator[tuple[str, int, int]]:
        """Id, offset and length of each line of progress, in a file of all lines one after another."""
        at = 0
        for name, line in self.lines.items():
            if name not in self.receipts:
                yield name, at, len(line)
            at += len(line)

    def reserve(self, name: str) -> None:
        """Keep the place of an id whose line was wiped, for what comes of it later."""
        self.lines.setdefault(name, b"")

    def close(self) -> None:
        """Drop the ids of which nothing came."""
        self.forget([name for name, line in self.lines.items() if not line])

    def records(self) -> list[Record]:
        """The records themselves."""
        return [json.loads(line[_CRC_BYTES:]) for line in self.lines.values()]


@dataclass
class SpoolContents:
    """What a file says: live records, numbers of unreadable lines (from 1), and whether its end is torn."""

    live: Live = field(default_factory=Live)
    damaged_lines: list[int] = field(default_factory=list)
    torn: bool = False


def check(record: Record) -> None:
    """Refuse a record that could not be replayed.

    Raises:
        SpoolError: `id` or `kind` is not what it must be.
    """
    name, kind = record.get("id"), record.get("kind")
    if not isinstance(name, str) or not name:
        raise SpoolError(f"id of a record must be non-empty text, not {name!r}")
    if kind not in ("progress", "receipt"):
        raise SpoolError(f"kind of record {name!r} must be 'progress' or 'receipt', not {kind!r}")


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


def document_of(line: bytes) -> Record | None:
    """The object in a line without its newline, or None when a byte of it is not what was written."""
    data = line[_CRC_BYTES:]
    if line[:_CRC_BYTES] != b"%08x " % zlib.crc32(data):
        return None
    try:
        document = json.loads(data)
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def read(data: bytes) -> SpoolContents:
    """Replay a file line by line. An end without a newline is torn: its append never returned; the rest is damage."""
    contents = SpoolContents()
    *lines, tail = data.split(b"\n")
    if tail and document_of(tail[:-1]) is not None:  # whole but for its newline, which is another byte now
        contents.damaged_lines.append(len(lines) + 1)
        lines.append(tail[:-1])
    else:
        contents.torn = bool(tail)
    for number, line in enumerate(lines, start=1):
        if (name := _name_of_wiped(line)) is not None:
            contents.live.reserve(name)
            continue
        document = document_of(line)
        if document is None or not _replay(document, line + b"\n", contents.live):
            contents.damaged_lines.append(number)
    contents.live.close()
    return contents


def wiped_line(name: str, length: int) -> bytes:
    """What a line of an id becomes, without its newline: as long as it was, so that the others stay where they are."""
    text = json.dumps(name, ensure_ascii=False).encode()
    return (_WIPED + b"%08x %s " % (zlib.crc32(text), text)).ljust(length, b"#")


def is_wiped(line: bytes) -> bool:
    """Whether a line was wiped, or is being; then what follows its id does not matter."""
    return _name_of_wiped(line) is not None


def _name_of_wiped(line: bytes) -> str | None:
    if not line.startswith(_WIPED):
        return None
    checksum, text = line[len(_WIPED) : len(_WIPED) + 8], line[len(_WIPED) + _CRC_BYTES :]
    try:
        name, _ = json.JSONDecoder().raw_decode(text.decode(errors="replace"))
        whole = checksum == b"%08x" % zlib.crc32(json.dumps(name, ensure_ascii=False).encode())
    except (ValueError, TypeError):
        return None
    return name if whole and isinstance(name, str) else None


def _replay(document: Record, line: bytes, live: Live) -> bool:
    """Do what a line says; False when it says nothing that this package writes."""
    match document:
        case {"kind": "done", "ids": [*names]}:
            live.forget(names)
        case {"kind": "progress" | "receipt" as kind, "id": str(name)}:
            live.put(name, kind, line)
        case _:
            return False
    return True
