"""On PostgreSQL the database itself keeps replicas, the exporter and members to what is theirs."""

from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url, text

from deployment.places import ledger_folder
from rewards import Ledger, LedgerError, events
from rewards.audit import audit
from tests.rewards.books import write_books
from tests.rewards.conftest import new_database
from tests.rewards.receipts import make_receipt


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
