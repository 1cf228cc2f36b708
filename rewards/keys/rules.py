"""What a key is, and what must hold of one by itself. Pure: knows no database, no secret and no clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rewards.errors import KeyRingError

Role = Literal["application", "member", "operator", "auditor", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)
"""What a key can be for; `deployment.access.permissions` says what each may call."""

MOST = 2**53 - 1
"""The largest limit or moment: any JSON reader holds it exactly."""

LIMITS = {"token_budget": 0, "requests_per_minute": 1, "concurrency": 1, "weight": 1}
"""What bounds an application, each with the least it may be; None, where a key has none, bounds nothing."""

_LABEL_LENGTH = 100


@dataclass(frozen=True)
class Key:
    """A key without its secret. Times are microseconds since 1970; None where there is no such moment, or no limit.

    `identity` is the id of the first key of its rotations. It outlives the key: what an application asked for, claimed
    and spent is its identity's. `concurrency` is how many responses it may have under way at once, and `weight` how
    much it gets of a busy service, against others that have 1.
    """

    key_id: str
    role: str
    label: str
    client: str | None
    created_at_us: int
    expires_at_us: int | None
    revoked_at_us: int | None
    rotated_from: str | None
    token_budget: int | None
    requests_per_minute: int | None
    last_used_at_us: int | None
    identity: str
    concurrency: int | None = None
    weight: int | None = None

    def state(self, at_us: int) -> str:
        """What it is at a moment: "valid", "expired" or "revoked", which goes before expired."""
        if self.revoked_at_us is not None:
            return "revoked"
        return "expired" if self.expires_at_us is not None and self.expires_at_us <= at_us else "valid"


def require_sound(fields: Mapping[str, Any]) -> None:
    """Refuse what a new key may not be.

    Args:
        fields: the fields of `Key` that are chosen when it is made.

    Raises:
        KeyRingError: one of them is not as it should be; it is named.
    """
    role, label, client = fields["role"], fields["label"], fields["client"]
    if role not in ROLES:
        raise KeyRingError(f"role {role!r} is not known; a key is for one of: {', '.join(ROLES)}")
    if not 0 < len(label) <= _LABEL_LENGTH or not label.isprintable():
        raise KeyRingError(f"label must be 1 to {_LABEL_LENGTH} printable characters, not {label!r}")
    if (client is not None) != (role == "member"):
        raise KeyRingError(
            "a member's key needs a client, whose view it has"
            if client is None
            else f"client {client!r}: only a member's key has a client, and this one is for role {role!r}"
        )
    expires_at_us = fields["expires_at_us"]
    if expires_at_us is not None and not fields["created_at_us"] < expires_at_us <= MOST:
        raise KeyRingError(f"expires_at_us must be in the future, in microseconds since 1970, not {expires_at_us}")
    for name, least in LIMITS.items():
        limit = fields[name]
        if limit is not None and role != "application":
            raise KeyRingError(f"{name}: only an application's key has limits, and this one is for role {role!r}")
        if limit is not None and not least <= limit <= MOST:
            raise KeyRingError(f"{name} must be {least} to {MOST}, not {limit}")
