"""Signed checkpoints of the log: which lines each signs, and those that stand in the books.

Knows no leaf; the form of a signed note is the business of `rewards.signing.notes`.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, insert, select
from sqlmodel import col

from rewards.moments import stamp
from rewards.signing.keys import SigningKey
from rewards.signing.notes import Checkpoint, sign_checkpoint
from rewards.store.database import now_us
from rewards.store.tables import CheckpointRow


@dataclass(frozen=True)
class SealedCheckpoint:
    """A checkpoint as it stands in the books.

    Attributes:
        size: number of leaves it covers.
        root: 64 hex digits.
        key_id: of the key that signed it.
        note: the signed note to hand out.
        sealed_at_us: when, in microseconds since 1970; signed too.
    """

    size: int
    root: str
    key_id: str
    note: str
    sealed_at_us: int

    @property
    def origin(self) -> str:
        """The log's name."""
        return self.note.partition("\n")[0]


def latest_checkpoint(connection: Connection) -> SealedCheckpoint | None:
    """The checkpoint of the largest size; None before the first."""
    return checkpoint_at(connection, None)


def checkpoint_at(connection: Connection, size: int | None) -> SealedCheckpoint | None:
    """The checkpoint of a size, of the largest when that is None; None when there is none."""
    query = select(CheckpointRow).order_by(col(CheckpointRow.size).desc()).limit(1)
    if size is not None:
        query = query.where(col(CheckpointRow.size) == size)
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else SealedCheckpoint(**row)


def add_checkpoint(
    connection: Connection, origin: str, size: int, root: bytes, *, after: SealedCheckpoint | None, key: SigningKey
) -> Checkpoint:
    """Sign what the log is now, and write it into the open transaction.

    Beside what any log's checkpoint says, two lines of ours are signed, so that neither its moment nor a checkpoint
    between two others can be altered unseen: `sealed_at_us`, never before the last one's, and `previous_size`.

    Args:
        connection: of the transaction in which the leaves were written.
        origin: the log's name.
        size: number of leaves it covers.
        root: the log's root at that size, 32 bytes.
        after: the latest one before it.
        key: signs.
    """
    previous_size, last_us = (0, 0) if after is None else (after.size, after.sealed_at_us)
    sealed_at_us = stamp(now_us(connection), last_us)
    extensions = (f"sealed_at_us {sealed_at_us}", f"previous_size {previous_size}")
    checkpoint = Checkpoint(origin, size, root, extensions)
    row = {
        "size": size,
        "root": root.hex(),
        "key_id": key.public.key_id,
        "note": sign_checkpoint(checkpoint, key),
        "sealed_at_us": sealed_at_us,
    }
    connection.execute(insert(CheckpointRow).values(row))
    return checkpoint
