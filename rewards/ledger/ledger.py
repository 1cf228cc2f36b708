"""The only writer of receipts: books each response once, reverses by counter-entry. Knows no policy and no payout.

What `append` promises: when it returns, the receipt and all its entries are on disk, whole; when it raises, none of
them is. A caller that got no answer may append the same receipt again, and again: it is booked once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select
from sqlmodel import col

from rewards.credit import COMMONS, PENDING, REVERSAL, Receipt, canonical_bytes
from rewards.errors import CreditError, LedgerError, LedgerRefusedError, ReceiptConflictError, ReversalError
from rewards.moments import stamp
from rewards.store import clients, queries
from rewards.store.database import Database, migrate, now_us, prepare
from rewards.store.reasons import require_reason
from rewards.store.receipts import BookedReceipt, Kind, find_receipt, read_receipts
from rewards.store.tables import EntryRow, ReceiptRow

SALT_BYTES = 32
_COMMON_ACCOUNTS = {COMMONS, PENDING}  # that no client has, and every consortium
# Each transaction asks these, so they are put together once.
_LAST = (
    select(col(ReceiptRow.sequence), col(ReceiptRow.booked_at_us)).order_by(col(ReceiptRow.sequence).desc()).limit(1)
)
_BOOKED = select(col(ReceiptRow.response_id), col(ReceiptRow.sequence), col(ReceiptRow.payload_sha256)).where(
    col(ReceiptRow.response_id).in_(bindparam("ids", expanding=True))
)


@dataclass(frozen=True)
class Booking:
    """Where a receipt stands in the ledger; `replayed` when it stood there already."""

    sequence: int
    response_id: str
    payload_sha256: str
    replayed: bool


Outcome = Booking | ReceiptConflictError | CreditError | LedgerRefusedError
"""What becomes of one receipt of several."""


class Ledger:
    """A ledger, open for booking and reading from any number of threads; processes each open their own.

    Args:
        url: `sqlite:////absolute/path.db` or `postgresql://user@host/database`, made by `Ledger.prepare`.

    Raises:
        LedgerError: the schema is missing or not at head (here), the database fails (every method).
    """

    prepare = staticmethod(prepare)
    migrate = staticmethod(migrate)

    def __init__(self, url: str) -> None:
        self.database = Database(url)
        self._registered: dict[str, frozenset[str]] = {}

    def register(self, consortium: str, members: Mapping[str, str]) -> None:
        """Let clients (id -> display name) be credited in a consortium. What is registered already stays as it is.

        Raises:
            CreditError: an id that a client may not have.
        """
        with self.database.write() as connection:
            clients.register(connection, consortium, members)

    def clients(self) -> dict[str, dict[str, str]]:
        """Consortium -> client id -> display name, in the order of registration."""
        with self.database.read() as connection:
            return clients.registrations(connection)

    def append(self, receipt: Receipt) -> Booking:
        """Book a receipt; durable on return. The same receipt again returns its first booking.

        Raises:
            ConflictError: the response id is booked with another payload; nothing is written.
            CreditError: an account is none of the commons, pending or a registered client; nothing is written.
            LedgerRefusedError: the database takes no such receipt from this login, or not now; nothing is written.
        """
        (outcome,) = self.append_many([receipt])
        if isinstance(outcome, Booking):
            return outcome
        raise outcome

    def append_many(self, receipts: Sequence[Receipt]) -> list[Outcome]:
        """Book receipts in one transaction, durable on return; each has an outcome of its own, in the order given.

        Where the database refuses one of them it takes none, so each is booked apart then.
        """
        try:
            return self._append(receipts)
        except LedgerRefusedError as error:
            if len(receipts) == 1:
                return [error]
            return [outcome for receipt in receipts for outcome in self.append_many([receipt])]

    def _append(self, receipts: Sequence[Receipt]) -> list[Outcome]:
        drafts = [_Draft.of(vars(receipt), kind="response") for receipt in receipts]  # while nobody waits for it
        outcomes: list[Outcome] = []
        with self.database.write() as connection:
            known = _bookings(connection, [receipt.response_id for receipt in receipts])
            batch = _Batch(connection)
            for receipt, draft in zip(receipts, drafts, strict=True):
                outcome = self._outcome(connection, receipt, known.get(receipt.response_id), draft) or batch.add(draft)
                if isinstance(outcome, Booking):
                    known.setdefault(receipt.response_id, outcome)
                outcomes.append(outcome)
            batch.write()
        return outcomes

    def reverse(self, response_id: str, reason: str, actor: str) -> Booking:
        """Book the counter-entries of a response: every amount and its tokens, negated. Once; again returns the first.

        Args:
            response_id: the response, booked before.
            reason: why, for whoever reads the books.
            actor: who says so: a key id, or "command line".

        Raises:
            ReversalError: there is no such response, it is a reversal itself, or the reason is empty or too long.
        """
        require_reason(reason, ReversalError)
        with self.database.write() as connection:
            original = find_receipt(connection, response_id)
            if original is None or original.kind != "response":
                raise ReversalError(f"no response {response_id!r} is booked that could be reversed")
            reversal_id = f"{REVERSAL}{response_id}"
            first = _bookings(connection, [reversal_id]).get(reversal_id)
            if first is not None:
                return first
            batch = _Batch(connection)
            reversal = _reversal(original, reversal_id, reason, actor, batch.booked_at_us)
            booked = batch.add(_Draft.of(reversal, kind="reversal", reverses=response_id))
            batch.write()
        return booked

    def is_booked(self, response_id: str) -> bool:
        """Whether a response has its receipt; a login that may only book is allowed to ask this."""
        with self.database.read() as connection:
            return bool(_bookings(connection, [response_id]))

    def receipt(self, response_id: str) -> BookedReceipt | None:
        """The receipt of a response, or of a reversal; None when there is none."""
        with self.database.read() as connection:
            return find_receipt(connection, response_id)

    def receipts_after(self, sequence: int, limit: int = 1000) -> list[BookedReceipt]:
        """At most `limit` receipts after a sequence number, in the order of booking."""
        with self.database.read() as connection:
            return read_receipts(connection, col(ReceiptRow.sequence) > sequence, limit)

    def balances(self, *, after: int = 0, up_to: int | None = None) -> dict[str, int]:
        """Account -> micro-credits over the receipts with after < sequence ≤ up_to (to the last one, when None)."""
        with self.database.read() as connection:
            return queries.credit_between(connection, after, up_to)

    def tokens(self, *, after: int = 0, up_to: int | None = None) -> int:
        """Tokens, less those reversed, over the receipts with after < sequence ≤ up_to (to the last one, when None)."""
        with self.database.read() as connection:
            return queries.tokens_between(connection, after, up_to)

    def last_sequence(self, *, before_us: int | None = None) -> int:
        """The last sequence number such that every receipt up to it was booked before that moment; 0 when none was."""
        with self.database.read() as connection:
            return queries.last_sequence(connection, before_us)

    def close(self) -> None:
        """Close every connection."""
        self.database.close()

    def _outcome(
        self, connection: Connection, receipt: Receipt, first: Booking | None, draft: _Draft
    ) -> Booking | ReceiptConflictError | CreditError | None:
        """What becomes of a receipt that is not to be written, as when it is booked already; None when it is."""
        if first is not None and first.payload_sha256 == draft.row["payload_sha256"]:
            return Booking(first.sequence, first.response_id, first.payload_sha256, replayed=True)
        if first is not None:
            return ReceiptConflictError(
                f"response {receipt.response_id!r} is booked already, as receipt {first.sequence}, with another payload"
            )
        unknown = receipt.amounts.keys() - _COMMON_ACCOUNTS - self._members(connection, receipt)
        if unknown:
            return CreditError(
                f"receipt {receipt.response_id!r} credits {', '.join(sorted(map(repr, unknown)))}, not registered in "
                f"consortium {receipt.consortium!r}; registered are: "
                f"{', '.join(sorted(self._registered[receipt.consortium])) or 'none'}"
            )
        return None

    def _members(self, connection: Connection, receipt: Receipt) -> frozenset[str]:
        """Clients of the receipt's consortium; asked for again only when one is missing, as none is ever taken away."""
        members = self._registered.get(receipt.consortium, frozenset())
        if not receipt.amounts.keys() - _COMMON_ACCOUNTS <= members:
            members = frozenset(clients.registrations(connection).get(receipt.consortium, {}))
            self._registered[receipt.consortium] = members
        return members


@dataclass(frozen=True)
class _Draft:
    """A payload as its rows will hold it, hashed and salted, but for the number and the moment that booking gives."""

    row: Mapping[str, Any]
    amounts: Mapping[str, int]

    @classmethod
    def of(cls, payload: Mapping[str, Any], *, kind: Kind, reverses: str | None = None) -> _Draft:
        row = {
            **{name: value for name, value in payload.items() if name != "amounts"},
            "settings": canonical_bytes(payload["settings"]).decode(),
            "measurement": canonical_bytes(payload["measurement"]).decode(),
            "kind": kind,
            "reverses": reverses,
            "payload_sha256": payload_sha256(payload),
            "salt": secrets.token_hex(SALT_BYTES),
        }
        return cls(row, payload["amounts"])


class _Batch:
    """Rows of one transaction, numbered on from the last receipt of the ledger, written together."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        last = connection.execute(_LAST).one_or_none()
        self._sequence, last_us = (0, 0) if last is None else (last[0], last[1])
        self.booked_at_us = stamp(now_us(connection), last_us)
        self._receipts: list[Mapping[str, Any]] = []
        self._entries: list[Mapping[str, Any]] = []

    def add(self, draft: _Draft) -> Booking:
        """Number a draft and keep its rows for `write`."""
        self._sequence += 1
        self._receipts.append({**draft.row, "sequence": self._sequence, "booked_at_us": self.booked_at_us})
        self._entries += [
            {"receipt_sequence": self._sequence, "account": account, "amount": amount}
            for account, amount in draft.amounts.items()
        ]
        return Booking(self._sequence, draft.row["response_id"], draft.row["payload_sha256"], replayed=False)

    def write(self) -> None:
        """Write what was added into the open transaction."""
        if self._receipts:
            self._connection.execute(insert(ReceiptRow), self._receipts)
            self._connection.execute(insert(EntryRow), self._entries)


def payload_sha256(payload: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a receipt's or reversal's payload in canonical form."""
    return sha256(canonical_bytes(dict(payload))).hexdigest()


def _reversal(original: BookedReceipt, reversal_id: str, reason: str, actor: str, at_us: int) -> Mapping[str, Any]:
    """The payload that undoes a receipt; it has a receipt's fields, with tokens and amounts negated."""
    if sum(original.amounts.values()) <= 0:
        raise LedgerError(f"receipt {original.response_id!r} has no positive credit; somebody wrote past the ledger")
    kept = ("application", "consortium", "model_sha256", "method", "settings", "version")
    return {
        **{name: getattr(original, name) for name in kept},
        "response_id": reversal_id,
        "created_at_us": at_us,
        "tokens": -original.tokens,
        "amounts": {account: -amount for account, amount in original.amounts.items()},
        "measurement": {"reason": reason, "actor": actor},
        "duration_us": 0,
    }


def _bookings(connection: Connection, response_ids: Sequence[str]) -> dict[str, Booking]:
    rows = connection.execute(_BOOKED, {"ids": list(response_ids)})
    return {row[0]: Booking(row[1], row[0], row[2], replayed=True) for row in rows}
