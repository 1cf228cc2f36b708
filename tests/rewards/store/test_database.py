"""A database that cannot hold the ledger's texts, or is not named rightly, is refused in one clear line."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import make_url

from rewards.audit.replay import audit
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from tests.rewards.conftest import new_database
from tests.rewards.receipts import MEMBERS, make_receipt
from tests.rewards.store.pooler import pooled
from tests.waiting import PATIENCE_S


def _encoded(postgresql: str, encoding: str) -> str:
    name = f"ledger_{uuid4().hex}"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    return postgresql.replace("/postgres?", f"/{name}?")


class TestEncoding:
    """The ledger's texts are UTF-8, whatever the server and the surroundings were set to."""

    @pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP", "WIN1252"])
    @pytest.mark.parametrize("use", [Ledger.prepare, Ledger], ids=["prepare", "open"])
    def test_a_database_of_another_encoding_is_refused(self, postgresql, encoding, use):
        """A database that cannot hold every text is refused by its encoding and what to do, before it is changed."""
        url = _encoded(postgresql, encoding)
        with pytest.raises(LedgerError, match=f"{make_url(url).database}.*encoding is {encoding}.*ENCODING 'UTF8'"):
            use(url)

        with psycopg.connect(url) as connection:
            tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        assert (0,) == tables

    @pytest.mark.parametrize("source", ["environment", "url"])
    def test_the_client_s_encoding_changes_nothing(self, postgresql_url, monkeypatch, source):
        """Texts outside Latin-1 are kept where the environment or the URL asks for a client encoding of its own."""
        url = postgresql_url
        if source == "environment":
            monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
        else:
            url = make_url(url).update_query_dict({"client_encoding": "LATIN1"}).render_as_string(hide_password=False)
        ledger = Ledger(url)
        ledger.register("demo", {"tokyo": "東京 Łódź"})

        assert ("tokyo", "東京 Łódź") in ledger.clients()["demo"].items()
        ledger.close()


class TestPooler:
    """PgBouncer in transaction mode, where each transaction may run on another connection to the server."""

    def test_books_are_kept_through_it(self, postgresql):
        """The schema is made, receipts are booked by several threads, a period closes, and the audit finds nothing."""
        with pooled(new_database(postgresql)) as url:
            Ledger.prepare(url)
            ledger = Ledger(url)
            ledger.register("demo", MEMBERS)
            with ThreadPoolExecutor(4) as threads:
                booked = list(threads.map(lambda n: ledger.append(make_receipt(f"r{n}")).sequence, range(60)))
                totals = list(threads.map(lambda _: ledger.tokens(), range(60)))
            for n in range(0, 60, 10):
                ledger.reverse(f"r{n}", "a test", "me")
            report = audit(url)
            ledger.close()

        assert list(range(1, 61)) == sorted(booked)
        assert {420} == set(totals)
        assert (None, 66) == (report.difference, report.counts["receipts"])


class TestUrl:
    """A URL that names no usable database is refused in one line that says which and why."""

    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://user@host:port/database",
            "postgresql://user@host:99999/database",
            "postgresql://user@localhost/database?no_such_option=1",
            "postgresql://user@localhost/database?client_encoding=no-such",
            "postgresql://user@localhost/database?connect_timeout=soon",
            "postgresql://us\udcffer@localhost/database",
            "sqlite:////tmp/with\0nul.db",
            "sqlite:////tmp/half\udcff\ud800.db",
            "sqlite:////tmp",
            "sqlite:////dev/null/ledger.db",
            "sqlite:////tmp/ledger.db?mode=nonsense&uri=true",
            "sqlite:////tmp/ledger.db?timeout=soon",
            "sqlite:////tmp/ledger.db?no_such_option=1",
        ],
    )
    @pytest.mark.parametrize("use", [Ledger.prepare, Ledger], ids=["prepare", "open"])
    def test_a_wrong_url_is_refused(self, url, use):
        """Ports, options, and names that are none, are refused by the ledger's own error, without line breaks."""
        with pytest.raises(LedgerError, match=r"\A[^\n]+\Z"):
            use(url)


def test_whoever_stops_reading_is_no_fault_of_the_ledger(ledger):
    """As `protoken ledger entries | head` does in the middle of a read."""
    with pytest.raises(BrokenPipeError), ledger.database.read():
        raise BrokenPipeError(32, "Broken pipe")


def test_a_text_that_is_none_is_refused(ledger):
    """Half of a surrogate pair, as a shell makes of a stray byte, is refused in one line by either database."""
    with pytest.raises(LedgerError, match="not valid text"):
        ledger.receipt("r\udcff")

    assert ledger.receipt("r") is None


class TestDisk:
    """SQLite is only safe on a disk that has locks."""

    def test_a_disk_without_locks_is_refused_at_once(self, sqlite_url):
        """No ledger is made or opened there, and nobody waits half a minute to hear that it is busy."""
        program = [sys.executable, "-m", "tests.faults.lockless", sqlite_url]
        ended = subprocess.run(program, capture_output=True, text=True, check=True, timeout=PATIENCE_S)

        *lines, seconds = ended.stdout.splitlines()
        assert 2 == len(lines), ended
        assert all(line.startswith(f"ledger {sqlite_url.removeprefix('sqlite:///')}") for line in lines)
        assert all("no locks" in line and "local disk" in line for line in lines)
        assert float(seconds) < 20
