"""The Merkle tree of RFC 9162, section 2.1: growing it, its root, and proofs that anybody can check.

Pure: hashes in, hashes out. Knows no receipt, no signature and no database; where the nodes are kept is the caller's
business. Builders read O(log n) nodes. Verifiers answer True or False and never raise, whatever they are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any, Protocol

from rewards.errors import LogError

EMPTY_ROOT = sha256().digest()
"""Root of the tree without leaves (RFC 9162, 2.1.1)."""
_HASH_BYTES = 32
_SIZE_LIMIT = 2**63  # a log is numbered by 64-bit integers


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 || data): the hash of a leaf, which can never be one of two nodes (RFC 9162, 2.1.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right): the hash of two neighbours (RFC 9162, 2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


class Nodes(Protocol):
    """Where the hashes of complete subtrees are kept."""

    def node(self, level: int, index: int) -> bytes:
        """Hash of the leaves from index * 2^level up to (index + 1) * 2^level; level 0 are the leaves themselves."""


class MemoryNodes:
    """A tree that is held in memory, for verifiers and for small logs.

    Attributes:
        size: number of leaves.
    """

    def __init__(self, leaf_hashes: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._nodes: dict[tuple[int, int], bytes] = {}
        self.append(list(leaf_hashes))

    def node(self, level: int, index: int) -> bytes:
        """As `Nodes.node`.

        Raises:
            LogError: the leaves do not reach so far.
        """
        if (level, index) not in self._nodes:
            raise LogError(f"a log of {self.size} leaves has no complete node {index} at level {level}")
        return self._nodes[level, index]

    def append(self, leaf_hashes: Sequence[bytes]) -> None:
        """Add leaves at the end."""
        for level, index, value in grow(self, self.size, leaf_hashes):
            self._nodes[level, index] = value
        self.size += len(leaf_hashes)


def grow(nodes: Nodes, size: int, leaf_hashes: Sequence[bytes]) -> list[tuple[int, int, bytes]]:
    """The complete subtrees that appear when leaves follow a tree of `size` leaves, as (level, index, hash).

    The leaves themselves are among them, as level 0. Of the old tree only its right edge is read.

    Raises:
        LogError: `size` is none that a log can have, or a leaf is not a hash of 32 bytes.
    """
    _require_size("size", size)
    for offset, value in enumerate(leaf_hashes):
        if not _are_hashes([value]):
            raise LogError(f"leaf {size + offset} must be {_HASH_BYTES} bytes, not {value!r}")
    grown: list[tuple[int, int, bytes]] = []
    level, first, row = 0, size, list(leaf_hashes)
    while row:
        grown += [(level, first + offset, value) for offset, value in enumerate(row)]
        if first % 2:  # the left neighbour is of the old tree
            row.insert(0, nodes.node(level, first - 1))
            first -= 1
        row = [node_hash(row[place], row[place + 1]) for place in range(0, len(row) - 1, 2)]
        level, first = level + 1, first // 2
    return grown


def root(nodes: Nodes, size: int) -> bytes:
    """Root of the tree of the first `size` leaves (RFC 9162, 2.1.1).

    Raises:
        LogError: `size` is none that a log can have.
    """
    _require_size("size", size)
    return _range_root(nodes, 0, size) if size else EMPTY_ROOT


def inclusion_proof(nodes: Nodes, index: int, size: int) -> list[bytes]:
    """Hashes that lead from leaf `index` to the root of the first `size` leaves (RFC 9162, 2.1.3.1).

    Raises:
        LogError: there is no such leaf in a tree of that size.
    """
    _require_size("size", size)
    if type(index) is not int or not 0 <= index < size:
        raise LogError(f"index must be an integer from 0 to below size {size}, not {index!r}")
    proof, begin, end = [], 0, size
    while end - begin > 1:
        middle = begin + _left_half(end - begin)
        if index < middle:
            proof.append(_range_root(nodes, middle, end))
            end = middle
        else:
            proof.append(_range_root(nodes, begin, middle))
            begin = middle
    return proof[::-1]


def consistency_proof(nodes: Nodes, first: int, second: int) -> list[bytes]:
    """Hashes that show the tree of `first` leaves to be the beginning of the tree of `second` (RFC 9162, 2.1.4.1).

    Raises:
        LogError: not 1 ≤ first ≤ second; an empty log is the beginning of every log and needs no proof.
    """
    _require_size("second", second)
    if type(first) is not int or not 1 <= first <= second:
        raise LogError(f"first must be an integer from 1 to {second}, not {first!r}")
    proof, begin, end, wanted, is_old_tree = [], 0, second, first, True
    while wanted < end - begin:
        half = _left_half(end - begin)
        if wanted <= half:
            proof.append(_range_root(nodes, begin + half, end))
            end = begin + half
        else:
            proof.append(_range_root(nodes, begin, begin + half))
            begin, wanted, is_old_tree = begin + half, wanted - half, False
    if not is_old_tree:
        proof.append(_range_root(nodes, begin, end))
    return proof[::-1]


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], expected_root: bytes) -> bool:
    """Whether `leaf` (a leaf hash) is number `index` of the `size` leaves under `expected_root` (RFC 9162, 2.1.3.2)."""
    if not (_is_size(index) and _is_size(size) and index < size):
        return False
    if not (isinstance(proof, list | tuple) and _are_hashes([leaf, expected_root, *proof])):
        return False
    place, last, value = index, size - 1, leaf
    for step in proof:
        if last == 0:
            return False
        if place % 2 or place == last:
            value = node_hash(step, value)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            value = node_hash(value, step)
        place, last = place >> 1, last >> 1
    return last == 0 and value == expected_root


def verify_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the log of `first` leaves is the beginning of the log of `second` leaves (RFC 9162, 2.1.4.2)."""
    if not (_is_size(first) and _is_size(second) and 1 <= first <= second):
        return False
    if not (isinstance(proof, list | tuple) and _are_hashes([first_root, second_root, *proof])):
        return False
    if first == second:
        return not proof and first_root == second_root
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        return False
    place, last = first - 1, second - 1
    while place % 2:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for step in path[1:]:
        if last == 0:
            return False
        if place % 2 or place == last:
            old, new = node_hash(step, old), node_hash(step, new)
            while place % 2 == 0 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, step)
        place, last = place >> 1, last >> 1
    return last == 0 and old == first_root and new == second_root


def _left_half(size: int) -> int:
    """The largest power of two below `size`, which is at least 2."""
    return 1 << (size - 1).bit_length() - 1


def _range_root(nodes: Nodes, begin: int, end: int) -> bytes:
    """Root of the leaves from `begin` up to `end`, a range that the RFC's recursion splits off, so aligned to its size.

    Such a range is made of complete subtrees, largest first; they are joined from the right.
    """
    pieces = []
    while begin < end:
        level = (end - begin).bit_length() - 1
        pieces.append(nodes.node(level, begin >> level))
        begin += 1 << level
    value = pieces.pop()
    while pieces:
        value = node_hash(pieces.pop(), value)
    return value


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _SIZE_LIMIT


def _require_size(name: str, value: Any) -> None:
    if not _is_size(value):
        raise LogError(f"{name} must be an integer from 0 to 2**63 - 1, not {value!r}")


def _are_hashes(values: Iterable[bytes]) -> bool:
    return all(isinstance(value, bytes) and len(value) == _HASH_BYTES for value in values)
