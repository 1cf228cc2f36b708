"""Events, replayed in order, and the state they leave behind: registered clients, signing keys, bearer keys.

Knows what these kinds of events mean; those of periods are the business of `rewards.audit.settlement.replay`.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from rewards.audit import hashing
from rewards.audit.hashing import Document
from rewards.audit.report import DifferenceError, Stamps, canonical_object
from rewards.audit.source import Source, StoredRow
from rewards.errors import SignatureError
from rewards.signing.keys import VerifyKey
from rewards.store.tables import ApiKeyRow, EventRow

COMMONS = "commons"
_UNTOLD = ("last_used_at_us", "last_used_sha256")  # of a bearer key: in no event, for it changes all the time


class Events:
    """A pass over all events.

    Attributes:
        accounts: consortium -> accounts that may be credited there.
        signing_keys: those that the books name.
    """

    def __init__(self, source: Source) -> None:
        self.accounts: dict[str, set[str]] = {}
        self.signing_keys: list[VerifyKey] = []
        self._source = source
        self._stamps = Stamps()

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Sequence and leaf hash of each event that is in order.

        Raises:
            DifferenceError: the next one is not.
        """
        query = select(EventRow).order_by(col(EventRow.sequence))
        for expected, event in enumerate(self._source.rows(query), start=1):
            if event["sequence"] != expected:
                raise DifferenceError("events", expected, "sequence", actual=None, expected=expected)
            if not self._stamps.follows(event["at_us"]):
                least = f"at least {self._stamps.last_us}, when the event before it happened, or long before"
                raise DifferenceError("events", expected, "at_us", actual=event["at_us"], expected=least)
            canonical_object("events", expected, "document", event["document"])
            if event["kind"] == "client.registered":
                consortium, _, client = event["subject"].partition("/")
                self.accounts.setdefault(consortium, {COMMONS}).add(client)
            elif event["kind"] == "signing_key.added":
                self.signing_keys.append(_signing_key(event))
            yield expected, hashing.event_leaf(event)


def registered_accounts(source: Source, consortium: str) -> set[str]:
    """Accounts that may be credited in a consortium, by events that were not checked."""
    subjects = select(col(EventRow.subject)).where(col(EventRow.kind) == "client.registered")
    parts = (row["subject"].partition("/") for row in source.all(subjects))
    return {COMMONS} | {client for name, _, client in parts if name == consortium}


def signing_keys(source: Source) -> list[VerifyKey]:
    """The keys that sign for the books, by events that were not checked.

    Raises:
        DifferenceError: an event holds no key.
    """
    added = select(EventRow).where(col(EventRow.kind) == "signing_key.added").order_by(col(EventRow.sequence))
    return [_signing_key(event) for event in source.all(added)]


def check_bearer_keys(source: Source) -> None:
    """Hold every bearer key against the events that made, rotated and revoked it, and its last use against a checksum.

    Its identity must be the first key of its rotations, as their events tell them. A copy from before there were
    identities has none to check.

    Raises:
        DifferenceError: a key differs from what its events say, has none, or is missing; or the checksum differs.
    """
    columns = source.columns(ApiKeyRow)
    for key in source.rows(select(*columns).order_by(col(ApiKeyRow.key_id))):
        told = _key_by_events(source, key["key_id"])
        if told is None:
            raise DifferenceError("api_keys", key["key_id"], "key_id", actual=key["key_id"], expected=None)
        if "identity" in key:
            told["identity"] = _first_of_chain(source, key["key_id"])
        secret = sha256(key.pop("secret_hmac").encode()).hexdigest()
        stored = {name: value for name, value in key.items() if name not in _UNTOLD} | {"secret_sha256": secret}
        for name in sorted({*stored, *told}):
            if stored.get(name) != told.get(name):
                field = "secret_hmac (its SHA-256)" if name == "secret_sha256" else name
                expected = told.get(name)
                raise DifferenceError("api_keys", key["key_id"], field, actual=stored.get(name), expected=expected)
        last_use = {name: key[name] for name in ("key_id", "last_used_at_us")}
        expected = None if key["last_used_at_us"] is None else hashing.checksum(last_use)
        if key["last_used_sha256"] != expected:
            stored_sha256 = key["last_used_sha256"]
            raise DifferenceError(
                "api_keys", key["key_id"], "last_used_sha256", actual=stored_sha256, expected=expected
            )
    created = select(EventRow).where(col(EventRow.kind) == "key.created").order_by(col(EventRow.sequence))
    for event in source.rows(created):
        row = select(col(ApiKeyRow.key_id)).where(col(ApiKeyRow.key_id) == event["subject"])
        if not source.all(row):
            key_id = event["subject"]
            raise DifferenceError("api_keys", key_id, "key_id", actual=None, expected=key_id)


def _first_of_chain(source: Source, key_id: str) -> str:
    """The key that a chain of rotations began with, by the events that made its keys."""
    seen: list[str] = []
    before: Any = key_id
    while isinstance(before, str) and before not in seen:
        seen.append(before)
        before = (_key_by_events(source, before) or {}).get("rotated_from")
    return seen[-1]


def _key_by_events(source: Source, key_id: str) -> Document | None:
    """A bearer key as its events leave it; None without an event that made it."""
    told: Document | None = None
    kinds = ("key.created", "key.rotated", "key.revoked")
    of_key = col(EventRow.kind).in_(kinds), col(EventRow.subject) == key_id
    for event in source.all(select(EventRow).where(*of_key).order_by(col(EventRow.sequence))):
        document = canonical_object("events", event["sequence"], "document", event["document"])
        if event["kind"] == "key.created":
            told = {"revoked_at_us": None, **document}
        elif told is not None and event["kind"] == "key.rotated":
            told["expires_at_us"] = document.get("expires_at_us")
        elif told is not None:
            told["revoked_at_us"] = document.get("revoked_at_us")
    return told


def _signing_key(event: StoredRow) -> VerifyKey:
    sequence = event["sequence"]
    encoded = canonical_object("events", sequence, "document", event["document"]).get("public")
    try:
        key = VerifyKey.decode(str(encoded))
    except SignatureError as error:
        raise DifferenceError("events", sequence, "document", actual=encoded, expected=str(error)) from None
    if key.key_id != event["subject"]:
        raise DifferenceError("events", sequence, "subject", actual=event["subject"], expected=key.key_id)
    return key
