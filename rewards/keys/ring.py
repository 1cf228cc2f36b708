"""Bearer keys: made, hashed at rest under a pepper, checked, rotated, revoked. Does not know what a role may do.

Every creation, rotation and revocation is also an event, written in the same transaction: the table of keys can be
checked against the events, which hold everything about a key but what could be used to try one.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlmodel import col

from rewards.errors import KeyRefusedError, KeyRingError, LedgerError
from rewards.keys import key_text
from rewards.keys.pepper import PEPPER_BYTES
from rewards.keys.rules import LIMITS, Key, require_sound
from rewards.store import checksums, clients, events
from rewards.store.database import Database, now_us
from rewards.store.tables import ApiKeyRow

OVERLAP_S = 24 * 60 * 60
"""How long a rotated key still works: a day, in which its application is given the new one."""

LAST_USED_EVERY_US = 60_000_000
_LONGEST_OVERLAP_S = 366 * 24 * 60 * 60

_LOG = logging.getLogger(__name__)
_NO_HMAC = "0" * 64
_UNTOLD = ("secret_hmac", "last_used_sha256")


class KeyRing:
    """The keys of a ledger database; usable from several threads.

    Args:
        url: the ledger, made by `Ledger.prepare`.
        pepper: 32 bytes, from `rewards.keys.pepper`; None for somebody who only lists and revokes.

    Raises:
        KeyRingError: the pepper has another length.
        LedgerError: the schema is missing or not at head (here), the database fails (every method).
    """

    def __init__(self, url: str, pepper: bytes | None) -> None:
        if pepper is not None and len(pepper) != PEPPER_BYTES:
            raise KeyRingError(f"the pepper must be {PEPPER_BYTES} bytes, not {len(pepper)}")
        self._pepper = pepper
        self.database = Database(url)

    def create(
        self,
        role: str,
        label: str,
        *,
        actor: str,
        client: str | None = None,
        expires_at_us: int | None = None,
        token_budget: int | None = None,
        requests_per_minute: int | None = None,
        concurrency: int | None = None,
        weight: int | None = None,
    ) -> str:
        """Make a key and return it as `ptk_<key id>_<secret>`: this once, since only a hash of it is kept.

        Args:
            role: one of `ROLES`.
            label: what the key is for, 1 to 100 printable characters.
            actor: who makes it: a key id, or "command line".
            client: whose view a member's key has; a registered client. Only for members.
            expires_at_us: from when on it is refused, in microseconds since 1970; None for never.
            token_budget: tokens it may generate in its life. Only for applications, as the next.
            requests_per_minute: how fast it may ask.
            concurrency: how many responses it may have under way at once.
            weight: how much it gets of a busy service, against others that have 1.

        Raises:
            KeyRingError: one of these is not as it should be; it is named, and nothing was made.
        """
        fields = {
            "role": role,
            "label": label,
            "client": client,
            "created_at_us": now_us(),
            "expires_at_us": expires_at_us,
            "rotated_from": None,
            "token_budget": token_budget,
            "requests_per_minute": requests_per_minute,
            "concurrency": concurrency,
            "weight": weight,
        }
        require_sound(fields)
        with self.database.write() as connection:
            if client is not None:
                _require_registered(connection, client)
            return self._insert(connection, fields, actor, identity=None)

    def check(self, presented: str) -> Key:
        """The valid key that was presented.

        Raises:
            KeyRefusedError: there is none; only who has the right secret is told that a key expired or was revoked.
        """
        read = key_text.read(presented)
        if read is None:
            raise KeyRefusedError("the API key is not known", "unknown")
        key_id, secret = read
        with self.database.read() as connection:
            row = connection.execute(select(ApiKeyRow).where(col(ApiKeyRow.key_id) == key_id)).one_or_none()
        stored = _NO_HMAC if row is None else row.secret_hmac
        if not hmac.compare_digest(stored, self._hmac(secret)) or row is None:
            raise KeyRefusedError("the API key is not known", "unknown")
        return _require_valid(row)

    def find_valid(self, key_id: str) -> Key:
        """The valid key of that id, for somebody who presented it before and has proof of that.

        Raises:
            KeyRefusedError: there is none, it expired, or it was revoked.
        """
        with self.database.read() as connection:
            row = connection.execute(select(ApiKeyRow).where(col(ApiKeyRow.key_id) == key_id)).one_or_none()
        if row is None:
            raise KeyRefusedError("the API key is not known", "unknown")
        return _require_valid(row)

    def derive(self, purpose: bytes) -> bytes:
        """32 secret bytes for another purpose than hashing keys; the pepper cannot be told from them.

        Raises:
            KeyRingError: there is no pepper.
        """
        return hmac.new(self._require_pepper(), b"protoken/" + purpose, "sha256").digest()

    def verify(self, presented: str) -> Key | None:
        """The valid key that was presented; None when it is malformed, unknown, wrong, expired or revoked."""
        try:
            return self.check(presented)
        except KeyRefusedError:
            return None

    def note_use(self, key: Key) -> None:
        """Note that a key is in use, at most once a minute; where that fails, it is logged and nothing else."""
        at_us = now_us()
        last_used_at_us = col(ApiKeyRow.last_used_at_us)
        if key.last_used_at_us is not None and key.last_used_at_us > at_us - LAST_USED_EVERY_US:
            return
        due = last_used_at_us.is_(None) | (last_used_at_us <= at_us - LAST_USED_EVERY_US)
        last_use = {"key_id": key.key_id, "last_used_at_us": at_us}
        noted = {**last_use, "last_used_sha256": checksums.of_last_use(last_use)}
        try:
            with self.database.write() as connection:
                connection.execute(update(ApiKeyRow).where(col(ApiKeyRow.key_id) == key.key_id, due).values(noted))
        except LedgerError as error:
            _LOG.warning("the last use of key %s was not noted: %s", key.key_id, error)

    def rotate(self, key_id: str, *, actor: str, overlap_s: int = OVERLAP_S) -> str:
        """A new key in the place of a valid one, returned as by `create`; the old one works a little longer.

        The new key has the old one's identity, role, label, client and limits, and lives as long as the old one was
        made for. The old one works for `overlap_s` seconds more, and never longer than it would have.

        Raises:
            KeyRingError: there is no such key, it is not valid, it was rotated before, or the overlap is out of range.
        """
        if not 0 <= overlap_s <= _LONGEST_OVERLAP_S:
            raise KeyRingError(f"overlap_s must be 0 to {_LONGEST_OVERLAP_S} seconds, not {overlap_s}")
        with self.database.write() as connection:
            old = _find(connection, key_id)
            at_us = now_us()
            _require_rotatable(connection, old, at_us)
            lifetime_us = None if old.expires_at_us is None else old.expires_at_us - old.created_at_us
            fields = {
                "role": old.role,
                "label": old.label,
                "client": old.client,
                "created_at_us": at_us,
                "expires_at_us": None if lifetime_us is None else at_us + lifetime_us,
                "rotated_from": key_id,
                **{name: getattr(old, name) for name in LIMITS},
            }
            presented = self._insert(connection, fields, actor, identity=old.identity)
            ends_at_us = at_us + overlap_s * 1_000_000
            expires_at_us = ends_at_us if old.expires_at_us is None else min(ends_at_us, old.expires_at_us)
            _update(connection, key_id, expires_at_us=expires_at_us)
            document = {"replaced_by": _id_of(presented), "expires_at_us": expires_at_us}
            events.record(connection, "key.rotated", key_id, actor, document, once=f"key.rotated:{key_id}")
        return presented

    def revoke(self, key_id: str, *, actor: str) -> None:
        """Refuse a key from now on; one that is revoked already keeps its moment.

        Raises:
            KeyRingError: there is no such key.
        """
        with self.database.write() as connection:
            if _find(connection, key_id).revoked_at_us is not None:
                return
            document = {"revoked_at_us": now_us()}
            _update(connection, key_id, **document)
            events.record(connection, "key.revoked", key_id, actor, document, once=f"key.revoked:{key_id}")

    def list(self) -> tuple[Key, ...]:
        """Every key there ever was, in the order of creation."""
        order = col(ApiKeyRow.created_at_us), col(ApiKeyRow.key_id)
        with self.database.read() as connection:
            return tuple(_key(row) for row in connection.execute(select(ApiKeyRow).order_by(*order)))

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def _insert(self, connection: Connection, fields: Mapping[str, Any], actor: str, *, identity: str | None) -> str:
        """A new key's row and event; the key as it is presented."""
        key_id, secret = key_text.draw()
        secret_hmac = self._hmac(secret)
        fields = {**fields, "key_id": key_id, "identity": identity or key_id}
        connection.execute(insert(ApiKeyRow).values(secret_hmac=secret_hmac, **fields))
        document = {**fields, "secret_sha256": sha256(secret_hmac.encode("ascii")).hexdigest()}
        events.record(connection, "key.created", key_id, actor, document, once=f"key.created:{key_id}")
        return key_text.write(key_id, secret)

    def _hmac(self, secret: str) -> str:
        return hmac.new(self._require_pepper(), secret.encode("ascii"), "sha256").hexdigest()

    def _require_pepper(self) -> bytes:
        if self._pepper is None:
            raise KeyRingError("this key ring was opened without the pepper, and can only list and revoke")
        return self._pepper


def _require_registered(connection: Connection, client: str) -> None:
    names = sorted({each for members in clients.registrations(connection).values() for each in members})
    if client not in names:
        raise KeyRingError(
            f"client {client!r} is not registered in this ledger; registered are: {', '.join(names) or 'none'}; "
            "the clients of a bundle are registered when `protoken serve` starts with it"
        )


def _require_rotatable(connection: Connection, old: Row[Any], at_us: int) -> None:
    successor = connection.execute(
        select(col(ApiKeyRow.key_id)).where(col(ApiKeyRow.rotated_from) == old.key_id)
    ).scalar_one_or_none()
    if successor is not None:
        raise KeyRingError(f"key {old.key_id} was rotated before, to {successor}; rotate that one")
    state = _key(old).state(at_us)
    if state != "valid":
        raise KeyRingError(f"key {old.key_id} is {state} and cannot be rotated; create a new one")


def _find(connection: Connection, key_id: str) -> Row[Any]:
    row = connection.execute(select(ApiKeyRow).where(col(ApiKeyRow.key_id) == key_id)).one_or_none()
    if row is None:
        raise KeyRingError(f"no key {key_id!r}; the key id is the middle part of ptk_<key id>_<secret>")
    return row


def _update(connection: Connection, key_id: str, **fields: int) -> None:
    connection.execute(update(ApiKeyRow).where(col(ApiKeyRow.key_id) == key_id).values(**fields))


def _key(row: Row[Any]) -> Key:
    return Key(**{name: value for name, value in row._mapping.items() if name not in _UNTOLD})  # noqa: SLF001


def _require_valid(row: Row[Any]) -> Key:
    key = _key(row)
    state = key.state(now_us())
    if state == "valid":
        return key
    what = "has expired" if state == "expired" else "was revoked"
    raise KeyRefusedError(f"the API key {key.key_id} {what}", state)


def _id_of(presented: str) -> str:
    return presented.split("_", 2)[1]
