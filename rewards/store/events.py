"""The book of what happened besides receipts: who did what, when, and what came of it. Append-only, numbered gap-free.

Knows how an event is written and found; what a kind means is the business of whoever records it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, func, insert, select
from sqlmodel import col

from rewards.credit import canonical_bytes
from rewards.files.strict_json import JsonObject
from rewards.moments import stamp
from rewards.store.database import now_us
from rewards.store.tables import EventRow

SALT_BYTES = 32


@dataclass(frozen=True)
class Event:
    """One event as it was written.

    Attributes:
        sequence: its number, from 1 without gap.
        kind: what happened, as in "period.final".
        subject: to what, as in the period's name.
        at_us: when, in microseconds since 1970, by the ledger's time; not earlier than the event before it, unless that
            was stamped by a clock that was wrong.
        actor: who did it: a key id, or "command line".
        document: the rest, JSON.
        salt: 64 hex digits that keep the event's leaf in the Merkle log from being guessed.
        once: what can happen only once, or None.
    """

    sequence: int
    kind: str
    subject: str
    at_us: int
    actor: str
    document: JsonObject
    salt: str
    once: str | None


def record(
    connection: Connection, kind: str, subject: str, actor: str, document: Mapping[str, Any], *, once: str | None = None
) -> int:
    """Write an event into the open transaction, which must be one of `Database.write`; returns its sequence number.

    Raises:
        CreditError: the document has no JSON form.
    """
    last = connection.execute(
        select(col(EventRow.sequence), col(EventRow.at_us)).order_by(col(EventRow.sequence).desc()).limit(1)
    ).one_or_none()
    sequence, last_us = (1, 0) if last is None else (last[0] + 1, last[1])
    row = {
        "sequence": sequence,
        "kind": kind,
        "subject": subject,
        "at_us": stamp(now_us(connection), last_us),
        "actor": actor,
        "document": canonical_bytes(dict(document)).decode(),
        "salt": secrets.token_hex(SALT_BYTES),
        "once": once,
    }
    connection.execute(insert(EventRow).values(row))
    return sequence


def find(
    connection: Connection,
    *,
    kinds: Iterable[str] | None = None,
    subject: str | None = None,
    after: int = 0,
    limit: int | None = None,
) -> list[Event]:
    """Events after a sequence number in their order, narrowed by kind and subject; all of them without a limit."""
    query = select(EventRow).where(col(EventRow.sequence) > after).order_by(col(EventRow.sequence))
    if kinds is not None:
        query = query.where(col(EventRow.kind).in_(list(kinds)))
    if subject is not None:
        query = query.where(col(EventRow.subject) == subject)
    if limit is not None:
        query = query.limit(limit)
    return read(connection, query)


def read(connection: Connection, query: Select[Any]) -> list[Event]:
    """The events that a query over their rows finds."""
    rows = connection.execute(query).mappings()
    return [Event(**{**row, "document": json.loads(row["document"])}) for row in rows]


def counts(connection: Connection, after: int = 0) -> dict[str, int]:
    """Kind -> how many events there are of it after a sequence number."""
    kind = col(EventRow.kind)
    query = select(kind, func.count()).where(col(EventRow.sequence) > after).group_by(kind)
    return {row[0]: row[1] for row in connection.execute(query)}


def last_event(connection: Connection) -> int:
    """The sequence number of the last event; 0 when there is none."""
    return connection.execute(select(func.max(col(EventRow.sequence)))).scalar_one() or 0
