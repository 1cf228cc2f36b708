"""Which response an application's `Idempotency-Key` stands for: one attempt at a time, and none after a whole response.

A claim says that a response is being made, its receipt that it was. Knows no text and no HTTP; the texts that may be
given a second time are kept by whoever made them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import insert, select, update
from sqlmodel import col

from rewards import checksums
from rewards.database import now_us
from rewards.errors import ReusedKeyError
from rewards.tables import ClaimRow, ReceiptRow

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

    from rewards.database import Database


@dataclass(frozen=True)
class Claim:
    """What a key stands for.

    Attributes:
        response_id: the response of the last attempt.
        attempt: its number, from 1.
        is_new: nothing stood for the key, and this response is now to be made, by whoever asked.
        receipt_sha256: payload hash of its receipt, where it was made to its end; None until that is booked.
    """

    response_id: str
    attempt: int
    is_new: bool
    receipt_sha256: str | None


class Claims:
    """The claims in a ledger's database; usable from several threads and processes, of which one wins."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def claim(
        self, application: str, key_sha256: str, request_sha256: str, response_id: str, *, abandoned_after_s: float
    ) -> Claim:
        """Claim a key for a response, unless another response stands for it.

        A new attempt may be made where the last one was released, or its response was cut short (the part that was
        credited stays), or where it was neither booked nor released within `abandoned_after_s`: its maker is dead.

        Args:
            application: key id of the caller.
            key_sha256: SHA-256 (hex) of the key.
            request_sha256: SHA-256 (hex) of what is asked.
            response_id: id of the response that would be made.
            abandoned_after_s: in seconds.

        Raises:
            ReusedKeyError: the key was used for another request.
            LedgerError: the database fails; nothing is claimed.
        """
        with self._database.write() as connection:
            last = _last(connection, application, key_sha256)
            if last is not None and last.request_sha256 != request_sha256:
                raise ReusedKeyError("this key was used for another request; a new request needs a new key")
            receipt_sha256, cut = (None, False) if last is None else _receipt(connection, last.response_id)
            given_up_us = now_us() - round(abandoned_after_s * 1e6)
            is_over = last is None or last.ended_at_us is not None or cut or last.created_at_us < given_up_us
            if last is not None and (receipt_sha256 is not None or not is_over):
                return Claim(last.response_id, last.attempt, is_new=False, receipt_sha256=receipt_sha256)
            attempt = 1 if last is None else last.attempt + 1
            row = {
                "application": application,
                "key_sha256": key_sha256,
                "request_sha256": request_sha256,
                "response_id": response_id,
                "attempt": attempt,
                "created_at_us": now_us(),
                "ended_at_us": None,
            }
            connection.execute(insert(ClaimRow).values(row | {"row_sha256": checksums.of_claim(row)}))
        return Claim(response_id, attempt, is_new=True, receipt_sha256=None)

    def release(self, response_id: str) -> None:
        """The attempt ended without a whole response, so that another may be made. Again, or unclaimed: nothing."""
        is_open = col(ClaimRow.response_id) == response_id, col(ClaimRow.ended_at_us).is_(None)
        with self._database.write() as connection:
            for row in connection.execute(select(ClaimRow).where(*is_open)).mappings().all():
                ended = {**row, "ended_at_us": now_us()}
                ended["row_sha256"] = checksums.of_claim(ended)
                connection.execute(update(ClaimRow).where(*is_open).values(ended))


def _last(connection: Connection, application: str, key_sha256: str) -> Row[Any] | None:
    of_key = col(ClaimRow.application) == application, col(ClaimRow.key_sha256) == key_sha256
    query = select(ClaimRow).where(*of_key).order_by(col(ClaimRow.attempt).desc()).limit(1)
    return connection.execute(query).one_or_none()


def _receipt(connection: Connection, response_id: str) -> tuple[str | None, bool]:
    """The payload hash of a response's receipt where the response is whole, and whether it is one that was cut."""
    columns = col(ReceiptRow.payload_sha256), col(ReceiptRow.measurement)
    row = connection.execute(select(*columns).where(col(ReceiptRow.response_id) == response_id)).one_or_none()
    if row is None:
        return None, False
    cut = bool(json.loads(row.measurement).get("cut"))
    return None if cut else row.payload_sha256, cut
