"""Which bundle answers for a consortium, and from when: each publication an event, of which the last one stands.

A bundle is known by the hash of its global model, as receipts name it; where it lies is what whoever published it said.
A publication that is withdrawn leaves the one before it standing. Reads and writes events; opens no bundle.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.errors import PublicationError
from rewards.store import events
from rewards.store.tables import EventRow

PUBLISHED: Final = "bundle.published"
WITHDRAWN: Final = "bundle.withdrawn"
"""Two kinds of event; their subject is the consortium. Migration 0007 names them."""


@dataclass(frozen=True)
class Publication:
    """A bundle that was put in service.

    Attributes:
        sequence: number of its event.
        at_us: when, in microseconds since 1970.
        actor: who did it: "service" for what a service was set to serve, else "command line".
        model_sha256: hash of the bundle's global model.
        manifest_sha256: hash of its manifest, which names all that is in it.
        bundle: its folder, absolute.
        round: of federated training.
        is_withdrawn: whether it was taken back.
        withdrawn_at_us: when that was; None where it was not.
        withdrawn_by: who did that, likewise.
    """

    sequence: int
    at_us: int
    actor: str
    model_sha256: str
    manifest_sha256: str
    bundle: str
    round: int
    is_withdrawn: bool = False
    withdrawn_at_us: int | None = None
    withdrawn_by: str | None = None


def publish(
    connection: Connection,
    consortium: str,
    *,
    bundle: str,
    model_sha256: str,
    manifest_sha256: str,
    round_number: int,
    actor: str,
) -> None:
    """Let a bundle answer for a consortium from now on, within `Database.write`.

    Raises:
        PublicationError: another bundle of the same global model was published: a receipt would not tell them apart.
    """
    require_own_model(connection, bundle=bundle, model_sha256=model_sha256, manifest_sha256=manifest_sha256)
    document = {
        "bundle": bundle,
        "manifest_sha256": manifest_sha256,
        "model_sha256": model_sha256,
        "round": round_number,
    }
    events.record(connection, PUBLISHED, consortium, actor, document)


def require_own_model(connection: Connection, *, bundle: str, model_sha256: str, manifest_sha256: str) -> None:
    """Return where no other bundle was published with a bundle's global model.

    Raises:
        PublicationError: one was.
    """
    for each in history(connection):
        if each.model_sha256 == model_sha256 and each.manifest_sha256 != manifest_sha256:
            raise PublicationError(
                f"{bundle} has the global model of {each.bundle}, which was published, and not its manifest: receipts "
                "tell bundles apart by their global model, so who earns by it must stay as it was"
            )


def withdraw(connection: Connection, consortium: str, actor: str) -> tuple[Publication, Publication]:
    """Take the standing publication back, within `Database.write`: it, and the one before, which stands now.

    Raises:
        PublicationError: there is none before it.
    """
    left = standing(connection, consortium)
    if len(left) < 2:
        what = f"only {left[0].bundle} is published" if left else "nothing is published"
        raise PublicationError(f"{what} for consortium {consortium!r}, so there is nothing to go back to")
    document = {"publication": left[-1].sequence, "model_sha256": left[-1].model_sha256}
    events.record(connection, WITHDRAWN, consortium, actor, document)
    return left[-1], left[-2]


def standing(connection: Connection, consortium: str) -> list[Publication]:
    """The publications of a consortium that were not withdrawn, oldest first: the last one answers."""
    return [each for each in history(connection, consortium) if not each.is_withdrawn]


def standing_since(told: Sequence[Publication]) -> tuple[Publication, int] | None:
    """Of all publications of one consortium, oldest first, the one that answers, and since when; None where none does.

    One that answers again since a later one was taken back does so from then on.
    """
    last = next((each for each in reversed(told) if not each.is_withdrawn), None)
    if last is None:
        return None
    moments = [each.withdrawn_at_us for each in told if each.sequence > last.sequence]
    return last, max([last.at_us, *(at_us for at_us in moments if at_us is not None)])


def history(connection: Connection, consortium: str | None = None) -> list[Publication]:
    """Every publication, of one consortium or of all, oldest first, those that were withdrawn too."""
    columns = (col(EventRow.sequence), col(EventRow.kind), col(EventRow.at_us), col(EventRow.actor))
    query = (
        select(*columns, col(EventRow.document))
        .where(col(EventRow.kind).in_([PUBLISHED, WITHDRAWN]))
        .order_by(col(EventRow.sequence))
    )
    if consortium is not None:
        query = query.where(col(EventRow.subject) == consortium)
    rows = [(row, json.loads(row.document)) for row in connection.execute(query)]
    withdrawn = {document["publication"]: row for row, document in rows if row.kind == WITHDRAWN}
    return [
        Publication(
            row.sequence,
            row.at_us,
            row.actor,
            document["model_sha256"],
            document["manifest_sha256"],
            document["bundle"],
            document["round"],
            is_withdrawn=row.sequence in withdrawn,
            withdrawn_at_us=withdrawn[row.sequence].at_us if row.sequence in withdrawn else None,
            withdrawn_by=withdrawn[row.sequence].actor if row.sequence in withdrawn else None,
        )
        for row, document in rows
        if row.kind == PUBLISHED
    ]
