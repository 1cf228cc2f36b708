"""On PostgreSQL the database itself keeps replicas, the exporter and members to what is theirs."""

from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from deployment.health.places import ledger_folder
from rewards.audit.replay import audit
from rewards.errors import LedgerError, LedgerRefusedError
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys, put_in_force
from rewards.store import events, publications
from rewards.store.database import now_us
from tests.rewards.books import write_books
from tests.rewards.conftest import new_database
from tests.rewards.receipts import make_receipt
from tests.rewards.sampled_credit.sampled import sampled


@pytest.fixture
def logins(postgresql_url):
    """A ledger with receipts and statements, and for each role the URL of a login that was granted it."""
    ledger = Ledger(postgresql_url)
    ledger.append(make_receipt("r"))
    with ledger.database.write() as connection:
        for client in ("bank", "clinic"):
            events.record(connection, "statement", f"2026-11/{client}", "me", {"client": client})
        events.record(connection, "period.final", "2026-11", "me", {"everything": True})
    found = {"owner": postgresql_url}
    with psycopg.connect(postgresql_url, autocommit=True) as admin:
        for role in ("replica", "exporter", "auditor", "member"):
            login = f"{role}_{abs(hash(postgresql_url))}"
            admin.execute(f"CREATE ROLE {login} LOGIN IN ROLE protoken_{role}")
            found[role] = postgresql_url.replace("postgres:@", f"{login}:@")
    yield found
    ledger.close()


def refused(url: str, statement: str) -> None:
    """Assert that the login may not."""
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_a_replica_books_and_can_do_nothing_else(logins):
    """The replica's role appends receipts, once each, and may neither read amounts nor change anything."""
    replica = Ledger(logins["replica"])

    assert (2, False) == (replica.append(make_receipt("s")).sequence, replica.append(make_receipt("t")).replayed)
    assert replica.append(make_receipt("s")).replayed
    assert (True, False) == (replica.is_booked("s"), replica.is_booked("u"))
    for statement in (
        "SELECT amount FROM entries",
        "SELECT measurement FROM receipts",
        "UPDATE receipts SET tokens = 1",
        "DELETE FROM entries",
        "TRUNCATE events CASCADE",
        "INSERT INTO events VALUES (9, 'k', 's', 1, 'a', '{}', repeat('0', 64), NULL)",
        "SELECT * FROM api_keys",
        "SELECT * FROM claims",
    ):
        refused(logins["replica"], statement)
    with psycopg.connect(logins["replica"]) as connection:
        assert {"client.registered"} == {row[0] for row in connection.execute("SELECT kind FROM events")}
    owner = Ledger(logins["owner"])
    assert ledger_folder(Path("spool"), owner) == ledger_folder(Path("spool"), replica)
    owner.close()
    replica.close()


HASH = "repeat('a', 64)"
RECEIPT = (
    "INSERT INTO receipts SELECT {sequence}, '{kind}', '{name}', {reverses}, {hash}, {salt}, booked_at_us + {booked}, "
    "created_at_us + {created}, 'shop', 'demo', 'm', 'credit', '{settings}', '1', {tokens}, '{measurement}', 1 "
    "FROM receipts WHERE sequence = 1"
)
PLAIN = {
    "sequence": 2, "kind": "response", "name": "s", "reverses": "NULL", "salt": HASH, "booked": 0,
    "created": 0, "settings": "{}", "measurement": "{}", "tokens": 1,
}  # fmt: skip
PAYLOAD = (
    '{{"amounts":{{{amounts}}},"application":"shop","consortium":"demo","created_at_us":{made},"duration_us":1,'
    '"measurement":{measurement},"method":"credit","model_sha256":"m","response_id":"{name}","settings":{settings},'
    '"tokens":{tokens},"version":"1"}}'
)


def receipt(changes, **amounts):
    """A statement that books one, with the hash that it should have; every credit is the bank's where not said."""
    fields = PLAIN | changes
    amounts = amounts or {"bank": fields["tokens"] * 1_000_000}
    payload = PAYLOAD.format(
        amounts=",".join(f'"{account}":{amount}' for account, amount in sorted(amounts.items())),
        made=1_700_000_000_000_000 + fields["created"],
        **fields,
    )
    return RECEIPT.format(**{"hash": f"'{sha256(payload.encode()).hexdigest()}'"} | fields)


ENTRY = "INSERT INTO entries VALUES ({sequence}, '{account}', {amount})"
WHOLE = ENTRY.format(sequence=2, account="bank", amount=1_000_000)
ACCOUNTS = ("bank", "clinic", "commons", "rider")
YEAR_US = 365 * 86_400_000_000
ATTACKS = {
    "a reversal": [receipt({"kind": "reversal", "reverses": "'r'", "tokens": -7})],
    "the name of a reversal": [receipt({"name": "reversal-r"}), WHOLE],
    "the last number there is": [receipt({"sequence": 2**63 - 1})],
    "a number left out": [receipt({"sequence": 3})],
    "booked a year ahead": [receipt({"booked": YEAR_US}), WHOLE],
    "booked before the last one": [receipt({"booked": -1}), WHOLE],
    "made a year ahead": [receipt({"created": 100 * YEAR_US}), WHOLE],
    "a salt that is none": [receipt({"salt": "repeat('x', 64)"}), WHOLE],
    "a hash that is none": [receipt({"hash": "repeat('ä', 64)"}), WHOLE],
    "settings that are no JSON": [receipt({"settings": "{"}), WHOLE],
    "a measurement that is a list": [receipt({"measurement": "[]"}), WHOLE],
    "an entry of a booked receipt": [ENTRY.format(sequence=1, account="rider", amount=1)],
    "an entry of nothing in a booked receipt": [ENTRY.format(sequence=1, account="shop", amount=0)],
    "an entry of no receipt": [ENTRY.format(sequence=9, account="bank", amount=1)],
    "no entries": [receipt({})],
    "too little": [receipt({}, bank=999_999), ENTRY.format(sequence=2, account="bank", amount=999_999)],
    "too much": [receipt({}, bank=1_000_001), ENTRY.format(sequence=2, account="bank", amount=1_000_001)],
    "something more": [
        receipt({}, bank=1_000_000, clinic=1),
        WHOLE,
        ENTRY.format(sequence=2, account="clinic", amount=1),
    ],
    "more, once it was found whole": [
        "SET CONSTRAINTS ALL IMMEDIATE",
        f"WITH one AS ({receipt({})}) {WHOLE}",
        ENTRY.format(sequence=2, account="clinic", amount=1),
    ],
    "less than nothing": [
        receipt({}, bank=1_000_001, clinic=-1),
        ENTRY.format(sequence=2, account="clinic", amount=-1),
        ENTRY.format(sequence=2, account="bank", amount=1_000_001),
    ],
    "credit to a stranger": [receipt({}, eve=1_000_000), ENTRY.format(sequence=2, account="eve", amount=1_000_000)],
    "a name that no receipt has": [receipt({"name": ""}), WHOLE],
    "a name of two lines": [receipt({"name": "two\nlines"}), WHOLE],
    "a hash of something else": [receipt({"hash": "repeat('b', 64)"}), WHOLE],
    "nothing for a stranger, once it was found whole": [
        receipt({}),
        WHOLE,
        "SET CONSTRAINTS ALL IMMEDIATE",
        ENTRY.format(sequence=2, account="pending", amount=0),
    ],
    "nothing for a client, once it was found whole": [
        receipt({}),
        WHOLE,
        "SET CONSTRAINTS ALL IMMEDIATE",
        ENTRY.format(sequence=2, account="clinic", amount=0),
    ],
    "more tokens than a receipt has": [
        receipt({"tokens": 2**44}, **dict.fromkeys(ACCOUNTS, 2**42 * 1_000_000)),
        *(ENTRY.format(sequence=2, account=account, amount=2**42 * 1_000_000) for account in ACCOUNTS),
    ],
    "pending though it was measured": [
        receipt({}, pending=1_000_000), ENTRY.format(sequence=2, account="pending", amount=1_000_000),
    ],
    "a client's though it was not measured": [receipt({"measurement": '{"sampling":{"measured":false}}'}), WHOLE],
    "pending and somebody else's": [
        receipt({"measurement": '{"sampling":{"measured":false}}'}, pending=1_000_000, bank=0),
        ENTRY.format(sequence=2, account="pending", amount=1_000_000),
        ENTRY.format(sequence=2, account="bank", amount=0),
    ],
    "half a character": [receipt({"measurement": '{"text": "\\ud800"}'}), WHOLE],
    "a zero character": [receipt({"measurement": '{"text": "\\u0000"}'}), WHOLE],
    "a number beyond every float": [receipt({"measurement": '{"gain":1e999}'}), WHOLE],
    "a receipt again": [receipt({"name": "r"}), WHOLE],
    "another table of the name": [
        "CREATE TEMP TABLE receipts (sequence bigint, booked_at_us bigint)",
        "INSERT INTO public.receipts SELECT 5" + receipt({}).removeprefix("INSERT INTO receipts SELECT 2")
        .replace("FROM receipts", "FROM public.receipts").replace("booked_at_us", "1").replace("created_at_us", "1"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_replica_that_was_taken_over_books_whole_receipts_or_none(logins, attack):
    """Whoever has a replica's login, past our own code: no reversal, no odd receipt, nothing that stops the others."""
    with psycopg.connect(logins["owner"]) as owner:  # a replica may not read the columns that the attacks copy
        owner.execute("GRANT SELECT (created_at_us) ON receipts TO protoken_replica")
    before = counts(logins["owner"])
    taken = closing(psycopg.connect(logins["replica"]))
    with taken as connection, pytest.raises(psycopg.Error), connection.transaction():
        for statement in ATTACKS[attack]:
            connection.execute(statement)

    assert before == counts(logins["owner"])
    replica = Ledger(logins["replica"])
    assert 2 == replica.append(make_receipt("next")).sequence
    replica.close()


def counts(owner):
    """How many receipts and entries there are."""
    with psycopg.connect(owner) as connection:
        return connection.execute("SELECT (SELECT count(*) FROM receipts), (SELECT count(*) FROM entries)").fetchone()


def test_a_plain_receipt_passes_where_the_attacks_fail(logins):
    """The statements that the attacks are made of book a receipt when nothing about them is odd."""
    with psycopg.connect(logins["owner"]) as owner:
        owner.execute("GRANT SELECT (created_at_us) ON receipts TO protoken_replica")
    with psycopg.connect(logins["replica"]) as connection:
        connection.execute(receipt({}))
        connection.execute(WHOLE)

    assert (2, 5) == counts(logins["owner"])


def test_a_replica_books_what_is_pending_by_the_rules_it_may_read(logins):
    """A replica's login reads the rule in force and books by it; what says that it was not measured is pending."""
    owner, replica = Ledger(logins["owner"]), Ledger(logins["replica"])
    put_in_force(owner.database, "demo", "0.5", "tester")
    rule = SamplingKeys(replica.database).rule("demo", now_us())
    for number in range(12):
        replica.append(sampled(f"s{number}", rule))

    unmeasured = sum(not rule.is_measured(f"s{number}") for number in range(12))
    assert (500_000, unmeasured * 7_000_000) == (rule.millionths, owner.balances().get("pending", 0))
    owner.close()
    replica.close()


def test_a_replica_reads_what_was_published_and_publishes_nothing(logins):
    """Which bundle is to be served it must see; what else is in the events stays hidden, and only the owner writes."""
    owner, replica = Ledger(logins["owner"]), Ledger(logins["replica"])
    with owner.database.write() as connection:
        for number in (1, 2):
            publications.publish(
                connection,
                "demo",
                bundle="/b",
                model_sha256=str(number) * 64,
                manifest_sha256="c" * 64,
                round_number=number,
                actor="me",
            )
        publications.withdraw(connection, "demo", "me")
    with owner.database.read() as one, replica.database.read() as other:
        told = publications.history(one, "demo"), publications.history(other, "demo")
    with psycopg.connect(logins["replica"]) as connection:
        kinds = {row[0] for row in connection.execute("SELECT kind FROM events")}

    assert [(1, False), (2, True)] == [(each.round, each.is_withdrawn) for each in told[1]]
    assert told[0] == told[1]
    assert {"client.registered", "bundle.published", "bundle.withdrawn"} == kinds
    with pytest.raises(LedgerError), replica.database.write() as connection:
        publications.withdraw(connection, "demo", "me")
    owner.close()
    replica.close()


def test_whatever_a_receipt_may_hold_a_replica_can_book(logins):
    """Names in any script, quotes and backslashes, floats at both ends: the database finds the hash that we made."""
    names = ("Zeta", "alpha", "a-b", "a.b", "ab", "é", "ﬀ", "😀", 'quo"te', "back\\slash")
    owner, replica = Ledger(logins["owner"]), Ledger(logins["replica"])
    owner.register("demo", {name: name for name in names})
    text = 'a "quote" \\ \n\t\x7f é 😀 \u2028'
    odd = {"text": text, "floats": [1e-320, -0.0, 1.5e300, 0.1, 5e-324], "none": [None, {}], "integer": 2**70}
    receipt = replace(
        make_receipt("odd", 9, dict.fromkeys(names, 0.1) | {"bank": 0.0}),
        application='the "shop" \\ 😀',
        method="crédit",
        settings=odd,
        measurement=odd,
        duration_us=2**53 - 1,
    )

    assert 2 == replica.append(receipt).sequence
    assert replica.append(receipt).replayed
    owner.close()
    replica.close()


def test_a_receipt_that_the_database_refuses_keeps_no_other_from_being_booked(logins):
    """One whose clock is two hours ahead is told so and may come again; what is booked with it is booked."""
    replica = Ledger(logins["replica"])
    ahead = make_receipt("ahead", created_at_us=now_us() + 2 * 3_600_000_000)
    first, refused, second = replica.append_many([make_receipt("s"), ahead, make_receipt("t")])

    assert (2, 3) == (first.sequence, second.sequence)
    assert isinstance(refused, LedgerRefusedError) and "is not of this hour" in str(refused)
    with pytest.raises(LedgerRefusedError, match="is not of this hour"):
        replica.append(ahead)
    assert [True, False, True] == [replica.is_booked(name) for name in ("s", "ahead", "t")]
    replica.close()


TABLES = (
    "receipts", "entries", "events", "leaves", "nodes", "checkpoints", "api_keys", "claims", "alembic_version",
    "sampling_rules",
)  # fmt: skip
MAY = {
    "replica": {
        ("INSERT", "receipts"), ("INSERT", "entries"),
        ("SELECT", "events"), ("SELECT", "alembic_version"), ("SELECT", "sampling_rules"),
    },
    "exporter": {
        ("SELECT", table)
        for table in ("receipts", "entries", "events", "leaves", "checkpoints", "alembic_version")
    },
    "auditor": {("SELECT", table) for table in TABLES if table != "sampling_rules"},
    "member": {
        ("SELECT", table)
        for table in ("entries", "events", "leaves", "nodes", "checkpoints", "alembic_version")
    },
}  # fmt: skip


@pytest.mark.parametrize("role", MAY)
def test_each_role_may_do_with_each_table_what_the_table_says(logins, role):
    """Every role, every table of the database, every right that PostgreSQL knows: no more than was meant."""
    rights = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")
    with psycopg.connect(logins[role]) as connection:
        found = {row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
        may = {
            (right, table)
            for table in found
            for right in rights
            if connection.execute("SELECT has_table_privilege(%s, %s)", (table, right)).fetchone() == (True,)
        }
        in_part = {
            (right, table)
            for table in found
            for right in ("INSERT", "UPDATE", "REFERENCES")
            if connection.execute("SELECT has_any_column_privilege(%s, %s)", (table, right)).fetchone() == (True,)
        }
        may_make = connection.execute("SELECT has_schema_privilege('public', 'CREATE')").fetchone()
    assert set(TABLES) == found
    assert MAY[role] == may
    assert in_part <= may
    assert (False,) == may_make


@pytest.mark.parametrize("role", ["exporter", "auditor", "member"])
def test_who_only_reads_holds_up_nobody_who_writes(logins, role):
    """No lock that a reading login can take stands in the way of a receipt."""
    with psycopg.connect(logins[role], autocommit=True) as reader:
        for lock in (
            "SELECT protoken_lock()",
            "LOCK TABLE alembic_version IN SHARE MODE",
            "LOCK TABLE receipts IN SHARE MODE",
            "SELECT version_num FROM alembic_version FOR UPDATE",
            "SELECT sequence FROM receipts FOR SHARE",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), reader.transaction():
                reader.execute(lock)
        reader.execute("SELECT pg_advisory_lock(%s)", (0x70726F746F6B656E,))
        reader.execute("BEGIN")
        reader.execute("SELECT count(version_num) FROM alembic_version")
        with psycopg.connect(logins["owner"], autocommit=True) as owner:
            owner.execute(f"ALTER DATABASE {owner.info.dbname} SET lock_timeout = '2s'")
        replica = Ledger(logins["replica"])
        assert 2 == replica.append(make_receipt("s")).sequence
        replica.close()


def test_the_exporter_reads_and_writes_nothing(logins):
    """The exporter's role reads the books, not the keys, and may not write."""
    exporter = Ledger(logins["exporter"])

    assert 7_000_000 == sum(exporter.balances().values())
    with pytest.raises(LedgerError, match="permission denied"):
        exporter.append(make_receipt("s"))
    refused(logins["exporter"], "SELECT * FROM api_keys")
    exporter.close()


def test_an_auditor_verifies_everything_and_writes_nothing(logins):
    """The auditor's role can rebuild the books from their rows, keys included, and may not write."""
    with psycopg.connect(logins["owner"], autocommit=True) as admin:
        books = new_database(logins["owner"].replace(f"/{admin.info.dbname}?", "/postgres?"))
    write_books(books)
    report = audit(books.replace("postgres:@", f"{make_url(logins['auditor']).username}:@"))

    counts = {name: report.counts[name] for name in ("receipts", "api_keys", "claims")}
    assert (None, {"receipts": 10, "api_keys": 3, "claims": 3}) == (report.difference, counts)
    for statement in (
        "INSERT INTO checkpoints VALUES (1, repeat('0', 64), 'k', 'n', 1)",
        "UPDATE api_keys SET revoked_at_us = NULL",
        "DELETE FROM receipts",
        "UPDATE claims SET ended_at_us = NULL",
    ):
        refused(logins["auditor"], statement)


def test_a_member_sees_its_own_rows_only(logins):
    """Row-level security: a member's login sees its own entries and statements, whatever it asks for."""
    with psycopg.connect(logins["member"]) as connection:
        assert [] == connection.execute("SELECT * FROM entries").fetchall()
        connection.execute("SELECT set_config('protoken.client', 'bank', false)")
        assert [("bank",)] == connection.execute("SELECT DISTINCT account FROM entries").fetchall()
        assert [("2026-11/bank",)] == connection.execute("SELECT subject FROM events").fetchall()
    for statement in ("SELECT measurement FROM receipts", "SELECT salt FROM receipts", "DELETE FROM entries"):
        refused(logins["member"], statement)


def test_the_service_reads_as_a_member_where_one_asks(postgresql_url, logins):
    """A transaction opened for a member is behind the same wall, though the service's own login sees all."""
    ledger = Ledger(postgresql_url)
    with ledger.database.read(member="clinic") as connection:
        assert ["clinic"] == list(connection.execute(text("SELECT DISTINCT account FROM entries")).scalars())
    with ledger.database.read() as connection:
        assert 4 == len(list(connection.execute(text("SELECT DISTINCT account FROM entries")).scalars()))
    ledger.close()
