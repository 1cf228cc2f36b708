"""The Merkle tree, grown anew from the leaves of the rows, beside the nodes that are stored.

Knows hashes and places; what a leaf stands for is the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from rewards.audit import hashing
from rewards.audit.report import Difference, DifferenceError
from rewards.audit.source import Source, StoredRow
from rewards.store.tables import NodeRow


class Tree:
    """A tree that grows leaf by leaf; O(log n) hashes of it are kept.

    Attributes:
        size: number of leaves.
        differs: the first stored node that is not as computed, in the order in which nodes become complete.
        differs_at: source and sequence of the row of that node, when it is a leaf.
        moved: source and sequence of the later row whose leaf is the hash that is stored there.
    """

    def __init__(self, source: Source) -> None:
        self.size = 0
        self.differs: Difference | None = None
        self.differs_at: tuple[str, int] | None = None
        self.moved: tuple[str, int] | None = None
        self._source = source
        self._complete: list[tuple[int, bytes]] = []  # level and hash of the subtrees that make up the tree
        self._stored: list[Iterator[StoredRow]] = []  # by level

    def add(self, leaf: bytes, source: str, sequence: int) -> None:
        """Add the leaf of a row, and compare each node that is complete now."""
        level, index = 0, self.size
        self._compare(level, index, leaf)
        if self.differs is not None and self.differs.key == (0, index):
            self.differs_at = source, sequence
        self._note_moved(leaf, source, sequence)
        while index % 2:
            _, left = self._complete.pop()
            leaf = hashing.parent(left, leaf)
            level, index = level + 1, index // 2
            self._compare(level, index, leaf)
        self._complete.append((level, leaf))
        self.size += 1

    def look_ahead(self, sources: Mapping[str, Iterator[tuple[int, bytes]]]) -> None:
        """Where a leaf differs, see whether the row that comes next would fit there; what is looked at is used up."""
        for source, rows in sources.items() if self.differs is not None else ():
            with suppress(DifferenceError):  # that would be a later one
                sequence, leaf = next(rows, (0, b""))
                self._note_moved(leaf, source, sequence)

    def root(self) -> str:
        """The root of the leaves so far, as hex."""
        return _root([value for _, value in self._complete])

    def stored_root(self) -> str:
        """The root over the stored leaf hashes of the same size; for telling which of two that differ was altered."""
        complete: list[tuple[int, bytes]] = []
        for node in self._source.rows(_nodes(0).where(col(NodeRow.node_index) < self.size)):
            try:
                level, value = 0, bytes.fromhex(node["hash"])
            except ValueError:  # altered to what is no hash: it leads to no root
                return ""
            while complete and complete[-1][0] == level:
                value = hashing.parent(complete.pop()[1], value)
                level += 1
            complete.append((level, value))
        return _root([value for _, value in complete])

    def check_nothing_more(self) -> None:
        """Refuse stored nodes beyond the tree.

        Raises:
            DifferenceError: there is one.
        """
        beyond = select(NodeRow).where(col(NodeRow.level) >= len(self._stored)).limit(1)
        for stream in (*self._stored, self._source.rows(beyond)):
            node = next(stream, None)
            if node is not None:
                key = node["level"], node["node_index"]
                raise DifferenceError("nodes", key, "hash", actual=node["hash"], expected=None)

    def _note_moved(self, leaf: bytes, source: str, sequence: int) -> None:
        if self.differs_at is not None and self.differs is not None and self.differs.found == leaf.hex():
            self.moved = source, sequence

    def _compare(self, level: int, index: int, value: bytes) -> None:
        if level == len(self._stored):
            self._stored.append(self._source.rows(_nodes(level)))
        if self.differs is not None:
            return
        node = next(self._stored[level], None)
        stored = node["hash"] if node is not None and node["node_index"] == index else None
        if stored != value.hex():
            self.differs = Difference("nodes", (level, index), "hash", stored, value.hex())


def _nodes(level: int) -> Any:
    return select(NodeRow).where(col(NodeRow.level) == level).order_by(col(NodeRow.node_index))


def _root(values: list[bytes]) -> str:
    """Complete subtrees, largest first, joined from the right."""
    if not values:
        return hashing.EMPTY_ROOT
    value = values[-1]
    for left in values[-2::-1]:
        value = hashing.parent(left, value)
    return value.hex()
