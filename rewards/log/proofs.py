"""Proofs from the Merkle log, and their check offline: what a client was credited, and that history stayed as it was.

A proof is plain JSON. Whoever checks one needs the log's name and public keys, and no database. What is proved holds
against a signed checkpoint; that all see the same checkpoints is for members to compare among themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.errors import LogError
from rewards.log import leaves, merkle
from rewards.log.checkpoints import SealedCheckpoint, checkpoint_at
from rewards.log.sealer import StoredNodes
from rewards.signing.encoding import base64_bytes, base64_text
from rewards.signing.keys import VerifyKey
from rewards.signing.notes import Checkpoint, open_checkpoint
from rewards.store.receipts import find_receipt
from rewards.store.tables import LeafRow


@dataclass(frozen=True)
class ProvedEntry:
    """What the proof of a receipt shows: that the books, as they were signed, hold this entry.

    Attributes:
        client: whose entry.
        amount: micro-credits; negative in a reversal.
        response_id: of the receipt.
        sequence: number of the receipt.
        kind: "response" or "reversal".
        reverses: response id of what a reversal reverses; None for a response.
        booked_at_us: when it was booked, in microseconds since 1970.
        checkpoint: what was signed.
    """

    client: str
    amount: int
    response_id: str
    sequence: int
    kind: str
    reverses: str | None
    booked_at_us: int
    checkpoint: Checkpoint


class Place(TypedDict):
    """Where a leaf is in the log of a size, and the hashes in base64 that lead from it to the root."""

    leaf_index: int
    size: int
    hashes: list[str]


class Inclusion(Place):
    """The proof that a receipt or event is in the log; the checkpoint is a signed note."""

    checkpoint: str


class Consistency(TypedDict):
    """The proof that the log of the first size was only ever added to; the checkpoint is the second's signed note."""

    proof: Literal["consistency"]
    first: int
    second: int
    hashes: list[str]
    checkpoint: str


class ReceiptProof(TypedDict):
    """The proof of a client's entry in a receipt; the checkpoint is a signed note."""

    proof: Literal["receipt"]
    opening: leaves.Opening
    inclusion: Place
    checkpoint: str


def inclusion(connection: Connection, source: str, sequence: int, size: int | None = None) -> Inclusion:
    """The proof that a receipt or event is in the log.

    Args:
        connection: of `Database.read`.
        source: "receipt" or "event".
        sequence: its number.
        size: of the checkpoint to prove it against; the latest when None.

    Raises:
        LogError: it is not sealed, or not under that checkpoint, or there is no such checkpoint.
    """
    sealed = _require_checkpoint(connection, size)
    place = col(LeafRow.source) == source, col(LeafRow.sequence) == sequence
    index = connection.execute(select(col(LeafRow.leaf_index)).where(*place)).scalar_one_or_none()
    if index is None:
        raise LogError(f"{source} {sequence} is not sealed in the log yet; it is within the next sealing interval")
    if index >= sealed.size:
        raise LogError(f"{source} {sequence} is leaf {index}, not under the checkpoint of size {sealed.size}")
    hashes = merkle.inclusion_proof(StoredNodes(connection), index, sealed.size)
    return {"leaf_index": index, "size": sealed.size, "hashes": _texts(hashes), "checkpoint": sealed.note}


def consistency(connection: Connection, first: int, second: int | None = None) -> Consistency:
    """The proof that the log of `first` leaves, which somebody holds a checkpoint of, was only ever added to.

    Args:
        connection: of `Database.read`.
        first: size of the older checkpoint, at least 1.
        second: size of the newer checkpoint; the latest when None.

    Raises:
        LogError: there is no checkpoint of the second size, or the first is not from 1 to the second.
    """
    sealed = _require_checkpoint(connection, second)
    hashes = merkle.consistency_proof(StoredNodes(connection), first, sealed.size)
    return {
        "proof": "consistency",
        "first": first,
        "second": sealed.size,
        "hashes": _texts(hashes),
        "checkpoint": sealed.note,
    }


def receipt_proof(connection: Connection, response_id: str, client: str) -> ReceiptProof:
    """The proof of a client's entry in the receipt of a response (or reversal); it tells nothing of other clients.

    Args:
        connection: of `Database.read`, with the right to read the whole receipt.
        response_id: of the receipt.
        client: whose entry to open.

    Raises:
        LogError: there is no such receipt, the client has no entry in it, or it is not sealed yet.
    """
    receipt = find_receipt(connection, response_id)
    if receipt is None:
        raise LogError(f"no receipt {response_id!r} is booked")
    opening = leaves.opening(vars(receipt), receipt.amounts, client)
    proved = inclusion(connection, "receipt", receipt.sequence)
    place: Place = {"leaf_index": proved["leaf_index"], "size": proved["size"], "hashes": proved["hashes"]}
    return {"proof": "receipt", "opening": opening, "inclusion": place, "checkpoint": proved["checkpoint"]}


def verify_receipt_proof(document: Any, keys: Sequence[VerifyKey], origin: str) -> ProvedEntry:
    """Check the proof of a receipt, offline.

    Args:
        document: as `receipt_proof` gave it.
        keys: public keys of the log that the checker knows from elsewhere.
        origin: the log's name that the checker knows from elsewhere.

    Raises:
        SignatureError: the checkpoint is malformed, or not signed by one of the keys, or another log's.
        LogError: the opening and the inclusion do not lead to the checkpoint's root, or a field has another form.
    """
    require_fields("proof", document, {"proof", "opening", "inclusion", "checkpoint"})
    if document["proof"] != "receipt":
        raise LogError(f"proof must be 'receipt', not {document['proof']!r}")
    checkpoint = require_included(leaves.leaf_of_opening(document["opening"]), document, keys, origin)
    head, entry = document["opening"]["head"], document["opening"]["entry"]
    shown = {name: head[name] for name in leaves.HEAD}
    return ProvedEntry(
        client=entry["account"], amount=leaves.amount_of_opening(document["opening"]), checkpoint=checkpoint, **shown
    )


def require_included(leaf: bytes, document: Any, keys: Sequence[VerifyKey], origin: str) -> Checkpoint:
    """Require that a leaf is in the log where a proof's `inclusion` says, under its `checkpoint`, which is returned.

    Raises:
        SignatureError: the checkpoint is malformed, or not signed by one of the keys, or another log's.
        LogError: the leaf and the inclusion do not lead to the checkpoint's root, or a field has another form.
    """
    checkpoint = _open(document["checkpoint"], keys, origin)
    place = document["inclusion"]
    require_fields("inclusion", place, {"leaf_index", "size", "hashes"})
    if type(place["size"]) is not int or place["size"] != checkpoint.size:
        raise LogError(f"inclusion.size is {place['size']!r}, but the checkpoint is of {checkpoint.size} leaves")
    hashes = _hashes("inclusion.hashes", place["hashes"])
    if not merkle.verify_inclusion(leaf, place["leaf_index"], checkpoint.size, hashes, checkpoint.root):
        raise LogError(
            f"the {'event' if 'event' in document else 'opening'} is not in the log at inclusion.leaf_index: it,"
            " inclusion and checkpoint do not belong together, or one was altered"
        )
    return checkpoint


def verify_consistency(document: Any, held: str, keys: Sequence[VerifyKey], origin: str) -> Checkpoint:
    """Check that a newer checkpoint extends the one that somebody holds, offline; returns the newer.

    Args:
        document: as `consistency` gave it.
        held: the signed note of the older checkpoint.
        keys: public keys of the log that the checker knows from elsewhere.
        origin: the log's name that the checker knows from elsewhere.

    Raises:
        SignatureError: a checkpoint is malformed, or not signed by one of the keys, or another log's.
        LogError: what the older checkpoint covers was altered, or a field has another form.
    """
    require_fields("proof", document, {"proof", "first", "second", "hashes", "checkpoint"})
    if document["proof"] != "consistency":
        raise LogError(f"proof must be 'consistency', not {document['proof']!r}")
    older, newer = _open(held, keys, origin), _open(document["checkpoint"], keys, origin)
    for name, checkpoint in (("first", older), ("second", newer)):
        if type(document[name]) is not int or document[name] != checkpoint.size:
            raise LogError(f"{name} is {document[name]!r}, but its checkpoint is of {checkpoint.size} leaves")
    hashes = _hashes("hashes", document["hashes"])
    if not merkle.verify_consistency(older.size, newer.size, older.root, newer.root, hashes):
        raise LogError(
            f"the log of {newer.size} leaves does not extend the one of {older.size} that you hold: its history was"
            " altered, or the proof was"
        )
    return newer


def _require_checkpoint(connection: Connection, size: int | None) -> SealedCheckpoint:
    sealed = checkpoint_at(connection, size)
    if sealed is not None:
        return sealed
    latest = checkpoint_at(connection, None)
    if latest is None:
        raise LogError("nothing is sealed in the log yet; what is booked is within the next sealing interval")
    raise LogError(f"there is no checkpoint of size {size!r}; the latest is of size {latest.size}")


def _open(note: Any, keys: Sequence[VerifyKey], origin: str) -> Checkpoint:
    if not isinstance(note, str):
        raise LogError(f"checkpoint must be a signed note, not {note!r}")
    return open_checkpoint(note, keys, origin)


def _texts(hashes: Sequence[bytes]) -> list[str]:
    return [base64_text(value) for value in hashes]


def _hashes(name: str, texts: Any) -> list[bytes]:
    if not isinstance(texts, list):
        raise LogError(f"{name} must be a list of hashes in base64, not {texts!r}")
    return [base64_bytes(text, 32, f"{name}[{place}]") for place, text in enumerate(texts)]


def require_fields(name: str, value: Any, fields: set[str]) -> None:
    """Refuse what is no object of exactly those fields.

    Raises:
        LogError: it is not; it is named.
    """
    if not isinstance(value, dict) or set(value) != fields:
        raise LogError(f"{name} must be an object of exactly {', '.join(sorted(fields))}")
