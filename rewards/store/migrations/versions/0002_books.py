"""The books: receipts, entries, events, the Merkle log, keys and claims, with what keeps them append-only.

Knows nothing of `rewards.store.tables`: a migration stays as it was written, and a test compares the two. There is no
way here from revision 0001, which was never released.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = None

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# What an INSERT would have to replace, per append-only table. SQLite's INSERT OR REPLACE deletes without firing
# DELETE triggers, hence a guard of its own.
ALREADY_THERE = {
    "receipts": "sequence = NEW.sequence OR response_id = NEW.response_id OR reverses = NEW.reverses",
    "entries": "receipt_sequence = NEW.receipt_sequence AND account = NEW.account",
    "events": "sequence = NEW.sequence OR once = NEW.once",
    "leaves": "leaf_index = NEW.leaf_index OR (source = NEW.source AND sequence = NEW.sequence)",
    "nodes": "level = NEW.level AND node_index = NEW.node_index",
    "checkpoints": "size = NEW.size",
}


def upgrade() -> None:
    _create_receipts()
    _create_entries()
    _create_events()
    _create_log()
    _create_api_keys()
    _create_claims()
    append_only = {"sqlite": _append_only_sqlite, "postgresql": _append_only_postgresql}[op.get_context().dialect.name]
    for table, already_there in ALREADY_THERE.items():
        append_only(table, already_there)
    if op.get_context().dialect.name == "postgresql":
        _create_roles()


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


def _append_only_postgresql(table: str, _already_there: str) -> None:
    op.execute(
        "CREATE OR REPLACE FUNCTION protoken_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION '% is append-only: % refused', TG_TABLE_NAME, TG_OP; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION protoken_refuse()"
    )


def _create_roles() -> None:
    """Roles for replicas (insert only), the exporter and auditors (read only) and members (their own rows only).

    The deployment grants them to its own login roles.
    """
    for role in ("protoken_replica", "protoken_exporter", "protoken_auditor", "protoken_member"):
        op.execute(
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{role}') "
            f"THEN CREATE ROLE {role} NOLOGIN; END IF; END $$"
        )
    op.execute("GRANT protoken_member TO CURRENT_USER")  # the service reads as a member where one asks
    op.execute(
        "GRANT SELECT ON alembic_version TO protoken_replica, protoken_exporter, protoken_auditor, protoken_member"
    )
    op.execute("GRANT INSERT ON receipts, entries TO protoken_replica")
    # What a writer must see to book a receipt once and in order, and nothing of what others earn.
    op.execute(
        "GRANT SELECT (sequence, response_id, payload_sha256, booked_at_us), SELECT (kind, reverses) ON receipts "
        "TO protoken_replica"
    )
    op.execute("GRANT SELECT ON events TO protoken_replica")  # of these, by row-level security, registered clients
    op.execute("GRANT SELECT ON receipts, entries, events, leaves, checkpoints TO protoken_exporter")
    # All that is audited, keys too: of a secret there is a hash under a pepper, which is not in the database.
    op.execute(
        "GRANT SELECT ON receipts, entries, events, leaves, nodes, checkpoints, api_keys, claims TO protoken_auditor"
    )
    op.execute(
        "GRANT SELECT (sequence, kind, response_id, reverses, booked_at_us, created_at_us, consortium, model_sha256, "
        "method, version, tokens) ON receipts TO protoken_member"
    )
    op.execute("GRANT SELECT ON entries, events, leaves, nodes, checkpoints TO protoken_member")
    _create_row_policies()


def _create_row_policies() -> None:
    """Row-level security. The owner is above it; of others, members and replicas see what is theirs, the rest all."""
    neither = " AND ".join(
        f"NOT pg_has_role(CURRENT_USER, '{role}', 'MEMBER')" for role in ("protoken_member", "protoken_replica")
    )
    client = "current_setting('protoken.client', true)"
    for table in ("entries", "events"):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_others ON {table} USING ({neither}) WITH CHECK ({neither})")
    op.execute("CREATE POLICY entries_replica ON entries FOR INSERT TO protoken_replica WITH CHECK (true)")
    op.execute(f"CREATE POLICY entries_member ON entries FOR SELECT TO protoken_member USING (account = {client})")
    op.execute(
        "CREATE POLICY events_replica ON events FOR SELECT TO protoken_replica USING (kind = 'client.registered')"
    )
    op.execute(
        "CREATE POLICY events_member ON events FOR SELECT TO protoken_member USING (kind = 'signing_key.added' "
        f"OR (kind = 'statement' AND split_part(subject, '/', 2) = {client}))"
    )


def _create_receipts() -> None:
    op.create_table(
        "receipts",
        sa.Column("sequence", BIGINT, nullable=False, autoincrement=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("reverses", sa.Text(), nullable=True),
        sa.Column("payload_sha256", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
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
        sa.UniqueConstraint("reverses", name="receipts_reversed_once"),
        sa.CheckConstraint("sequence >= 1", name="receipts_sequence"),
        sa.CheckConstraint("length(payload_sha256) = 64 AND length(salt) = 64", name="receipts_hashes"),
        sa.CheckConstraint("booked_at_us >= 0 AND created_at_us >= 0 AND duration_us >= 0", name="receipts_times"),
        sa.CheckConstraint(
            "(kind = 'response' AND reverses IS NULL AND tokens >= 1)"
            " OR (kind = 'reversal' AND reverses IS NOT NULL AND tokens <= -1)",
            name="receipts_kind",
        ),
        sa.ForeignKeyConstraint(["reverses"], ["receipts.response_id"]),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("receipts_by_booking", "receipts", ["booked_at_us"])
    op.create_index("receipts_by_application", "receipts", ["application", "sequence"])


def _create_entries() -> None:
    op.create_table(
        "entries",
        sa.Column("receipt_sequence", BIGINT, nullable=False, autoincrement=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("amount", BIGINT, nullable=False),
        sa.PrimaryKeyConstraint("receipt_sequence", "account"),
        sa.ForeignKeyConstraint(["receipt_sequence"], ["receipts.sequence"]),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("entries_by_account", "entries", ["account", "receipt_sequence", "amount"])


def _create_events() -> None:
    op.create_table(
        "events",
        sa.Column("sequence", BIGINT, nullable=False, autoincrement=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("at_us", BIGINT, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("salt", sa.Text(), nullable=False),
        sa.Column("once", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("once", name="events_once"),
        sa.CheckConstraint("sequence >= 1 AND at_us >= 0", name="events_numbers"),
        sa.CheckConstraint("length(salt) = 64", name="events_salt"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_index("events_by_subject", "events", ["kind", "subject", "sequence"])


def _create_log() -> None:
    op.create_table(
        "leaves",
        sa.Column("leaf_index", BIGINT, nullable=False, autoincrement=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("sequence", BIGINT, nullable=False),
        sa.PrimaryKeyConstraint("leaf_index"),
        sa.UniqueConstraint("source", "sequence", name="leaves_once"),
        sa.CheckConstraint("leaf_index >= 0 AND sequence >= 1", name="leaves_numbers"),
        sa.CheckConstraint("source IN ('receipt', 'event')", name="leaves_source"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "nodes",
        sa.Column("level", BIGINT, nullable=False, autoincrement=False),
        sa.Column("node_index", BIGINT, nullable=False, autoincrement=False),
        sa.Column("hash", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("level", "node_index"),
        sa.CheckConstraint("level >= 0 AND node_index >= 0 AND length(hash) = 64", name="nodes_values"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    op.create_table(
        "checkpoints",
        sa.Column("size", BIGINT, nullable=False, autoincrement=False),
        sa.Column("root", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("sealed_at_us", BIGINT, nullable=False),
        sa.PrimaryKeyConstraint("size"),
        sa.CheckConstraint("size >= 1 AND sealed_at_us >= 0 AND length(root) = 64", name="checkpoints_values"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("client", sa.Text(), nullable=True),
        sa.Column("secret_hmac", sa.Text(), nullable=False),
        sa.Column("created_at_us", BIGINT, nullable=False),
        sa.Column("expires_at_us", BIGINT, nullable=True),
        sa.Column("revoked_at_us", BIGINT, nullable=True),
        sa.Column("rotated_from", sa.Text(), nullable=True),
        sa.Column("token_budget", BIGINT, nullable=True),
        sa.Column("requests_per_minute", BIGINT, nullable=True),
        sa.Column("last_used_at_us", BIGINT, nullable=True),
        sa.Column("last_used_sha256", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("key_id"),
        sa.CheckConstraint("role IN ('application', 'member', 'operator', 'auditor', 'admin')", name="api_keys_role"),
        sa.CheckConstraint("(role = 'member') = (client IS NOT NULL)", name="api_keys_client"),
        sa.CheckConstraint("length(secret_hmac) = 64", name="api_keys_secret"),
        sa.CheckConstraint(
            "created_at_us >= 0 AND expires_at_us >= 0 AND revoked_at_us >= 0 AND last_used_at_us >= 0",
            name="api_keys_times",
        ),
        sa.CheckConstraint("(last_used_at_us IS NULL) = (last_used_sha256 IS NULL)", name="api_keys_last_use"),
        sa.CheckConstraint("token_budget >= 0 AND requests_per_minute >= 1", name="api_keys_limits"),
        sqlite_strict=True,
    )


def _create_claims() -> None:
    op.create_table(
        "claims",
        sa.Column("application", sa.Text(), nullable=False),
        sa.Column("key_sha256", sa.Text(), nullable=False),
        sa.Column("attempt", BIGINT, nullable=False, autoincrement=False),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("response_id", sa.Text(), nullable=False),
        sa.Column("created_at_us", BIGINT, nullable=False),
        sa.Column("ended_at_us", BIGINT, nullable=True),
        sa.Column("row_sha256", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("application", "key_sha256", "attempt"),
        sa.UniqueConstraint("response_id", name="claims_once_per_response"),
        sa.CheckConstraint("length(key_sha256) = 64 AND length(request_sha256) = 64", name="claims_hashes"),
        sa.CheckConstraint("attempt >= 1 AND created_at_us >= 0 AND ended_at_us >= 0", name="claims_numbers"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
