"""Which response an application's `Idempotency-Key` stands for: one attempt at a time, and none after a whole response.

A claim says that a response is being made, its receipt that it was. It ends by that receipt, or when its maker says
that none will come; never by the clock, as a receipt may wait on a disk for as long as the ledger is away. Knows no
text and no HTTP; the texts that may be given a second time are kept by whoever made them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlmodel import col

from rewards.errors import ReusedKeyError
from rewards.ledger.usage import names_of
from rewards.store import checksums
from rewards.store.database import Database, now_us
from rewards.store.tables import ClaimRow, ReceiptRow


@dataclass(frozen=True)
class Claim:
    """What a key stands for.

    Attributes:
        response_id: the response of the last attempt.
        attempt: its number, from 1.
        created_at_us: when it was claimed, in microseconds since 1970.
        is_new: nothing stood for the key, and this response is now to be made, by whoever asked.
        receipt_sha256: payload hash of its receipt, where it was made to its end; None until that is booked.
    """

    response_id: str
    attempt: int
    created_at_us: int
    is_new: bool
    receipt_sha256: str | None


class Claims:
    """The claims in a ledger's database; usable from several threads and processes, of which one wins."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, application: str, key_sha256: str, request_sha256: str) -> Claim | None:
        """What stands for a key, read without waiting for whoever writes; None where a response may be made.

        Args:
            application: identity of the caller.
            key_sha256: SHA-256 (hex) of the key.
            request_sha256: SHA-256 (hex) of what is asked.

        Raises:
            ReusedKeyError: the key was used for another request.
            LedgerError: the database fails.
        """
        with self._database.read() as connection:
            return _standing_claim(_attempts(connection, application, key_sha256), request_sha256, connection)

    def claim(self, application: str, key_sha256: str, request_sha256: str, response_id: str) -> Claim:
        """Claim a key for a response, unless another response stands for it.

        A new attempt may be made where the last one was released, or its response was cut short (the part that was
        credited stays). Whoever died in between leaves a claim that stands until its receipt is booked.

        Args:
            application: identity of the caller.
            key_sha256: SHA-256 (hex) of the key.
            request_sha256: SHA-256 (hex) of what is asked.
            response_id: id of the response that would be made.

        Raises:
            ReusedKeyError: the key was used for another request.
            LedgerError: the database fails; nothing is claimed.
        """
        with self._database.write() as connection:
            attempts = _attempts(connection, application, key_sha256)
            standing = _standing_claim(attempts, request_sha256, connection)
            if standing is not None:
                return standing
            attempt, at_us = 1 + max((each.attempt for each in attempts), default=0), now_us()
            row = {
                "application": application,
                "key_sha256": key_sha256,
                "request_sha256": request_sha256,
                "response_id": response_id,
                "attempt": attempt,
                "created_at_us": at_us,
                "ended_at_us": None,
            }
            connection.execute(insert(ClaimRow).values(row | {"row_sha256": checksums.of_claim(row)}))
        return Claim(response_id, attempt, at_us, is_new=True, receipt_sha256=None)

    def release(self, response_ids: Iterable[str]) -> None:
        """These attempts ended, and no receipt of a whole response will come. Again, or unclaimed: nothing."""
        with self._database.write() as connection:
            for response_id in response_ids:
                is_open = col(ClaimRow.response_id) == response_id, col(ClaimRow.ended_at_us).is_(None)
                for row in connection.execute(select(ClaimRow).where(*is_open)).mappings().all():
                    ended = {**row, "ended_at_us": now_us()}
                    ended["row_sha256"] = checksums.of_claim(ended)
                    connection.execute(update(ClaimRow).where(*is_open).values(ended))


def _attempts(connection: Connection, application: str, key_sha256: str) -> list[Row[Any]]:
    """The last attempt under each name of an application, the latest first: before identities, a key had its own."""
    attempts: list[Row[Any]] = []
    for name in names_of(connection, application):
        of_key = col(ClaimRow.application) == name, col(ClaimRow.key_sha256) == key_sha256
        query = select(ClaimRow).where(*of_key).order_by(col(ClaimRow.attempt).desc()).limit(1)
        attempts += connection.execute(query).all()
    return sorted(attempts, key=lambda row: (row.created_at_us, row.attempt), reverse=True)


def _standing_claim(attempts: Sequence[Row[Any]], request_sha256: str, connection: Connection) -> Claim | None:
    """The attempt that stands for its key: one that was made whole, else one that may yet be; None where there is none.

    Raises:
        ReusedKeyError: the last one was for another request.
    """
    if attempts and attempts[0].request_sha256 != request_sha256:
        raise ReusedKeyError("this key was used for another request; a new request needs a new key")
    under_way: list[Claim] = []
    for row in attempts:
        receipt_sha256, is_cut = _receipt(connection, row.response_id)
        if receipt_sha256 is not None:
            return Claim(row.response_id, row.attempt, row.created_at_us, is_new=False, receipt_sha256=receipt_sha256)
        if row.ended_at_us is None and not is_cut:
            under_way.append(Claim(row.response_id, row.attempt, row.created_at_us, is_new=False, receipt_sha256=None))
    return under_way[0] if under_way else None


def _receipt(connection: Connection, response_id: str) -> tuple[str | None, bool]:
    """The payload hash of a response's receipt where the response is whole, and whether it is one that was cut."""
    columns = col(ReceiptRow.payload_sha256), col(ReceiptRow.measurement)
    row = connection.execute(select(*columns).where(col(ReceiptRow.response_id) == response_id)).one_or_none()
    if row is None:
        return None, False
    cut = bool(json.loads(row.measurement).get("cut"))
    return None if cut else row.payload_sha256, cut
