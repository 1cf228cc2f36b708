"""Bearer keys: created, hashed at rest, verified, revoked. Knows roles by name, not what they may do."""

from __future__ import annotations

import hmac
import re
import secrets
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update
from sqlmodel import col

from rewards.database import Database, now_us
from rewards.errors import KeyRingError
from rewards.tables import ApiKeyRow

if TYPE_CHECKING:
    from sqlalchemy import Row

ROLES = ("application", "operator")
"""What a key can be for: calling the model, or querying and settling."""

_PRESENTED = re.compile(r"ptk_(?P<key_id>[0-9a-f]{12})_(?P<secret>[A-Za-z0-9_-]{43})")
_LABEL_LENGTH = 100


@dataclass(frozen=True)
class Key:
    """A key without its secret. Times are microseconds since 1970; `revoked_at_us` is None while it is valid."""

    key_id: str
    role: str
    label: str
    created_at_us: int
    revoked_at_us: int | None


class KeyRing:
    """The keys of a ledger database; usable from several threads.

    Args:
        url: `sqlite:////absolute/path.db`, made by `Ledger.prepare`.

    Raises:
        LedgerError: the schema is missing or not at head (here), the database fails (every method).
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    def create(self, role: str, label: str) -> str:
        """Create a key and return it as `ptk_<key id>_<secret>`: this once, since only its hash is kept.

        Raises:
            KeyRingError: an unknown role, or a label that is empty, unprintable or longer than 100 characters.
        """
        if role not in ROLES:
            raise KeyRingError(f"unknown role {role!r}; a key is for one of: {', '.join(ROLES)}")
        if not 0 < len(label) <= _LABEL_LENGTH or not label.isprintable():
            raise KeyRingError(f"a key's label must be 1 to {_LABEL_LENGTH} printable characters, not {label!r}")
        key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)  # 256 random bits: a plain hash is enough
        row = {
            "key_id": key_id,
            "role": role,
            "label": label,
            "secret_sha256": _hash(secret),
            "created_at_us": now_us(),
        }
        with self._database.write() as connection:
            connection.execute(insert(ApiKeyRow).values(row))
        return f"ptk_{key_id}_{secret}"

    def verify(self, presented: str) -> Key | None:
        """The key that was presented; None when it is malformed, unknown, wrong or revoked."""
        match = _PRESENTED.fullmatch(presented)
        if match is None:
            return None
        with self._database.read() as connection:
            row = connection.execute(select(ApiKeyRow).where(col(ApiKeyRow.key_id) == match["key_id"])).one_or_none()
        if row is None or not hmac.compare_digest(row.secret_sha256, _hash(match["secret"])):
            return None
        return None if row.revoked_at_us is not None else _key(row)

    def revoke(self, key_id: str) -> None:
        """Revoke a key from now on; one that is revoked already keeps its moment.

        Raises:
            KeyRingError: there is no such key.
        """
        key = col(ApiKeyRow.key_id) == key_id
        with self._database.write() as connection:
            if connection.execute(select(col(ApiKeyRow.key_id)).where(key)).one_or_none() is None:
                raise KeyRingError(f"no key {key_id!r}; the key id is the middle part of ptk_<key id>_<secret>")
            valid = col(ApiKeyRow.revoked_at_us).is_(None)
            connection.execute(update(ApiKeyRow).where(key, valid).values(revoked_at_us=now_us()))

    def list(self) -> tuple[Key, ...]:
        """Every key there ever was, in the order of creation."""
        order = col(ApiKeyRow.created_at_us), col(ApiKeyRow.key_id)
        with self._database.read() as connection:
            return tuple(_key(row) for row in connection.execute(select(ApiKeyRow).order_by(*order)))

    def close(self) -> None:
        """Close every connection."""
        self._database.close()


def _key(row: Row[Any]) -> Key:
    return Key(row.key_id, row.role, row.label, row.created_at_us, row.revoked_at_us)


def _hash(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()
