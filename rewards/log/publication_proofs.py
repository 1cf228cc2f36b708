"""The proof that a bundle was published: its event in the signed books, checked offline against the bundle in hand.

A bundle's manifest names all that is in it by hash, its members' updates too, and the event names the manifest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.errors import CreditError, LogError
from rewards.log import leaves
from rewards.log.proofs import Place, inclusion, require_fields, require_included
from rewards.signing.keys import VerifyKey
from rewards.signing.notes import Checkpoint
from rewards.store.publications import PUBLISHED, history
from rewards.store.tables import EventRow


@dataclass(frozen=True)
class ProvedPublication:
    """What such a proof shows.

    Attributes:
        consortium: whose bundle was published.
        round: of its training.
        manifest_sha256: of the bundle's `consortium.json`.
        at_us: when, in microseconds since 1970.
        checkpoint: what was signed.
    """

    consortium: str
    round: int
    manifest_sha256: str
    at_us: int
    checkpoint: Checkpoint


class PublicationProof(TypedDict):
    """The event as it is stored, and where it is in the log; the checkpoint is a signed note."""

    proof: Literal["publication"]
    event: dict[str, Any]
    inclusion: Place
    checkpoint: str


def publication_proof(connection: Connection, consortium: str, round_number: int | None = None) -> PublicationProof:
    """The proof of the publication that stands for a consortium, or of the last of one round.

    Args:
        connection: of `Database.read`.
        consortium: whose.
        round_number: of the bundle; None for the one that answers now. One that was taken back is proved only where no
            other of its round stands.

    Raises:
        LogError: there is none, or it is not sealed yet.
    """
    told = [each for each in history(connection, consortium) if round_number in (None, each.round)]
    published = [each for each in told if not each.is_withdrawn] or told
    if not published:
        what = "no bundle" if round_number is None else f"no bundle of round {round_number}"
        raise LogError(f"{what} was published for consortium {consortium!r}")
    sequence = published[-1].sequence
    event = dict(connection.execute(select(EventRow).where(col(EventRow.sequence) == sequence)).mappings().one())
    proved = inclusion(connection, "event", sequence)
    place: Place = {"leaf_index": proved["leaf_index"], "size": proved["size"], "hashes": proved["hashes"]}
    return {"proof": "publication", "event": event, "inclusion": place, "checkpoint": proved["checkpoint"]}


def verify_publication_proof(document: Any, keys: Sequence[VerifyKey], origin: str) -> ProvedPublication:
    """Check such a proof, offline.

    Args:
        document: as `publication_proof` gave it.
        keys: public keys of the log that the checker knows from elsewhere.
        origin: the log's name that the checker knows from elsewhere.

    Raises:
        SignatureError: the checkpoint is malformed, or not signed by one of the keys, or another log's.
        LogError: the event is not in the log, is no publication, or a field has another form.
    """
    require_fields("proof", document, {"proof", "event", "inclusion", "checkpoint"})
    if document["proof"] != "publication":
        raise LogError(f"proof must be 'publication', not {document['proof']!r}")
    event = document["event"]
    require_fields("event", event, set(leaves.EVENT))
    try:
        leaf = leaves.event_leaf(event)
    except CreditError as error:
        raise LogError(f"event: {error}") from error
    checkpoint = require_included(leaf, document, keys, origin)
    if event["kind"] != PUBLISHED:
        raise LogError(f"event.kind must be {PUBLISHED!r}, not {event['kind']!r}")
    published: Mapping[str, Any] = json.loads(event["document"])  # it is what the log's owner signed
    return ProvedPublication(
        event["subject"], published["round"], published["manifest_sha256"], event["at_us"], checkpoint
    )
