"""Who a key is for outlives it: each key names the first key of its rotations, under which receipts and claims stand.

For the keys of before it follows from what each rotation wrote down. Knows nothing of `rewards.store.tables`, as 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_COLUMNS = (
    "key_id, role, label, client, secret_hmac, created_at_us, expires_at_us, revoked_at_us, rotated_from, "
    "token_budget, requests_per_minute, last_used_at_us, last_used_sha256"
)
_FIRST_OF_CHAIN = (
    "WITH RECURSIVE chain (key_id, identity) AS ("
    "SELECT key_id, key_id FROM {table} WHERE rotated_from IS NULL "
    "UNION ALL SELECT later.key_id, chain.identity FROM {table} AS later "
    "JOIN chain ON later.rotated_from = chain.key_id"
    ") "
)


def upgrade() -> None:
    {"sqlite": _upgrade_sqlite, "postgresql": _upgrade_postgresql}[op.get_context().dialect.name]()
    op.create_index("api_keys_by_identity", "api_keys", ["identity"])


def _upgrade_sqlite() -> None:
    """The table is made anew, since SQLite adds no column that must have a value."""
    op.rename_table("api_keys", "api_keys_before")
    _create_api_keys()
    op.execute(
        f"INSERT INTO api_keys ({_COLUMNS}, identity) "  # noqa: S608 - constants of this file
        f"{_FIRST_OF_CHAIN.format(table='api_keys_before')}"
        f"SELECT {_COLUMNS}, COALESCE("
        "(SELECT identity FROM chain WHERE chain.key_id = api_keys_before.key_id), key_id) FROM api_keys_before"
    )
    op.drop_table("api_keys_before")


def _upgrade_postgresql() -> None:
    op.add_column("api_keys", sa.Column("identity", sa.Text(), nullable=True))
    op.execute(
        f"{_FIRST_OF_CHAIN.format(table='api_keys')}"  # noqa: S608 - constants of this file
        "UPDATE api_keys SET identity = COALESCE("
        "(SELECT chain.identity FROM chain WHERE chain.key_id = api_keys.key_id), key_id)"
    )
    op.alter_column("api_keys", "identity", nullable=False)


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
        sa.Column("identity", sa.Text(), nullable=False),
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
