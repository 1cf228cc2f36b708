"""Checksums of what changes in place and so stands in no log: a damaged value shows. Not a proof: it has no key."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from rewards.credit import canonical_bytes

_CLAIM = ("application", "key_sha256", "attempt", "request_sha256", "response_id", "created_at_us", "ended_at_us")
_LAST_USE = ("key_id", "last_used_at_us")


def of_claim(row: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the canonical JSON of a claim's columns, the checksum apart."""
    return _sha256(row, _CLAIM)


def of_last_use(row: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over the canonical JSON of a bearer key's id and last use."""
    return _sha256(row, _LAST_USE)


def _sha256(row: Mapping[str, Any], columns: tuple[str, ...]) -> str:
    return sha256(canonical_bytes({name: row[name] for name in columns})).hexdigest()
