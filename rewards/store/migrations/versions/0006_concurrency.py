"""How many responses a key may have under way at once, and how much it gets of a busy service.

The keys of before are bounded by neither. Knows nothing of `rewards.store.tables`, as 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_COLUMNS = (
    "key_id, role, label, client, secret_hmac, created_at_us, expires_at_us, revoked_at_us, rotated_from, "
    "token_budget, requests_per_minute, last_used_at_us, last_used_sha256, identity"
)


def upgrade() -> None:
    {"sqlite": _upgrade_sqlite, "postgresql": _upgrade_postgresql}[op.get_context().dialect.name]()


def _upgrade_sqlite() -> None:
    """The table is made anew, since SQLite adds no check to one that is there."""
    op.drop_index("api_keys_by_identity", "api_keys")
    op.rename_table("api_keys", "api_keys_before")
    _create_api_keys()
    op.execute(f"INSERT INTO api_keys ({_COLUMNS}) SELECT {_COLUMNS} FROM api_keys_before")  # noqa: S608 - constants
    op.drop_table("api_keys_before")
    op.create_index("api_keys_by_identity", "api_keys", ["identity"])


def _upgrade_postgresql() -> None:
    for name in ("concurrency", "weight"):
        op.add_column("api_keys", sa.Column(name, BIGINT, nullable=True))
        op.create_check_constraint(f"api_keys_{name}", "api_keys", f"{name} >= 1")


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
        sa.Column("concurrency", BIGINT, nullable=True),
        sa.Column("weight", BIGINT, nullable=True),
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
        sa.CheckConstraint("concurrency >= 1", name="api_keys_concurrency"),
        sa.CheckConstraint("weight >= 1", name="api_keys_weight"),
        sqlite_strict=True,
    )
