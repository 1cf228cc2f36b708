"""How rows are hashed, written a second time and on purpose: it must not share a fault with what it checks.

Same words as `rewards.log.leaves` and RFC 9162, section 2.1; no code in common.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

Document = dict[str, Any]
"""A JSON object of the books; what it holds is for the audit to judge."""
EMPTY_ROOT = sha256(b"").hexdigest()
_PAYLOAD = (
    "response_id",
    "created_at_us",
    "application",
    "consortium",
    "model_sha256",
    "method",
    "version",
    "tokens",
    "duration_us",
)
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_text(document: Any) -> str:
    """The one spelling of JSON that the books use."""
    return _CANONICAL.encode(document)


def payload_sha256(receipt: Mapping[str, Any], settings: Any, measurement: Any, amounts: Mapping[str, int]) -> str:
    """Hash over everything that was measured and credited for one response."""
    payload = {name: receipt[name] for name in _PAYLOAD}
    payload |= {"settings": settings, "measurement": measurement, "amounts": dict(amounts)}
    return sha256(canonical_text(payload).encode()).hexdigest()


def checksum(columns: Mapping[str, Any]) -> str:
    """What guards columns that change in place and are in no log."""
    return sha256(canonical_text(dict(columns)).encode()).hexdigest()


def receipt_leaf(receipt: Mapping[str, Any], amounts: Mapping[str, int]) -> bytes:
    """The leaf of a receipt: salted hashes of its head, its payload hash and each entry."""
    salt = receipt["salt"]
    head = {name: receipt[name] for name in ("sequence", "kind", "response_id", "reverses", "booked_at_us")}
    entries = [
        _commitment(salt, f"entry:{account}", {"account": account, "amount": amount})
        for account, amount in amounts.items()
    ]
    leaf = {
        "leaf": "receipt",
        "head": _commitment(salt, "head", head),
        "payload": _commitment(salt, "payload", {"payload_sha256": receipt["payload_sha256"]}),
        "entries": sorted(entries),
    }
    return _leaf(leaf)


def event_leaf(event: Mapping[str, Any]) -> bytes:
    """The leaf of an event: the row."""
    return _leaf({"leaf": "event", **event})


def parent(left: bytes, right: bytes) -> bytes:
    """The node over two neighbours."""
    return sha256(b"\x01" + left + right).digest()


def _leaf(document: Mapping[str, Any]) -> bytes:
    return sha256(b"\x00" + canonical_text(document).encode()).digest()


def _commitment(salt: str, part: str, document: Mapping[str, Any]) -> str:
    own_salt = hmac.new(salt.encode(), part.encode(), sha256).hexdigest()
    return sha256((own_salt + canonical_text(document)).encode()).hexdigest()
