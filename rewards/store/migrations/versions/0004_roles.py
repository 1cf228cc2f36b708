"""PostgreSQL: the replica's role can book and nothing else, and nobody who only reads can hold up who writes.

A login that is not of the owner's role may insert receipts, but each is the next one, a response of now, with credit
that is whole and of registered clients, under the hash that an audit computes; entries come with their receipt or not
at all. The one place to write is a table lock behind a function, not an advisory lock, which any login could take and
keep.

SQLite has no roles: whoever has the file has all of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

LOCK = "BEGIN LOCK TABLE alembic_version IN SHARE ROW EXCLUSIVE MODE; END"

RECEIPT = """
DECLARE
    skew_us CONSTANT bigint := 3600000000;  -- an hour: how far a replica's clock may be ahead of the database's
    step_us CONSTANT bigint := 600000000;  -- what is stamped later than that after now is of a clock that was wrong
    last record;
    written text;
    now_us bigint := (extract(epoch FROM clock_timestamp()) * 1000000)::bigint;
BEGIN
    SELECT sequence, booked_at_us INTO last FROM receipts ORDER BY sequence DESC LIMIT 1;
    IF NEW.sequence <> coalesce(last.sequence, 0) + 1 THEN
        RAISE EXCEPTION 'receipt % is not the next one, which is %', NEW.sequence, coalesce(last.sequence, 0) + 1;
    ELSIF NEW.kind <> 'response' OR NEW.response_id LIKE 'reversal-%' THEN
        RAISE EXCEPTION 'this role books responses and reverses none';
    ELSIF NEW.booked_at_us NOT BETWEEN
        (CASE WHEN last.booked_at_us > now_us + step_us THEN now_us - skew_us ELSE coalesce(last.booked_at_us, 0) END)
        AND greatest(last.booked_at_us, now_us + skew_us) OR NEW.created_at_us > NEW.booked_at_us + skew_us THEN
        RAISE EXCEPTION 'receipt % is not of this hour', NEW.sequence;
    ELSIF NEW.payload_sha256 !~ '^[0-9a-f]{64}$' OR NEW.salt !~ '^[0-9a-f]{64}$' THEN
        RAISE EXCEPTION 'a hash or salt of receipt % is not 64 hex digits', NEW.sequence;
    ELSIF NEW.tokens > 9223372036853 OR NEW.duration_us >= 9007199254740992 THEN
        RAISE EXCEPTION 'receipt % has more tokens or took longer than its credit or JSON can tell', NEW.sequence;
    END IF;
    FOREACH written IN ARRAY ARRAY[
        NEW.response_id, NEW.application, NEW.consortium, NEW.model_sha256, NEW.method, NEW.version
    ] LOOP
        IF written = '' OR written ~ '[\\u0001-\\u001f\\u007f-\\u009f\\u2028\\u2029]' THEN
            RAISE EXCEPTION 'a text of receipt % is empty or not printable', NEW.sequence;
        END IF;
    END LOOP;
    -- jsonb, which refuses what no text can hold: a zero character, half of a surrogate pair
    IF jsonb_typeof(NEW.settings::jsonb) <> 'object' OR jsonb_typeof(NEW.measurement::jsonb) <> 'object' THEN
        RAISE EXCEPTION 'settings and measurement of receipt % must be JSON objects', NEW.sequence;
    END IF;
    PERFORM (number #>> '{}')::float8 FROM jsonb_path_query(
        jsonb_build_array(NEW.settings::jsonb, NEW.measurement::jsonb), '$.** ? (@.type() == "number")') AS number;
    RETURN NEW;
END
"""

# `xmin` is the transaction that wrote a row, so a receipt that was committed takes no further entry.
ENTRY = """
DECLARE
    room numeric;
BEGIN
    SELECT receipts.tokens * 1000000::numeric - coalesce(
        (SELECT sum(amount) FROM entries WHERE receipt_sequence = NEW.receipt_sequence), 0) INTO room
    FROM receipts WHERE sequence = NEW.receipt_sequence AND xmin = pg_current_xact_id()::xid;
    IF room IS NULL THEN
        RAISE EXCEPTION 'receipt % is booked already, or not there', NEW.receipt_sequence;
    ELSIF NEW.amount NOT BETWEEN 0 AND room THEN
        RAISE EXCEPTION 'receipt % has no % micro-credits for %', NEW.receipt_sequence, NEW.amount, NEW.account;
    END IF;
    RETURN NEW;
END
"""

# Also for each entry of nothing, which could else come after the receipt was found whole. The payload is spelt here as
# `rewards.credit.canonical_bytes` spells it.
WHOLE = """
DECLARE
    receipt receipts%ROWTYPE;
    credited numeric;
    stranger text;
    amounts text;
BEGIN
    IF TG_TABLE_NAME = 'receipts' THEN
        receipt := NEW;
    ELSE
        SELECT * INTO receipt FROM receipts WHERE sequence = NEW.receipt_sequence;
    END IF;
    SELECT sum(amount), string_agg(to_json(account)::text || ':' || amount, ',' ORDER BY account COLLATE "C"),
        min(account) FILTER (WHERE account <> 'commons' AND NOT EXISTS (
            SELECT FROM events WHERE kind = 'client.registered' AND subject = receipt.consortium || '/' || account))
    INTO credited, amounts, stranger FROM entries WHERE receipt_sequence = receipt.sequence;
    IF credited IS DISTINCT FROM receipt.tokens * 1000000::numeric THEN
        RAISE EXCEPTION 'entries of receipt % sum to %, not to its tokens', receipt.sequence, credited;
    ELSIF stranger IS NOT NULL THEN
        RAISE EXCEPTION 'receipt % credits %, who is not registered', receipt.sequence, stranger;
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
    if op.get_context().dialect.name != "postgresql":
        return
    connection = op.get_bind()
    schema, owner = connection.execute(
        sa.text(
            "SELECT quote_ident(current_schema()), pg_get_userbyid(relowner) "
            "FROM pg_class WHERE oid = 'receipts'::regclass"
        )
    ).one()
    _function("protoken_lock", "void", LOCK, schema)
    op.execute("REVOKE EXECUTE ON FUNCTION protoken_lock() FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION protoken_lock() TO protoken_replica")
    limited = f"NOT pg_has_role(CURRENT_USER, {_literal(owner)}, 'MEMBER')"
    next_receipt, own_entry = "BEFORE INSERT ON receipts", "BEFORE INSERT ON entries"
    whole, deferred = "AFTER INSERT ON receipts", "DEFERRABLE INITIALLY DEFERRED"
    nothing_more = "AFTER INSERT ON entries"
    for name, body in (
        ("protoken_next_receipt", RECEIPT),
        ("protoken_own_entry", ENTRY),
        ("protoken_whole_receipt", WHOLE),
    ):
        _function(name, "trigger", body, schema)
        op.execute(f"REVOKE EXECUTE ON FUNCTION {name}() FROM PUBLIC")
    for name, kind, moment, condition, function in (
        ("protoken_next_receipt", "TRIGGER", next_receipt, limited, "protoken_next_receipt"),
        ("protoken_own_entry", "TRIGGER", own_entry, limited, "protoken_own_entry"),
        ("protoken_whole_receipt", "CONSTRAINT TRIGGER", f"{whole} {deferred}", limited, "protoken_whole_receipt"),
        (
            "protoken_nothing_more", "CONSTRAINT TRIGGER", f"{nothing_more} {deferred}",
            f"NEW.amount = 0 AND {limited}", "protoken_whole_receipt",
        ),
    ):  # fmt: skip
        op.execute(f"CREATE {kind} {name} {moment} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {function}()")


def _function(name: str, returns: str, body: str, schema: str) -> None:
    """A function that runs with the owner's rights, and finds the ledger's tables and no others of their names."""
    op.get_bind().exec_driver_sql(
        f"CREATE FUNCTION {name}() RETURNS {returns} LANGUAGE plpgsql SECURITY DEFINER "
        f"SET search_path = pg_catalog, {schema}, pg_temp AS $${body}$$".replace("%", "%%")
    )


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
