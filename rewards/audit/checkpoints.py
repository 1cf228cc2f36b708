"""Checkpoints: each row against its note, its signature, the one before it, and the root that the rows lead to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sqlalchemy import select
from sqlmodel import col

from rewards.audit.hashing import Document
from rewards.audit.report import DifferenceError
from rewards.audit.source import Source, StoredRow
from rewards.audit.tree import Tree
from rewards.errors import SignatureError
from rewards.signing.keys import VerifyKey
from rewards.signing.notes import Checkpoint, open_note
from rewards.store.tables import CheckpointRow


def read_checkpoints(source: Source) -> Iterator[StoredRow]:
    """The checkpoints in order of size: the row, and `origin` and `previous_size` of its note.

    Raises:
        DifferenceError: a row says something else than its note.
    """
    for row in source.rows(select(CheckpointRow).order_by(col(CheckpointRow.size))):
        said = _read_note(row)
        for name in ("size", "root", "sealed_at_us"):
            if row[name] != said[name]:
                raise DifferenceError("checkpoints", row["size"], name, actual=row[name], expected=said[name])
        yield {**said, **row}


def check_root(checkpoint: StoredRow, tree: Tree) -> None:
    """Hold one of the `read_checkpoints` against the tree of the rows, grown to its size.

    Raises:
        DifferenceError: a stored node differs; or the root does, and the row that was altered is named.
    """
    differs, differs_at = tree.differs, tree.differs_at
    if tree.root() == checkpoint["root"]:
        if differs is not None:  # the rows are as they were signed
            raise DifferenceError("nodes", differs.key, differs.field, actual=differs.found, expected=differs.expected)
    elif differs is not None and differs_at is not None and tree.stored_root() == checkpoint["root"]:
        if tree.moved is not None:
            raise DifferenceError("leaves", differs.key[1], "source, sequence", actual=differs_at, expected=tree.moved)
        source, sequence = differs_at  # the stored hash of its leaf is as it was signed
        raise DifferenceError(f"{source}s", sequence, "leaf hash", actual=differs.expected, expected=differs.found)
    else:
        raise DifferenceError(
            "checkpoints", checkpoint["size"], "root", actual=checkpoint["root"], expected=tree.root()
        )


def check_signatures(source: Source, keys: Sequence[VerifyKey]) -> str | None:
    """Check every signature and that no checkpoint between two others is missing; returns the log's name.

    Raises:
        DifferenceError: a checkpoint is not signed by one of the keys, or does not follow the one before it.
    """
    origin, size, sealed_at_us = None, 0, 0
    for row in read_checkpoints(source):
        try:
            _, key = open_note(row["note"], keys)
        except SignatureError as error:
            raise DifferenceError("checkpoints", row["size"], "note", actual=str(error), expected="signed") from None
        origin = origin or row["origin"]
        if row["previous_size"] > size:
            raise DifferenceError(
                "checkpoints", row["previous_size"], "size", actual=None, expected=row["previous_size"]
            )
        if row["previous_size"] < size:
            raise DifferenceError("checkpoints", size, "size", actual=size, expected=None)
        for name, expected in (("key_id", key.key_id), ("origin", origin)):
            if row[name] != expected:
                raise DifferenceError("checkpoints", row["size"], name, actual=row[name], expected=expected)
        if row["sealed_at_us"] < sealed_at_us:
            least = f"at least {sealed_at_us}, when the one before it was sealed"
            raise DifferenceError(
                "checkpoints", row["size"], "sealed_at_us", actual=row["sealed_at_us"], expected=least
            )
        size, sealed_at_us = row["size"], row["sealed_at_us"]
    return origin


def _read_note(row: StoredRow) -> Document:
    """What the note of a checkpoint says, its signature apart."""
    expected = "three lines of a checkpoint, then sealed_at_us and previous_size"
    try:
        checkpoint = Checkpoint.parse(row["note"].rpartition("\n\n")[0] + "\n")
    except SignatureError as error:
        raise DifferenceError("checkpoints", row["size"], "note", actual=str(error), expected=expected) from None
    match [line.split(" ") for line in checkpoint.extensions]:
        case [["sealed_at_us", moment], ["previous_size", size]] if _is_number(moment) and _is_number(size):
            lines = {"sealed_at_us": int(moment), "previous_size": int(size)}
        case _:
            raise DifferenceError("checkpoints", row["size"], "note", actual=checkpoint.text(), expected=expected)
    return {"origin": checkpoint.origin, "size": checkpoint.size, "root": checkpoint.root.hex(), **lines}


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,19}", text) is not None
