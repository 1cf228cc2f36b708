"""The migrations make the schema that the code declares, on both databases, from wherever the package is installed."""

import sqlite3
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, Table, create_engine, text
from sqlmodel import SQLModel

from rewards import Ledger, LedgerError
from tests.rewards.receipts import make_receipt

TABLES = ["api_keys", "checkpoints", "claims", "entries", "events", "leaves", "nodes", "receipts"]


def named_checks(table: Table) -> list[CheckConstraint]:
    """The check constraints that a table declares."""
    return [each for each in table.constraints if isinstance(each, CheckConstraint) and each.name]


def schema(path: Path) -> dict[str, str]:
    """Name -> CREATE statement of every table and index."""
    with sqlite3.connect(path) as raw:
        rows = raw.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL")
        return {name: " ".join(sql.split()) for name, sql in rows}


def test_migrations_and_tables_declare_the_same_schema(sqlite_url, tmp_path):
    """The migrations create, statement for statement, what tables.py declares: columns, keys, checks and indexes."""
    declared = create_engine(f"sqlite:///{tmp_path}/declared.db")
    SQLModel.metadata.create_all(declared, tables=[SQLModel.metadata.tables[name] for name in TABLES])
    declared.dispose()
    expected = schema(tmp_path / "declared.db")
    migrated = schema(tmp_path / "ledger.db")
    migrated.pop("alembic_version")

    assert set(TABLES) < set(expected)
    assert expected == migrated


def test_postgresql_has_the_declared_schema(postgresql_url):
    """Alembic finds nothing that it would have to change in a migrated PostgreSQL, checks and types included."""
    ledger = Ledger(postgresql_url)
    with ledger.database.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), SQLModel.metadata)
        declared = {check.name for table in SQLModel.metadata.tables.values() for check in named_checks(table)}
        checks = connection.execute(text("SELECT conname FROM pg_constraint WHERE contype = 'c'")).scalars()
        types = connection.execute(
            text("SELECT DISTINCT data_type FROM information_schema.columns WHERE table_name = ANY(:tables)"),
            {"tables": TABLES},
        ).scalars()

        assert [] == differences
        assert declared <= set(checks)
        assert {"bigint", "text"} == set(types)
    ledger.close()


def test_no_column_holds_floats(sqlite_url, tmp_path):
    """Every column is INTEGER or TEXT in a STRICT table: a float has no place to go."""
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        strict = dict(raw.execute("SELECT name, strict FROM pragma_table_list WHERE schema = 'main'"))
        types = {kind for table in TABLES for (kind,) in raw.execute(f"SELECT type FROM pragma_table_info('{table}')")}

    assert dict.fromkeys(TABLES, 1) == {table: strict[table] for table in TABLES}
    assert {"INTEGER", "TEXT"} == types


def test_preparing_again_changes_nothing(ledger, url):
    """A prepared ledger can be prepared at every start; what is booked stays."""
    ledger.append(make_receipt("r"))
    Ledger.prepare(url)

    assert ledger.append(make_receipt("r")).replayed
    assert 1 == ledger.last_sequence()


def test_ledger_writes_ahead_and_durably(sqlite_url):
    """The file is in WAL mode, and a commit waits for the disk, with foreign keys on and thirty seconds of patience."""
    ledger = Ledger(sqlite_url)
    with ledger.database.read() as connection:
        found = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        ]

    assert ["wal", 2, 1, 30_000] == found
    ledger.close()


@pytest.mark.parametrize("revision", ["0000", None])
def test_a_schema_that_is_not_at_head_is_refused(sqlite_url, tmp_path, revision):
    """A ledger of another revision, or a database without one, is refused, saying both revisions and what to call."""
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("DELETE FROM alembic_version")
        if revision:
            raw.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
    with pytest.raises(LedgerError, match=rf"schema {revision}.*needs 0002.*Ledger\.prepare"):
        Ledger(sqlite_url)


def test_a_ledger_of_the_unreleased_version_is_kept_as_it_is(sqlite_url, tmp_path):
    """A ledger from before the Merkle log cannot be upgraded: it is refused with the reason, and nothing changes."""
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0001'")
    before = schema(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match=r"ledger\.db.*never released.*new name"):
        Ledger.prepare(sqlite_url)

    assert before == schema(tmp_path / "ledger.db")


def test_a_ledger_of_a_newer_program_is_not_touched(sqlite_url, tmp_path):
    """Preparing a ledger whose revision is unknown here fails with the ledger named."""
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(LedgerError, match=r"ledger\.db.*9999"):
        Ledger.prepare(sqlite_url)


def test_migrations_travel_with_the_package(tmp_path):
    """A copy of the package in a zip-unpacked site folder, away from the sources, prepares a ledger by itself."""
    package = Path(__file__).parents[2] / "rewards"
    with zipfile.ZipFile(tmp_path / "rewards.zip", "w") as archive:
        for path in package.rglob("*.py"):
            archive.write(path, path.relative_to(package.parent))
    site = tmp_path / "a site %20 folder"
    zipfile.ZipFile(tmp_path / "rewards.zip").extractall(site)
    code = f"import rewards; rewards.Ledger.prepare('sqlite:///{tmp_path}/ledger.db'); print(rewards.__file__)"
    run = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(site)},
    )

    assert run.stdout.startswith(str(site))
    assert "receipts" in schema(tmp_path / "ledger.db")
