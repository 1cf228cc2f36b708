"""Baseline: receipts, entries, periods and api_keys, with the triggers that keep the books append-only.

Knows nothing of `rewards.tables`: a migration stays as it was written, and a test compares the two.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# What an INSERT would have to replace, per append-only table. SQLite's INSERT OR REPLACE deletes without firing
# DELETE triggers, hence a guard of its own.
ALREADY_THERE = {
    "receipts": "sequence = NEW.sequence OR response_id = NEW.response_id",
    "entries": "id = NEW.id OR (receipt_sequence = NEW.receipt_sequence AND account = NEW.account)",
    "periods": "name = NEW.name OR first_sequence = NEW.first_sequence",
}


def upgrade() -> None:
    _create_receipts()
    _create_entries()
    _create_periods()
    _create_api_keys()
    append_only = {"sqlite": _append_only_sqlite}[op.get_context().dialect.name]
    for table, already_there in ALREADY_THERE.items():
        append_only(table, already_there)


def _append_only_sqlite(table: str, already_there: str) -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER {table}_refuse_{change.lower()} BEFORE {change} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: {change} refused'); END"
        )
    op.execute(
        f"CREATE TRIGGER {table}_refuse_replace BEFORE INSERT ON {table} "  # noqa: S608 - constants of this file
        f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {already_there}) "
        f"BEGIN SELECT RAISE(ABORT, '{table} is append-only: the row is there already'); END"
    )


def _create_receipts() -> None:
    op.create_table(
        "receipts",
        sa.Column("sequence", BIGINT, nullable=False),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("payload_sha256", sa.Text(), nullable=False),
        sa.Column("booked_at_us", BIGINT, nullable=False),
        sa.Column("created_at_us", BIGINT, nullable=False),
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("consortium", sa.Text(), nullable=False),
        sa.Column("model_sha256", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("settings", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("tokens", BIGINT, nullable=False),
        sa.Column("measurement", sa.Text(), nullable=False),
        sa.Column("duration_us", BIGINT, nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("response_id", name="receipts_once_per_response"),
        sa.CheckConstraint("length(payload_sha256) = 64", name="receipts_payload_hash"),
        sa.CheckConstraint("booked_at_us >= 0 AND created_at_us >= 0 AND duration_us >= 0", name="receipts_times"),
        sa.CheckConstraint("tokens >= 1", name="receipts_tokens"),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )
    op.create_index("ix_receipts_booked_at_us", "receipts", ["booked_at_us"])


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("id", BIGINT, nullable=False),
        sa.Column("receipt_sequence", BIGINT, nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("amount", BIGINT, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("receipt_sequence", "account", name="entries_once_per_account"),
        sa.CheckConstraint("amount >= 0", name="entries_amount"),
        sa.ForeignKeyConstraint(["receipt_sequence"], ["receipts.sequence"]),
        sqlite_strict=True,
        sqlite_autoincrement=True,
    )


def _create_periods() -> None:
    op.create_table(
        "periods",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("first_sequence", BIGINT, nullable=False),
        sa.Column("last_sequence", BIGINT, nullable=False),
        sa.Column("closed_at_us", BIGINT, nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("settlement", sa.Text(), nullable=False),
        sa.Column("settlement_sha256", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("first_sequence", name="periods_do_not_overlap"),
        sa.CheckConstraint("first_sequence >= 1 AND last_sequence >= first_sequence", name="periods_window"),
        sa.CheckConstraint("closed_at_us >= 0", name="periods_times"),
        sa.CheckConstraint("length(settlement_sha256) = 64", name="periods_settlement_hash"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("created_at_us", BIGINT, nullable=False),
        sa.Column("revoked_at_us", BIGINT, nullable=True),
        sa.PrimaryKeyConstraint("key_id"),
        sa.CheckConstraint("role IN ('application', 'operator')", name="api_keys_role"),
        sa.CheckConstraint("length(secret_sha256) = 64", name="api_keys_secret_hash"),
        sa.CheckConstraint("created_at_us >= 0 AND revoked_at_us >= 0", name="api_keys_times"),
        sqlite_strict=True,
    )
