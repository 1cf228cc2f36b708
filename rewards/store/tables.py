"""The ledger's tables and the constraints a database can hold by itself. Knows no query and no rule of the domain.

Every number is a 64-bit integer; there is no float column. On SQLite the tables are STRICT, so that no other type gets
in. The migrations create the same tables (a test compares) and the triggers that keep the books append-only.
"""

from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, Integer, Text, UniqueConstraint
from sqlmodel import Field, SQLModel

BIGINT = BigInteger().with_variant(Integer(), "sqlite")  # SQLite's INTEGER has 64 bits, and only it can be a row id
SQLITE_OPTIONS = {"sqlite_strict": True}
SQLITE_NO_ROWID = {**SQLITE_OPTIONS, "sqlite_with_rowid": False}  # no hidden key by which a row could be replaced


def _integer(**options: Any) -> Any:
    return Field(sa_type=BIGINT, **options)


def _number() -> Any:
    """A primary key that we count ourselves, gap-free: a row that is missing shows."""
    return Field(sa_type=BIGINT, primary_key=True, sa_column_kwargs={"autoincrement": False})


def _text(**options: Any) -> Any:
    return Field(sa_type=Text, **options)


class ReceiptRow(SQLModel, table=True):
    """The credit of one response, or the counter-entry that reverses one, in the order of booking."""

    __tablename__ = "receipts"
    __table_args__ = (
        UniqueConstraint("response_id", name="receipts_once_per_response"),
        UniqueConstraint("reverses", name="receipts_reversed_once"),
        CheckConstraint("sequence >= 1", name="receipts_sequence"),
        CheckConstraint("length(payload_sha256) = 64 AND length(salt) = 64", name="receipts_hashes"),
        CheckConstraint("booked_at_us >= 0 AND created_at_us >= 0 AND duration_us >= 0", name="receipts_times"),
        CheckConstraint(
            "(kind = 'response' AND reverses IS NULL AND tokens >= 1)"
            " OR (kind = 'reversal' AND reverses IS NOT NULL AND tokens <= -1)",
            name="receipts_kind",
        ),
        Index("receipts_by_booking", "booked_at_us"),
        Index("receipts_by_application", "application", "sequence"),
        SQLITE_NO_ROWID,
    )

    sequence: int = _number()
    kind: str = _text()
    response_id: str = _text()
    reverses: str | None = _text(default=None, foreign_key="receipts.response_id")
    payload_sha256: str = _text()
    salt: str = _text()
    booked_at_us: int = _integer()
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
    """One account's micro-credits of one receipt; negative in a reversal. Two orders: by receipt, and by account."""

    __tablename__ = "entries"
    __table_args__ = (Index("entries_by_account", "account", "receipt_sequence", "amount"), SQLITE_NO_ROWID)

    receipt_sequence: int = Field(
        sa_type=BIGINT,
        primary_key=True,
        foreign_key="receipts.sequence",
        sa_column_kwargs={"autoincrement": False},
    )
    account: str = _text(primary_key=True)
    amount: int = _integer()


class EventRow(SQLModel, table=True):
    """What happened besides receipts: moves of periods, holds, statements, keys, privileged calls.

    `once` names what can happen only once, such as the close of a period; two racing for it cannot both get in.
    """

    __tablename__ = "events"
    __table_args__ = (
        UniqueConstraint("once", name="events_once"),
        CheckConstraint("sequence >= 1 AND at_us >= 0", name="events_numbers"),
        CheckConstraint("length(salt) = 64", name="events_salt"),
        Index("events_by_subject", "kind", "subject", "sequence"),
        SQLITE_NO_ROWID,
    )

    sequence: int = _number()
    kind: str = _text()
    subject: str = _text()
    at_us: int = _integer()
    actor: str = _text()
    document: str = _text()
    salt: str = _text()
    once: str | None = _text(default=None)


class LeafRow(SQLModel, table=True):
    """Which receipt or event a leaf of the Merkle log stands for."""

    __tablename__ = "leaves"
    __table_args__ = (
        UniqueConstraint("source", "sequence", name="leaves_once"),
        CheckConstraint("leaf_index >= 0 AND sequence >= 1", name="leaves_numbers"),
        CheckConstraint("source IN ('receipt', 'event')", name="leaves_source"),
        SQLITE_NO_ROWID,
    )

    leaf_index: int = _number()
    source: str = _text()
    sequence: int = _integer()


class NodeRow(SQLModel, table=True):
    """The hash of a complete subtree of the Merkle log; level 0 are the leaves."""

    __tablename__ = "nodes"
    __table_args__ = (
        CheckConstraint("level >= 0 AND node_index >= 0 AND length(hash) = 64", name="nodes_values"),
        SQLITE_NO_ROWID,
    )

    level: int = _number()
    node_index: int = _number()
    hash: str = _text()


class CheckpointRow(SQLModel, table=True):
    """A signed root of the Merkle log at one size."""

    __tablename__ = "checkpoints"
    __table_args__ = (
        CheckConstraint("size >= 1 AND sealed_at_us >= 0 AND length(root) = 64", name="checkpoints_values"),
        SQLITE_NO_ROWID,
    )

    size: int = _number()
    root: str = _text()
    key_id: str = _text()
    note: str = _text()
    sealed_at_us: int = _integer()


class ApiKeyRow(SQLModel, table=True):
    """A bearer key: what it may do and for how long, and a keyed hash of its secret.

    `identity` is the id of the first key of its rotations: who it is for outlives it.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        CheckConstraint("role IN ('application', 'member', 'operator', 'auditor', 'admin')", name="api_keys_role"),
        CheckConstraint("(role = 'member') = (client IS NOT NULL)", name="api_keys_client"),
        CheckConstraint("length(secret_hmac) = 64", name="api_keys_secret"),
        CheckConstraint(
            "created_at_us >= 0 AND expires_at_us >= 0 AND revoked_at_us >= 0 AND last_used_at_us >= 0",
            name="api_keys_times",
        ),
        CheckConstraint("(last_used_at_us IS NULL) = (last_used_sha256 IS NULL)", name="api_keys_last_use"),
        CheckConstraint("token_budget >= 0 AND requests_per_minute >= 1", name="api_keys_limits"),
        CheckConstraint("concurrency >= 1", name="api_keys_concurrency"),
        CheckConstraint("weight >= 1", name="api_keys_weight"),
        Index("api_keys_by_identity", "identity"),
        SQLITE_OPTIONS,
    )

    key_id: str = _text(primary_key=True)
    role: str = _text()
    label: str = _text()
    client: str | None = _text(default=None)
    secret_hmac: str = _text()
    created_at_us: int = _integer()
    expires_at_us: int | None = _integer(default=None)
    revoked_at_us: int | None = _integer(default=None)
    rotated_from: str | None = _text(default=None)
    token_budget: int | None = _integer(default=None)
    requests_per_minute: int | None = _integer(default=None)
    last_used_at_us: int | None = _integer(default=None)
    last_used_sha256: str | None = _text(default=None)
    identity: str = _text()
    concurrency: int | None = _integer(default=None)
    weight: int | None = _integer(default=None)


class ClaimRow(SQLModel, table=True):
    """An `Idempotency-Key` that an application used: which request it was for, and which response it got.

    The one table that is no part of the log, since claims end; `row_sha256` (`rewards.store.checksums`) tells damage.
    """

    __tablename__ = "claims"
    __table_args__ = (
        UniqueConstraint("response_id", name="claims_once_per_response"),
        CheckConstraint("length(key_sha256) = 64 AND length(request_sha256) = 64", name="claims_hashes"),
        CheckConstraint("attempt >= 1 AND created_at_us >= 0 AND ended_at_us >= 0", name="claims_numbers"),
        SQLITE_NO_ROWID,
    )

    application: str = _text(primary_key=True)
    key_sha256: str = _text(primary_key=True)
    attempt: int = _number()
    request_sha256: str = _text()
    response_id: str = _text()
    created_at_us: int = _integer()
    ended_at_us: int | None = _integer(default=None)
    row_sha256: str = _text()


class SamplingRuleRow(SQLModel, table=True):
    """By which fraction and key the responses of a consortium are chosen for measuring, from a moment on.

    `sequence` is that of the event that commits to it. The secret is none where everything is measured.
    """

    __tablename__ = "sampling_rules"
    __table_args__ = (
        CheckConstraint("sequence >= 1 AND at_us >= 0", name="sampling_rules_numbers"),
        CheckConstraint("millionths BETWEEN 1 AND 1000000", name="sampling_rules_fraction"),
        CheckConstraint("(millionths = 1000000) = (secret IS NULL)", name="sampling_rules_needs_secret"),
        CheckConstraint("length(secret) = 64", name="sampling_rules_secret"),
        SQLITE_NO_ROWID,
    )

    sequence: int = _number()
    consortium: str = _text()
    millionths: int = _integer()
    secret: str | None = _text(default=None)
    at_us: int = _integer()
