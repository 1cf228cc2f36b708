"""The ledger's tables and the constraints a database can hold by itself. Knows no query and no rule of the domain.

Every number is a 64-bit integer; there is no float column. On SQLite the tables are STRICT, so that no other type gets
in. The migrations create the same tables (a test compares) and the triggers that keep them append-only.
"""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Integer, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

BIGINT = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's INTEGER has 64 bits, and only it can be a row id
SQLITE_OPTIONS = {"sqlite_strict": True}
SQLITE_NO_ROWID = {**SQLITE_OPTIONS, "sqlite_with_rowid": False}  # no hidden key by which a row could be replaced
SQLITE_SEQUENCE = {**SQLITE_OPTIONS, "sqlite_autoincrement": True}  # a sequence number is never given out twice


def _integer(**options: Any) -> Any:
    return Field(sa_type=BIGINT, **options)


def _text(**options: Any) -> Any:
    return Field(sa_type=Text, **options)


class ReceiptRow(SQLModel, table=True):
    """The credit of one response, in the order of booking."""

    __tablename__ = "receipts"
    __table_args__ = (
        UniqueConstraint("response_id", name="receipts_once_per_response"),
        CheckConstraint("length(payload_sha256) = 64", name="receipts_payload_hash"),
        CheckConstraint("booked_at_us >= 0 AND created_at_us >= 0 AND duration_us >= 0", name="receipts_times"),
        CheckConstraint("tokens >= 1", name="receipts_tokens"),
        SQLITE_SEQUENCE,
    )

    sequence: int = _integer(default=None, primary_key=True)
    response_id: str = _text()
    payload_sha256: str = _text()
    booked_at_us: int = _integer(index=True)
    created_at_us: int = _integer()
    application: str = _text()
    consortium: str = _text()
    model_sha256: str = _text()
    method: str = _text()
    settings: str = _text()
    version: str = _text()
    tokens: int = _integer()
    measurement: str = _text()
    duration_us: int = _integer()


class EntryRow(SQLModel, table=True):
    """One account's micro-credits of one receipt."""

    __tablename__ = "entries"
    __table_args__ = (
        UniqueConstraint("receipt_sequence", "account", name="entries_once_per_account"),
        CheckConstraint("amount >= 0", name="entries_amount"),
        SQLITE_SEQUENCE,
    )

    id: int = _integer(default=None, primary_key=True)
    receipt_sequence: int = _integer(foreign_key="receipts.sequence")
    account: str = _text()
    amount: int = _integer()


class PeriodRow(SQLModel, table=True):
    """A closed period: its window of receipts (both ends included), its policy and its settlement as canonical JSON."""

    __tablename__ = "periods"
    __table_args__ = (
        UniqueConstraint("first_sequence", name="periods_do_not_overlap"),
        CheckConstraint("first_sequence >= 1 AND last_sequence >= first_sequence", name="periods_window"),
        CheckConstraint("closed_at_us >= 0", name="periods_times"),
        CheckConstraint("length(settlement_sha256) = 64", name="periods_settlement_hash"),
        SQLITE_NO_ROWID,
    )

    name: str = _text(primary_key=True)
    first_sequence: int = _integer()
    last_sequence: int = _integer()
    closed_at_us: int = _integer()
    policy: str = _text()
    settlement: str = _text()
    settlement_sha256: str = _text()


class ApiKeyRow(SQLModel, table=True):
    """A bearer key: its id, what it may do, and the hash of its secret."""

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("role IN ('application', 'operator')", name="api_keys_role"),
        CheckConstraint("length(secret_sha256) = 64", name="api_keys_secret_hash"),
        CheckConstraint("created_at_us >= 0 AND revoked_at_us >= 0", name="api_keys_times"),
        SQLITE_OPTIONS,
    )

    key_id: str = _text(primary_key=True)
    role: str = _text()
    label: str = _text()
    secret_sha256: str = _text()
    created_at_us: int = _integer()
    revoked_at_us: int | None = _integer(default=None)
