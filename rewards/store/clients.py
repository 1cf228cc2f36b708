"""Which clients may be credited: registered once, for ever, in the events. Knows no bundle and no receipt."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import Connection, select
from sqlmodel import col

from rewards.credit import COMMONS, PENDING
from rewards.errors import CreditError
from rewards.store import events
from rewards.store.presence import CLIENT_REGISTERED
from rewards.store.tables import EventRow

KIND = CLIENT_REGISTERED
_ID_LENGTH = 100


def register(connection: Connection, consortium: str, members: Mapping[str, str]) -> None:
    """Register clients (id -> display name) that are not yet; within `Database.write`.

    An account is known by its client's id alone, so an id means one organisation in the whole ledger: another
    consortium may register it again under the same name, which is how an organisation is in two consortia.

    Raises:
        CreditError: an id that is reserved, empty, unprintable, too long, or holds a slash; or one by which another
            consortium calls somebody else. Nothing is registered then.
    """
    for member in (consortium, *members):
        if not 0 < len(member) <= _ID_LENGTH or not member.isprintable() or "/" in member:
            raise CreditError(f"id {member!r} must be 1 to {_ID_LENGTH} printable characters without a slash")
        if member in (COMMONS, PENDING):
            raise CreditError(f"client {member!r} bears the name of a reserved account; rename the client")
    everybody = registrations(connection)
    _require_one_organisation(everybody, consortium, members)
    known = everybody.get(consortium, {})
    for member, name in members.items():
        if member not in known:
            subject = f"{consortium}/{member}"
            events.record(connection, KIND, subject, "service", {"name": name}, once=f"{KIND}:{subject}")


def _require_one_organisation(
    everybody: Mapping[str, Mapping[str, str]], consortium: str, members: Mapping[str, str]
) -> None:
    for other, clients in everybody.items():
        for member in members.keys() & clients.keys() - everybody.get(consortium, {}).keys():
            if other != consortium and clients[member] != members[member]:
                raise CreditError(
                    f"client {member!r} is {clients[member]!r} in consortium {other!r} of this ledger, and "
                    f"{members[member]!r} in {consortium!r}: two organisations would share one account. Give this one "
                    f"an id of its own, as in '{consortium}.{member}'; the same organisation bears the same name"
                )


def registrations(connection: Connection) -> dict[str, dict[str, str]]:
    """Consortium -> client id -> display name, in the order of registration."""
    names: dict[str, dict[str, str]] = {}
    # Only these columns: a replica on PostgreSQL may read no others.
    columns = (col(EventRow.subject), col(EventRow.document))
    query = select(*columns).where(col(EventRow.kind) == KIND).order_by(col(EventRow.sequence))
    for subject, document in connection.execute(query):
        consortium, _, member = subject.partition("/")
        names.setdefault(consortium, {})[member] = json.loads(document)["name"]
    return names


def in_order(connection: Connection) -> list[tuple[str, str]]:
    """(consortium, client id) of everybody, in the order of registration over all consortia; only ever grows."""
    query = select(col(EventRow.subject)).where(col(EventRow.kind) == KIND).order_by(col(EventRow.sequence))
    subjects = (subject.partition("/") for subject in connection.execute(query).scalars())
    return [(consortium, member) for consortium, _, member in subjects]
