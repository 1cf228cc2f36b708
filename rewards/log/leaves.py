"""The bytes that stand in the Merkle log for a receipt and for an event, and what one client is shown of a receipt.

Pure: rows in, hashes out. A receipt's leaf commits to its head, to its payload and to each entry apart, each under a
salt of its own, so that one client can be shown its entry while the others' stay hidden behind hashes that cannot be
guessed. All salts are the 64 hex digits as they are written, taken as ASCII:

    salt of a part      HMAC-SHA256(receipt salt, "head" | "payload" | "entry:" account)
    commitment          SHA-256(salt of the part || canonical JSON of the part)
    leaf of a receipt   canonical JSON of {"entries": [commitments, sorted], "head", "leaf": "receipt", "payload"}
    leaf of an event    canonical JSON of the whole row and "leaf": "event"
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, TypedDict

from rewards.credit import canonical_bytes
from rewards.errors import CreditError, LogError
from rewards.log.merkle import leaf_hash

HEAD = ("sequence", "kind", "response_id", "reverses", "booked_at_us")
"""Columns of a receipt that every client of it is shown."""
ENTRY = ("account", "amount")
EVENT = ("sequence", "kind", "subject", "at_us", "actor", "document", "salt", "once")
"""Columns of an event, all of which its leaf commits to."""
_HEX = re.compile(r"[0-9a-f]{64}")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,30}")


class Head(TypedDict):
    """What every client of a receipt is shown of it, with its salt."""

    sequence: int
    kind: str
    response_id: str
    reverses: str | None
    booked_at_us: int
    salt: str


class ShownEntry(TypedDict):
    """An entry with its salt; micro-credits as decimal text."""

    account: str
    amount: str
    salt: str


class Opening(TypedDict):
    """What shows one account its entry of a receipt."""

    head: Head
    entry: ShownEntry
    others: list[str]
    payload: str


def receipt_leaf(receipt: Mapping[str, Any], amounts: Mapping[str, int]) -> bytes:
    """Leaf hash of a receipt.

    Args:
        receipt: at least the columns of `HEAD`, `payload_sha256` (which commits to all others) and `salt`.
        amounts: account -> micro-credits of all its entries.
    """
    salt = receipt["salt"]
    entries = [_entry_commitment(salt, account, amount) for account, amount in amounts.items()]
    return _leaf(entries, _commitment(_head(receipt)), _payload_commitment(receipt))


def event_leaf(event: Mapping[str, Any]) -> bytes:
    """Leaf hash of an event; the row as it is stored, its document as text."""
    return leaf_hash(canonical_bytes({**{name: event[name] for name in EVENT}, "leaf": "event"}))


def opening(receipt: Mapping[str, Any], amounts: Mapping[str, int], account: str) -> Opening:
    """What shows one account its entry of a receipt, and nothing of what others got; for `leaf_of_opening`.

    Args:
        receipt: as for `receipt_leaf`.
        amounts: all entries of the receipt.
        account: whose entry is opened.

    Raises:
        LogError: the account has no entry there.
    """
    if account not in amounts:
        raise LogError(f"receipt {receipt['response_id']!r} has no entry of {account!r}")
    salt = receipt["salt"]
    others = [_entry_commitment(salt, other, amount) for other, amount in amounts.items() if other != account]
    return {
        "head": _head(receipt),
        "entry": {"account": account, "amount": str(amounts[account]), "salt": _part_salt(salt, f"entry:{account}")},
        "others": sorted(others),
        "payload": _payload_commitment(receipt),
    }


def leaf_of_opening(document: Any) -> bytes:
    """Leaf hash of the receipt that an opening, as from `opening`, opens in part.

    Raises:
        LogError: it has another form; the field is named.
    """
    _require_fields("opening", document, ("head", "entry", "others", "payload"))
    _require_fields("opening.head", document["head"], (*HEAD, "salt"))
    _require_fields("opening.entry", document["entry"], (*ENTRY, "salt"))
    _require_hex("opening.head.salt", document["head"]["salt"])
    _require_hex("opening.entry.salt", document["entry"]["salt"])
    _require_hex("opening.payload", document["payload"])
    others = document["others"]
    if not isinstance(others, list):
        raise LogError(f"opening.others must be a list of commitments, not {others!r}")
    for place, other in enumerate(others):
        _require_hex(f"opening.others[{place}]", other)
    if sorted(set(others)) != others:
        raise LogError("opening.others must be in order, each once")
    try:
        entry = {**document["entry"], "amount": amount_of_opening(document)}
        entries = [_commitment(entry), *others]
        return _leaf(entries, _commitment(document["head"]), document["payload"])
    except CreditError as error:
        raise LogError(f"opening: {error}") from error


def amount_of_opening(document: Mapping[str, Any]) -> int:
    """The micro-credits that an opening shows: as decimal text, or as the number that openings had before.

    Raises:
        LogError: it is neither.
    """
    amount = document["entry"]["amount"]
    if isinstance(amount, str) and _WHOLE.fullmatch(amount):
        return int(amount)
    if type(amount) is not int:
        raise LogError(f"opening.entry.amount must be micro-credits as decimal text, not {amount!r}")
    return amount


def _leaf(entries: list[str], head: str, payload: str) -> bytes:
    return leaf_hash(canonical_bytes({"entries": sorted(entries), "head": head, "leaf": "receipt", "payload": payload}))


def _head(receipt: Mapping[str, Any]) -> Head:
    return {
        "sequence": receipt["sequence"],
        "kind": receipt["kind"],
        "response_id": receipt["response_id"],
        "reverses": receipt["reverses"],
        "booked_at_us": receipt["booked_at_us"],
        "salt": _part_salt(receipt["salt"], "head"),
    }


def _entry_commitment(salt: str, account: str, amount: int) -> str:
    return _commitment({"account": account, "amount": amount, "salt": _part_salt(salt, f"entry:{account}")})


def _payload_commitment(receipt: Mapping[str, Any]) -> str:
    """Not the payload's hash itself: whoever knows all but the others' amounts could find these by trying."""
    payload = {"payload_sha256": receipt["payload_sha256"], "salt": _part_salt(receipt["salt"], "payload")}
    return _commitment(payload)


def _part_salt(salt: str, part: str) -> str:
    return hmac.digest(salt.encode(), part.encode(), "sha256").hex()


def _commitment(part: Mapping[str, Any]) -> str:
    """Hash of a part that carries its salt along."""
    shown = {name: value for name, value in part.items() if name != "salt"}
    return sha256(part["salt"].encode() + canonical_bytes(shown)).hexdigest()


def _require_fields(name: str, value: Any, fields: tuple[str, ...]) -> None:
    if not isinstance(value, dict) or set(value) != set(fields):
        raise LogError(f"{name} must be an object of exactly {', '.join(fields)}")


def _require_hex(name: str, value: Any) -> None:
    if not isinstance(value, str) or _HEX.fullmatch(value) is None:
        raise LogError(f"{name} must be 64 hex digits, not {value!r}")
