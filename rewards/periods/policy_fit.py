"""Whether a policy speaks of this ledger: a client or an application that nobody knows is a slip of the pen."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select, union
from sqlmodel import col

from rewards.errors import PolicyError
from rewards.settlement.policy import Policy
from rewards.store import clients
from rewards.store.tables import ApiKeyRow, ReceiptRow

_SHOWN = 20


def require_fit(connection: Connection, policy: Policy) -> None:
    """Check every name in a policy.

    Raises:
        PolicyError: a client in `caps` that is not registered, or an application in `fees` that has no key and made
            no request; it is named, and those that are known are.
    """
    if policy.caps:
        known = {client for members in clients.registrations(connection).values() for client in members}
        _require("caps", "client", policy.caps, known)
    if policy.fees:
        called = select(col(ReceiptRow.application)).where(col(ReceiptRow.application).in_(policy.fees)).distinct()
        keys = select(col(ApiKeyRow.identity)).where(col(ApiKeyRow.role) == "application")
        _require("fees", "application", policy.fees, set(connection.execute(union(called, keys)).scalars()))


def _require(field: str, what: str, named: Iterable[str], known: set[str]) -> None:
    unknown = sorted(set(named) - known)
    if unknown:
        raise PolicyError(
            f"{field}: no {what} {', '.join(map(repr, unknown))} is known to this ledger; "
            f"known are: {_list_names(sorted(known))}"
        )


def _list_names(names: list[str]) -> str:
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest if names else "none"
