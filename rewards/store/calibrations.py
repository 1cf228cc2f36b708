"""How right the shares of a model are, as somebody measured it: each calibration an event, so that the log covers it.

A calibration is of a consortium's model, by the hash by which receipts name that. What was found is a document of
whoever measured; it is kept as it is. Reads and writes events; knows no model and computes nothing.
"""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.errors import CalibrationError
from rewards.files.strict_json import JsonObject
from rewards.store import clients, events, publications
from rewards.store.events import Event
from rewards.store.tables import EventRow, ReceiptRow

KIND: Final = "calibration"
"""A kind of event; its subject is the consortium, and its document names the model as `model_sha256`."""


def book(connection: Connection, consortium: str, document: JsonObject, identity: str, actor: str) -> tuple[int, bool]:
    """Write a calibration, within `Database.write`: the number of its event, and whether it is new.

    What was found before is not written again: it stands from when it was found first, and a command that is repeated,
    since nobody knows whether it came to its end, adds nothing.

    Args:
        connection: of `Database.write`.
        consortium: whose model was measured.
        document: what was found.
        identity: the same for two documents that find the same; at most 100 characters.
        actor: who measured.
    """
    once = f"{KIND}:{identity}"
    known = connection.execute(select(col(EventRow.sequence)).where(col(EventRow.once) == once)).scalar_one_or_none()
    if known is not None:
        return int(known), False
    return events.record(connection, KIND, consortium, actor, document, once=once), True


def require_known_model(
    connection: Connection, consortium: str, *, bundle: str, model_sha256: str, manifest_sha256: str
) -> None:
    """Return where a bundle is one that this ledger knows: published for its consortium, or credited there.

    Raises:
        CalibrationError: the consortium is not registered, or its model was neither published nor credited.
        PublicationError: another bundle of the same global model was published.
    """
    registered = clients.registrations(connection)
    if consortium not in registered:
        known = ", ".join(sorted(registered)) or "none"
        raise CalibrationError(f"{bundle}: the ledger knows no consortium {consortium!r}, only {known}")
    publications.require_own_model(
        connection, bundle=bundle, model_sha256=model_sha256, manifest_sha256=manifest_sha256
    )
    is_published = any(each.model_sha256 == model_sha256 for each in publications.history(connection, consortium))
    if not is_published and not _is_credited(connection, consortium, model_sha256):
        raise CalibrationError(
            f"{bundle}: its model {model_sha256[:12]} was neither published for consortium {consortium!r} nor credited "
            "in this ledger; calibrate the bundle that is served, or publish this one first"
        )


def latest(connection: Connection, consortium: str) -> list[Event]:
    """The last calibration of each model of a consortium, in the order in which they were written."""
    last: dict[Any, Event] = {}
    for event in events.find(connection, kinds=[KIND], subject=consortium):
        last.pop(event.document["model_sha256"], None)
        last[event.document["model_sha256"]] = event
    return list(last.values())


def _is_credited(connection: Connection, consortium: str, model_sha256: str) -> bool:
    of_model = col(ReceiptRow.consortium) == consortium, col(ReceiptRow.model_sha256) == model_sha256
    return connection.execute(select(col(ReceiptRow.sequence)).where(*of_model).limit(1)).first() is not None
