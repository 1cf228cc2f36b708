"""The migrations make the schema that the code declares, on both databases, from wherever the package is installed."""

import os
import sqlite3
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Table, create_engine, make_url, text
from sqlmodel import SQLModel

from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from rewards.store import schema as schema_of_code
from tests.rewards.receipts import MEMBERS, make_receipt

HEAD = schema_of_code.head() or ""
TABLES = ["api_keys", "checkpoints", "claims", "entries", "events", "leaves", "nodes", "receipts", "sampling_rules"]


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


def refusals(url):
    """What opening, preparing and migrating a ledger is answered with; None where it is done."""
    found = []
    for call in (Ledger, Ledger.prepare, Ledger.migrate):
        try:
            call(url)
        except LedgerError as error:
            found.append(str(error))
        else:
            found.append(None)
    return found


def is_plain(text):
    """Whether an error speaks of no library and no function."""
    return not any(word in text for word in ("alembic", "revision", "Ledger.", "Error", "sqlalchemy", "head", "\n"))


def say_revision(path, revision):
    """Let a ledger say that it is of another schema, or of none."""
    with sqlite3.connect(path) as raw:
        raw.execute("DELETE FROM alembic_version")
        if revision:
            raw.execute("INSERT INTO alembic_version VALUES (?)", (revision,))


def test_an_older_ledger_waits_to_be_migrated(sqlite_url, tmp_path, monkeypatch):
    """Nothing but `migrate` touches it: whoever else opens it is told in one plain line what to run."""
    before = schema(tmp_path / "ledger.db")
    monkeypatch.setattr("rewards.store.schema.head", lambda: "9998")  # this program is of a version to come
    opened, prepared, _ = refusals(sqlite_url)

    assert opened == prepared
    assert all(word in opened for word in ("older protoken", HEAD, "9998", "ledger.db", "protoken ledger backup"))
    assert f"`protoken ledger migrate --ledger {sqlite_url}`" in opened
    assert is_plain(opened)
    assert before == schema(tmp_path / "ledger.db")


def test_a_newer_ledger_is_left_alone(sqlite_url, tmp_path):
    """A ledger of a newer version is not opened, prepared or migrated: one plain line says which version it needs."""
    say_revision(tmp_path / "ledger.db", "9999")
    before = schema(tmp_path / "ledger.db")
    opened, prepared, migrated = refusals(sqlite_url)

    assert opened == prepared == migrated
    assert all(word in opened for word in ("newer protoken", "9999", HEAD, "ledger.db", "nothing was changed"))
    assert is_plain(opened)
    assert before == schema(tmp_path / "ledger.db")


def test_a_ledger_that_does_not_say_its_schema_is_refused(sqlite_url, tmp_path):
    """Where the version is gone from the books, somebody damaged them, and no guess is made."""
    say_revision(tmp_path / "ledger.db", None)

    for refusal in refusals(sqlite_url):
        assert "ledger.db does not say of which schema it is" in refusal
        assert is_plain(refusal)


def test_a_ledger_that_says_two_schemas_is_refused(sqlite_url, tmp_path):
    """No version of the program writes that, so somebody damaged the books."""
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("INSERT INTO alembic_version VALUES ('0001')")

    for refusal in refusals(sqlite_url):
        assert f"is of several schemas, 0001, {HEAD}, so it was damaged" in refusal
        assert is_plain(refusal)


def test_files_of_migrations_are_named_by_their_revisions():
    """What is read off the files' names, so that opening a ledger imports no Alembic, is what Alembic reads in them."""
    scripts = ScriptDirectory(str(Path(schema_of_code.__file__).with_name("migrations")))
    names = {Path(script.path).name.partition("_")[0]: script.revision for script in scripts.walk_revisions()}

    assert len(names) >= 3
    assert [*names] == [*names.values()] == sorted(names, reverse=True)
    assert HEAD == scripts.get_current_head()


def test_a_database_of_something_else_is_left_alone(tmp_path):
    """No ledger is made among the tables of another program, whatever that has in common with us."""
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as raw:
        raw.execute("CREATE TABLE orders (number INTEGER)")
        raw.execute("CREATE TABLE alembic_version (version_num TEXT)")
        raw.execute("INSERT INTO alembic_version VALUES ('1975ea83b712')")
    before = schema(path)

    for refusal in refusals(f"sqlite:///{path}"):
        assert "shop.db holds the tables of something else" in refusal
    assert before == schema(path)


def test_migrating_twice_or_a_new_ledger_changes_nothing(ledger, url):
    """A ledger of this version is migrated in no time, and says so."""
    assert Ledger.migrate(url) == (HEAD, HEAD) == Ledger.migrate(url)
    assert 0 == ledger.last_sequence()


def test_where_there_is_no_ledger_nothing_is_migrated(tmp_path):
    """A mistyped name is named, and no file is made."""
    with pytest.raises(LedgerError, match=r"no ledger at .*none\.db"):
        Ledger.migrate(f"sqlite:///{tmp_path}/none.db")
    assert [] == list(tmp_path.iterdir())


def test_a_login_without_a_role_is_told_which_it_needs(postgresql_url):
    """A login that was granted nothing is told so, and not by the name of a table."""
    with psycopg.connect(postgresql_url, autocommit=True) as connection:
        connection.execute(
            "DO $$ BEGIN CREATE ROLE nobody_yet LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
        )
    (user,) = [part for part in [make_url(postgresql_url).username] if part]
    with pytest.raises(LedgerError, match="this login may not read it; grant it protoken_auditor") as caught:
        Ledger(postgresql_url.replace(f"{user}:", "nobody_yet:", 1))
    assert is_plain(str(caught.value))


def mode(path):
    """The permissions of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def test_the_file_is_its_owner_s_alone(tmp_path):
    """A new ledger, and what SQLite writes beside it, is read by nobody else, whatever the umask."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    before = os.umask(0)
    try:
        Ledger.prepare(url)
        ledger = Ledger(url)
        ledger.register("demo", MEMBERS)
        found = {path.name: mode(path) for path in tmp_path.iterdir()}
        ledger.close()
    finally:
        os.umask(before)

    assert dict.fromkeys(("ledger.db", "ledger.db-wal", "ledger.db-shm"), 0o600) == found


@pytest.mark.parametrize("call", [Ledger.prepare, Ledger.migrate])
def test_a_laxer_file_is_tightened_and_said(sqlite_url, tmp_path, caplog, call):
    """A ledger that others could read, as older versions made it, is its owner's alone from then on."""
    (tmp_path / "ledger.db").chmod(0o644)
    call(sqlite_url)

    assert 0o600 == mode(tmp_path / "ledger.db")
    assert "ledger.db could be read by others (mode 644)" in caplog.text


def test_a_ledger_of_the_unreleased_version_is_kept_as_it_is(sqlite_url, tmp_path):
    """A ledger from before the Merkle log cannot be upgraded: it is refused with the reason, and nothing changes."""
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0001'")
    before = schema(tmp_path / "ledger.db")
    with pytest.raises(LedgerError, match=r"ledger\.db.*never released.*new name"):
        Ledger.prepare(sqlite_url)

    assert before == schema(tmp_path / "ledger.db")


def test_migrations_travel_with_the_package(tmp_path):
    """A copy of the package in a zip-unpacked site folder, away from the sources, prepares a ledger by itself."""
    package = Path(__file__).parents[3] / "rewards"
    with zipfile.ZipFile(tmp_path / "rewards.zip", "w") as archive:
        for path in package.rglob("*.py"):
            archive.write(path, path.relative_to(package.parent))
    site = tmp_path / "a site %20 folder"
    zipfile.ZipFile(tmp_path / "rewards.zip").extractall(site)
    code = f"""
import rewards
from rewards.ledger.ledger import Ledger
Ledger.prepare('sqlite:///{tmp_path}/ledger.db')
print(rewards.__file__)
"""
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
