"""Sampled credit: the rules by which responses are chosen, and receipts of those that were not, which are pending.

The table holds secrets: besides the owner, PostgreSQL shows it to replicas alone. Knows nothing of
`rewards.store.tables`, as 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

BIGINT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

# As in 0004, but that what was not measured is pending, all of it, and nothing else is.
WHOLE = """
DECLARE
    receipt receipts%ROWTYPE;
    credited numeric;
    stranger text;
    amounts text;
    entries_of integer;
    is_pending boolean;
BEGIN
    IF TG_TABLE_NAME = 'receipts' THEN
        receipt := NEW;
    ELSE
        SELECT * INTO receipt FROM receipts WHERE sequence = NEW.receipt_sequence;
    END IF;
    SELECT sum(amount), string_agg(to_json(account)::text || ':' || amount, ',' ORDER BY account COLLATE "C"),
        min(account) FILTER (WHERE account NOT IN ('commons', 'pending') AND NOT EXISTS (
            SELECT FROM events WHERE kind = 'client.registered' AND subject = receipt.consortium || '/' || account)),
        count(*), coalesce(bool_or(account = 'pending'), false)
    INTO credited, amounts, stranger, entries_of, is_pending FROM entries WHERE receipt_sequence = receipt.sequence;
    IF credited IS DISTINCT FROM receipt.tokens * 1000000::numeric THEN
        RAISE EXCEPTION 'entries of receipt % sum to %, not to its tokens', receipt.sequence, credited;
    ELSIF stranger IS NOT NULL THEN
        RAISE EXCEPTION 'receipt % credits %, who is not registered', receipt.sequence, stranger;
    ELSIF is_pending IS DISTINCT FROM
        coalesce(receipt.measurement::jsonb #> '{sampling,measured}' = 'false'::jsonb, false)
        OR (is_pending AND entries_of > 1) THEN
        RAISE EXCEPTION 'receipt % is not pending as it says that it was measured or not', receipt.sequence;
    ELSIF receipt.payload_sha256 <> encode(sha256(convert_to(
        '{"amounts":{' || amounts || '},"application":' || to_json(receipt.application)
        || ',"consortium":' || to_json(receipt.consortium) || ',"created_at_us":' || receipt.created_at_us
        || ',"duration_us":' || receipt.duration_us || ',"measurement":' || receipt.measurement
        || ',"method":' || to_json(receipt.method) || ',"model_sha256":' || to_json(receipt.model_sha256)
        || ',"response_id":' || to_json(receipt.response_id) || ',"settings":' || receipt.settings
        || ',"tokens":' || receipt.tokens || ',"version":' || to_json(receipt.version) || '}', 'UTF8')), 'hex')
    THEN
        RAISE EXCEPTION 'receipt % is not what its hash is of', receipt.sequence;
    END IF;
    RETURN NULL;
END
"""


def upgrade() -> None:
    op.create_table(
        "sampling_rules",
        sa.Column("sequence", BIGINT, nullable=False, autoincrement=False),
        sa.Column("consortium", sa.Text(), nullable=False),
        sa.Column("millionths", BIGINT, nullable=False),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("at_us", BIGINT, nullable=False),
        sa.PrimaryKeyConstraint("sequence"),
        sa.CheckConstraint("sequence >= 1 AND at_us >= 0", name="sampling_rules_numbers"),
        sa.CheckConstraint("millionths BETWEEN 1 AND 1000000", name="sampling_rules_fraction"),
        sa.CheckConstraint("(millionths = 1000000) = (secret IS NULL)", name="sampling_rules_needs_secret"),
        sa.CheckConstraint("length(secret) = 64", name="sampling_rules_secret"),
        sqlite_strict=True,
        sqlite_with_rowid=False,
    )
    {"sqlite": _guard_sqlite, "postgresql": _guard_postgresql}[op.get_context().dialect.name]()


def _guard_sqlite() -> None:
    for change in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER sampling_rules_refuse_{change.lower()} BEFORE {change} ON sampling_rules "
            f"BEGIN SELECT RAISE(ABORT, 'sampling_rules is append-only: {change} refused'); END"
        )
    op.execute(
        "CREATE TRIGGER sampling_rules_refuse_replace BEFORE INSERT ON sampling_rules "
        "WHEN EXISTS (SELECT 1 FROM sampling_rules WHERE sequence = NEW.sequence) "
        "BEGIN SELECT RAISE(ABORT, 'sampling_rules is append-only: the row is there already'); END"
    )


def _guard_postgresql() -> None:
    op.execute(
        "CREATE TRIGGER sampling_rules_refuse BEFORE UPDATE OR DELETE OR TRUNCATE ON sampling_rules "
        "FOR EACH STATEMENT EXECUTE FUNCTION protoken_refuse()"
    )
    op.execute("REVOKE ALL ON sampling_rules FROM PUBLIC")
    op.execute("GRANT SELECT ON sampling_rules TO protoken_replica")
    schema = op.get_bind().execute(sa.text("SELECT quote_ident(current_schema())")).scalar_one()
    op.get_bind().exec_driver_sql(
        "CREATE OR REPLACE FUNCTION protoken_whole_receipt() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, {schema}, pg_temp AS $${WHOLE}$$".replace("%", "%%")
    )
