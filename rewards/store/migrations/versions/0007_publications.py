"""Replicas may read which bundles were published, as events tell it.

SQLite has no roles: whoever has the file reads all events.
"""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP POLICY events_replica ON events")
        op.execute(
            "CREATE POLICY events_replica ON events FOR SELECT TO protoken_replica "
            "USING (kind IN ('client.registered', 'bundle.published', 'bundle.withdrawn'))"
        )
