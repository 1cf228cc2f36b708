"""The audit passes honest books and names the row of any that were altered, whoever owns the database."""

import ast
import itertools
import multiprocessing
import os
import shutil
import sqlite3
import tempfile
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlmodel import SQLModel

from rewards.audit import source
from rewards.audit.hashing import parent
from rewards.audit.replay import audit
from rewards.audit.tree import Tree
from rewards.errors import LedgerError, SignatureError
from rewards.ledger.ledger import Ledger
from rewards.log.merkle import MemoryNodes, root
from rewards.log.sealer import seal
from rewards.signing.notes import Checkpoint, sign_checkpoint
from rewards.store import events
from tests.rewards.books import BOOKS, KEY, ORIGIN, OTHER_KEY, unguarded, write_books
from tests.rewards.conftest import new_database
from tests.rewards.receipts import make_receipt

ROOT = Path(__file__).parents[3]
FORKED = multiprocessing.get_context("fork")  # with all modules loaded: another user may not be able to read them
AUDITED = [
    (table.name, column.name)
    for table in SQLModel.metadata.sorted_tables
    for column in table.columns
    if table.name != "sampling_rules"  # none in these books; `test_audit_sampling` alters those of others
]


@pytest.fixture(scope="module")
def originals(tmp_path_factory, postgresql):
    """The URL of sealed books on each database, with no guard left, and the notes of their checkpoints."""
    urls = {"sqlite": f"sqlite:///{tmp_path_factory.mktemp('audit')}/ledger.db", "postgresql": new_database(postgresql)}
    notes = {name: write_books(url) for name, url in urls.items()}
    return urls, notes


@pytest.fixture(params=["sqlite", "postgresql"])
def books(request, originals):
    """Sealed books that a test may write over; it has to put back what it took."""
    ledger = Ledger(originals[0][request.param])
    yield ledger
    ledger.close()


@pytest.fixture
def copy(originals, tmp_path):
    """The path of a copy of the books on SQLite, to be spoilt."""
    path = tmp_path / "copy.db"
    with sqlite3.connect(originals[0]["sqlite"].removeprefix("sqlite:///")) as source, sqlite3.connect(path) as target:
        source.backup(target)
    return path


def url_of(ledger):
    """Where the open ledger is."""
    return ledger.database._reader.url.render_as_string(hide_password=False)


def keys_of(table):
    """The names of a table's primary key."""
    return [column.name for column in SQLModel.metadata.tables[table].primary_key]


def rows_of(connection, table):
    """Every row of a table, as mappings."""
    order = ", ".join(keys_of(table))
    return [{**row} for row in connection.execute(text(f"SELECT * FROM {table} ORDER BY {order}")).mappings()]


def update(connection, table, row, column, value):
    """Write one column of one row, past every guard."""
    where = " AND ".join(f"{name} = :k_{name}" for name in keys_of(table))
    parameters = {f"k_{name}": row[name] for name in keys_of(table)}
    connection.execute(text(f"UPDATE {table} SET {column} = :value WHERE {where}"), {**parameters, "value": value})


def altered(table, column, row):
    """Another value for a column: one more, one character other, null, or what there was none of."""
    value, nullable = row[column], SQLModel.metadata.tables[table].columns[column].nullable
    if (column in keys_of(table) and isinstance(value, int)) or column == "sequence":
        yield value + 1000  # where no other row stands
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif column == "source":
        yield "event" if value == "receipt" else "receipt"
    elif isinstance(value, str):
        last = "e" if value[-1] != "e" else "f"
        yield from (value[:-1] + last, chr(ord(value[0]) ^ 1) + value[1:])
    if nullable:
        is_number = column.endswith(("_us", "_budget", "_minute", "concurrency", "weight"))
        yield (17 if is_number else "x") if value is None else None


def key_of(table, row):
    """How the audit spells a row's key."""
    found = tuple(row[name] for name in keys_of(table))
    return found if len(found) > 1 else found[0]


def swapped_source(row, rows):
    """Whether a leaf with the other source would be the number of a row that is in the log already."""
    other = "event" if row["source"] == "receipt" else "receipt"
    return any(each["source"] == other and each["sequence"] == row["sequence"] for each in rows)


def changes(table, column, rows):
    """Each change of a column that the database itself would let pass: row and value."""
    for row in rows:
        if column == "source" and swapped_source(row, rows):
            continue
        for value in altered(table, column, row):
            yield row, value


def named(difference, table, *keys):
    """Whether a difference names one of these rows; an entry's receipt is enough where all of its entries are meant."""
    return difference is not None and difference.table == table and difference.key in keys


def test_honest_books_are_in_order(books):
    """Nothing differs; counts, balances, tokens and the log's root are what the ledger itself says."""
    report = audit(url_of(books))
    with books.database.read() as connection:
        counts = {table: len(rows_of(connection, table)) for table in (*BOOKS, "api_keys", "claims")}
        latest = rows_of(connection, "checkpoints")[-1]

    assert report.difference is None and report.is_ok
    assert counts == report.counts
    assert books.balances() == report.balances
    assert books.tokens() == report.tokens
    assert (ORIGIN, latest["size"], latest["root"], 0) == (report.origin, report.size, report.root, report.unsealed)
    assert (KEY.public.encode(),) == report.keys


@pytest.mark.parametrize(("table", "column"), AUDITED)
def test_every_altered_field_is_found(books, table, column):
    """Every value of every row of the column, altered in turn: the audit names the row; put back, it names none."""
    with books.database.read() as connection:
        tried = list(changes(table, column, rows_of(connection, table)))
    if books.database.is_postgresql:  # slower; that every row is watched is shown on SQLite
        tried = tried[len(tried) // 2 :][:2]
    for row, value in tried:
        changed = {**row, column: value}
        with unguarded(url_of(books)) as connection:
            update(connection, table, row, column, value)
        difference = audit(url_of(books)).difference
        with unguarded(url_of(books)) as connection:
            update(connection, table, changed, column, row[column])

        assert named(difference, table, key_of(table, row), key_of(table, changed)), (row, value, str(difference))
    assert len(tried) >= 1
    assert audit(url_of(books)).is_ok


def delete(connection, table, row):
    """Take a row away."""
    where = " AND ".join(f"{name} = :{name}" for name in keys_of(table))
    connection.execute(text(f"DELETE FROM {table} WHERE {where}"), {name: row[name] for name in keys_of(table)})


def insert(connection, table, row):
    """Put a row in."""
    names = ", ".join(row)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({', '.join(f':{name}' for name in row)})"), row)


@pytest.mark.parametrize("table", [*BOOKS, "api_keys"])
def test_every_deleted_row_is_found(books, table):
    """Each row taken away in turn, also the last, is the one that is named; put back, nothing differs."""
    with books.database.read() as connection:
        rows = rows_of(connection, table)
    for row in rows if not books.database.is_postgresql else (rows[0], rows[-1]):
        with unguarded(url_of(books)) as connection:
            delete(connection, table, row)
        difference = audit(url_of(books)).difference
        with unguarded(url_of(books)) as connection:
            insert(connection, table, row)

        assert named(difference, table, key_of(table, row)), (row, str(difference))
        assert difference.found is None
    assert audit(url_of(books)).is_ok


@pytest.mark.parametrize(
    ("table", "like", "changed", "key"),
    [
        ("receipts", -1, {"sequence": 11, "response_id": "r99"}, 11),
        ("receipts", -1, {"sequence": 99, "response_id": "r99"}, 11),
        ("entries", 5, {"account": "aaa"}, (2, "aaa")),
        ("entries", -1, {"receipt_sequence": 99}, (99, "rider")),
        ("events", -1, {"sequence": 99, "once": None}, 10),
        ("events", 0, {"sequence": 10, "once": None, "at_us": 0}, 10),
        ("events", 0, {"sequence": -1, "once": None}, 1),
        ("leaves", -1, {"leaf_index": 99, "sequence": 99}, 19),
        ("leaves", -1, {"leaf_index": 19, "sequence": 99}, 19),
        ("nodes", -1, {"node_index": 99}, (4, 99)),
        ("nodes", -1, {"level": 40}, (40, 0)),
        ("nodes", 0, {"node_index": 99}, (0, 99)),
        ("checkpoints", -1, {"size": 99}, 99),
        ("checkpoints", 0, {"size": 1}, 1),
        ("api_keys", 0, {"key_id": "000000000000"}, "000000000000"),
    ],
)
def test_an_inserted_row_is_found(books, table, like, changed, key):
    """A row that was slipped in, made like another one, is named, or the first number that it leaves out."""
    with books.database.read() as connection:
        row = {**rows_of(connection, table)[like], **changed}
    with unguarded(url_of(books)) as connection:
        insert(connection, table, row)
    difference = audit(url_of(books)).difference
    with unguarded(url_of(books)) as connection:
        delete(connection, table, row)

    assert named(difference, table, key), str(difference)
    assert audit(url_of(books)).is_ok


def rewritten(connection, table, rows):
    """Rows in the place of those with the same keys."""
    for row in rows:
        delete(connection, table, row)
    for row in rows:
        insert(connection, table, row)


@pytest.mark.parametrize("table", [*BOOKS, "api_keys", "claims"])
def test_two_rows_swapped_are_found(books, table):
    """Neighbours with all but their keys exchanged: one of them is named; put back, nothing differs."""
    with books.database.read() as connection:
        rows = rows_of(connection, table)
    pairs = [pair for pair in itertools.pairwise(rows) if exchanged(table, *pair)]
    for first, second in pairs if not books.database.is_postgresql else pairs[:1]:
        keys = [{name: row[name] for name in keys_of(table)} for row in (first, second)]
        with unguarded(url_of(books)) as connection:
            rewritten(connection, table, [{**second, **keys[0]}, {**first, **keys[1]}])
        difference = audit(url_of(books)).difference
        with unguarded(url_of(books)) as connection:
            rewritten(connection, table, [first, second])

        assert named(difference, table, key_of(table, first), key_of(table, second)), (first, str(difference))
    assert pairs
    assert audit(url_of(books)).is_ok


def exchanged(table, first, second):
    """Whether exchanging two rows changes anything."""
    return any(first[name] != second[name] for name in first if name not in keys_of(table))


def test_a_chosen_entry_is_named_with_what_it_was(copy):
    """An amount moved from one client to another within a receipt, or changed alone, is found; alone, to the unit."""
    with sqlite3.connect(copy) as raw:
        raw.execute("DROP TRIGGER IF EXISTS entries_refuse_update")
        raw.execute("UPDATE entries SET amount = amount + 5 WHERE receipt_sequence = 4 AND account = 'clinic'")
        (amount,) = raw.execute(
            "SELECT amount FROM entries WHERE receipt_sequence = 4 AND account = 'clinic'"
        ).fetchone()

    assert f"entries[4, 'clinic']: amount is {amount}, expected {amount - 5}" == str(audit(copy).difference)
    with sqlite3.connect(copy) as raw:
        raw.execute("UPDATE entries SET amount = amount - 5 WHERE receipt_sequence = 4 AND account = 'bank'")
    assert ("receipts", 4, "payload_sha256") == place(audit(copy))


def place(report):
    """Table, key and field of what differs."""
    return report.difference.table, report.difference.key, report.difference.field


def rewrite(path, key):
    """Books of the same events, with one amount moved from one client to another, sealed anew and whole."""
    url = f"sqlite:///{path}"
    ledger = Ledger(url)
    ledger.append(make_receipt("r0", shares={"bank": 0.9, "clinic": 0.0, "rider": 0.0}))
    seal(ledger, key, ORIGIN)
    ledger.close()


def test_only_keys_known_from_elsewhere_show_that_the_owner_rewrote_all(originals, sqlite_url, tmp_path):
    """Books that were forged whole, with a key of their own, pass by themselves and fail under the member's key."""
    rewrite(tmp_path / "ledger.db", OTHER_KEY)

    assert audit(sqlite_url).is_ok
    report = audit(sqlite_url, keys=[KEY.public])
    assert ("checkpoints", 5, "note") == place(report)
    assert "no known key" in report.difference.found
    assert audit(originals[0]["sqlite"], keys=[OTHER_KEY.public, KEY.public]).is_ok


def test_a_checkpoint_held_shows_that_history_was_rewritten(originals, sqlite_url, tmp_path):
    """Books that were forged whole, with the right key, do not extend the checkpoint that a member kept."""
    urls, notes = originals
    rewrite(tmp_path / "ledger.db", KEY)
    held = sign_checkpoint(Checkpoint(ORIGIN, 3, bytes(32)), KEY)

    assert ("the checkpoint held", 3, "root") == place(audit(sqlite_url, held=held))
    assert ("the checkpoint held", 7, "size") == place(audit(sqlite_url, held=notes["sqlite"][0]))
    with pytest.raises(SignatureError, match="no known key"):
        audit(urls["sqlite"], held=sign_checkpoint(Checkpoint(ORIGIN, 3, bytes(32)), OTHER_KEY))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_log_extends_every_checkpoint_held(books, originals, number):
    """Each checkpoint that was ever handed out is extended, and the report says of which size it was."""
    note = originals[1]["postgresql" if books.database.is_postgresql else "sqlite"][number]
    report = audit(url_of(books), keys=[KEY.public], held=note)

    assert report.is_ok
    assert int(note.split("\n")[1]) == report.extends


def test_a_checkpoint_of_another_log_is_told(originals):
    """A checkpoint with the right root and key under another name is not of these books."""
    note = originals[1]["sqlite"][0]
    held = Checkpoint.parse(note.partition("\n\n")[0] + "\n")
    other = sign_checkpoint(Checkpoint("elsewhere", held.size, held.root), KEY)

    assert ("the checkpoint held", held.size, "origin") == place(audit(originals[0]["sqlite"], held=other))


def test_what_is_not_sealed_is_checked_too(ledger, url):
    """Receipts and events behind the last checkpoint are counted as unsealed, and altered ones are found."""
    seal(ledger, KEY, ORIGIN)
    ledger.append(make_receipt("r0"))
    ledger.append(make_receipt("r1"))
    ledger.reverse("r0", "a test", "tester")

    report = audit(url)
    assert (True, 3, 4) == (report.is_ok, report.unsealed, report.size)
    with unguarded(url) as connection:
        connection.execute(text("UPDATE receipts SET tokens = tokens + 1 WHERE sequence = 2"))
    assert ("receipts", 2) == place(audit(url))[:2]


def test_books_that_were_never_sealed_pass_as_such(ledger, url):
    """Without any checkpoint there is no log to speak of, and everything is unsealed."""
    ledger.append(make_receipt("r0"))
    report = audit(url)

    assert (True, 0, None, 4) == (report.is_ok, report.size, report.origin, report.unsealed)


@pytest.mark.long
@pytest.mark.parametrize(
    ("sql", "named_place"),
    [
        ("UPDATE receipts SET booked_at_us = 1 WHERE sequence = 2", ("receipts", 2, "booked_at_us")),
        ("UPDATE events SET at_us = 1 WHERE sequence = 2", ("events", 2, "at_us")),
        ("UPDATE receipts SET settings = '{ }' WHERE sequence = 1", ("receipts", 1, "settings")),
        ("UPDATE receipts SET settings = 'x' WHERE sequence = 1", ("receipts", 1, "settings")),
        ("UPDATE events SET document = '[]' WHERE sequence = 1", ("events", 1, "document")),
        ("UPDATE receipts SET kind = 'gift' WHERE sequence = 1", ("receipts", 1, "kind")),
        ("UPDATE receipts SET reverses = 'r2' WHERE sequence = 4", ("receipts", 4, "response_id")),
        ("UPDATE receipts SET reverses = 'nothing' WHERE sequence = 4", ("receipts", 4, "reverses")),
        ("UPDATE events SET subject = 'demo/other' WHERE sequence = 1", ("entries", (1, "bank"), "account")),
        ("UPDATE events SET document = '{}' WHERE kind = 'signing_key.added'", ("events", 4, "document")),
        ("UPDATE events SET subject = 'x' WHERE kind = 'signing_key.added'", ("events", 4, "subject")),
    ],
)
def test_what_no_seal_guards_yet_is_still_held_to_the_rules(ledger, url, sql, named_place):
    """In rows that are not sealed, what contradicts another row or the form of the books is named."""
    for number in range(3):
        ledger.append(make_receipt(f"r{number}"))
    ledger.reverse("r1", "a test", "tester")
    with ledger.database.write() as connection:
        document = {"public": KEY.public.encode()}
        events.record(connection, "signing_key.added", KEY.public.key_id, "tester", document)
    assert audit(url).is_ok
    with unguarded(url) as connection:
        connection.execute(text(sql))

    assert named_place == place(audit(url))


def test_wrong_sums_are_found_though_every_hash_fits(ledger, url, monkeypatch):
    """Credit out of nothing, booked by a faulty writer whose hashes are all right, is found by the sum alone."""
    monkeypatch.setattr("rewards.credit.Receipt._check_amounts", lambda _: None)
    receipt = make_receipt("r0")
    object.__setattr__(receipt, "amounts", {**receipt.amounts, "bank": receipt.amounts["bank"] + 1})
    ledger.append(receipt)
    seal(ledger, KEY, ORIGIN)

    assert ("entries", 1, "sum of amounts") == place(audit(url))


def test_a_reversal_that_takes_another_amount_is_found(ledger, url, monkeypatch):
    """A reversal whose entries are not those of its response, negated, is named though its sum is right."""
    sound = Ledger.reverse.__globals__["_reversal"]

    def faulty(*arguments):
        payload = sound(*arguments)
        moved = {"bank": payload["amounts"]["bank"] - 7, "clinic": payload["amounts"]["clinic"] + 7}
        return {**payload, "amounts": {**payload["amounts"], **moved}}

    monkeypatch.setitem(Ledger.reverse.__globals__, "_reversal", faulty)
    ledger.append(make_receipt("r0"))
    ledger.reverse("r0", "a test", "tester")
    seal(ledger, KEY, ORIGIN)

    assert ("entries", (2, "bank"), "amount") == place(audit(url))


def as_nobody(task, pipe):
    """Send what a task returns, done by somebody who owns nothing here."""
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    pipe.send(task())


def test_a_copy_that_can_only_be_read_is_audited(copy):
    """A file without write permission, in a folder without any, is audited by somebody who owns neither."""
    folder = Path(tempfile.mkdtemp(prefix="protoken-copy-"))
    path = Path(shutil.copy(copy, folder / "a copy?.db"))
    path.chmod(0o444)
    folder.chmod(0o555)
    ours, theirs = FORKED.Pipe()
    process = FORKED.Process(target=as_nobody, args=(lambda: audit(path).to_document(), theirs))
    process.start()
    theirs.close()
    report = ours.recv()
    process.join()
    left = [each.name for each in folder.iterdir()]
    folder.chmod(0o755)
    shutil.rmtree(folder)

    assert report["ok"]
    assert ["a copy?.db"] == left


def test_a_copy_with_pages_in_its_wal_is_audited_whole(sqlite_url, tmp_path):
    """What waits in a -wal file beside the copy is read, too."""
    ledger = Ledger(sqlite_url)
    ledger.append(make_receipt("r0"))
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in ("ledger.db", "ledger.db-wal"):
        shutil.copy(tmp_path / name, folder / name)
    ledger.close()

    assert 1 == audit(folder / "ledger.db").counts["receipts"]


@pytest.mark.parametrize("content", [None, b"", b"not a database, but long enough to be read as one" * 50])
def test_what_is_no_ledger_is_refused_by_name(tmp_path, content):
    """A file that is missing, empty or of another kind is named in the error."""
    path = tmp_path / "no-ledger.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LedgerError, match=r"no-ledger\.db"):
        audit(path)


def test_the_audit_shares_no_code_with_what_it_checks():
    """None of its modules imports a writer, a reader or the log; and the guard proves that it looked."""
    allowed = {"audit", "errors", "signing", "store.database", "store.tables"}
    imported = set()
    for path in (ROOT / "rewards" / "audit").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rewards"):
                imported.add(node.module.removeprefix("rewards."))
            elif isinstance(node, ast.Import):
                imported |= {alias.name.removeprefix("rewards.") for alias in node.names if "rewards" in alias.name}
    rooms = {name if name.startswith("store.") else name.split(".")[0] for name in imported}

    assert rooms == allowed


class NoNodes:
    """A source without stored nodes."""

    def rows(self, _query):
        return iter(())


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70))
def test_the_audit_s_tree_is_the_log_s(leaves):
    """After each leaf, the tree that the audit grows has the root that `rewards.log.merkle` computes."""
    tree = Tree(NoNodes())
    nodes = MemoryNodes(leaves)
    for size, leaf in enumerate(leaves, start=1):
        tree.add(leaf, "receipt", size)

        assert root(nodes, size).hex() == tree.root()
    assert parent(bytes(32), bytes(32)) == root(MemoryNodes([bytes(32)] * 2), 2)


class Counted:
    """A progress that remembers what it was told."""

    def __init__(self):
        self.told = []

    def start(self, description, total):
        self.told.append((description, total))

    def advance(self):
        self.told.append("advance")


@pytest.mark.long
def test_a_large_ledger_is_audited_in_flat_memory(sqlite_url, monkeypatch):
    """Five times the receipts need no more memory, and progress is told in thousands."""
    monkeypatch.setattr(source, "_ROWS", 50)
    ledger = Ledger(sqlite_url)
    peaks = []
    for first, last in ((0, 1000), (1000, 5000)):
        ledger.append_many([make_receipt(f"r{number}") for number in range(first, last)])
        seal(ledger, KEY, ORIGIN)
        progress = Counted()
        tracemalloc.start()
        report = audit(sqlite_url, progress=progress)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

        assert report.is_ok
    ledger.close()

    assert [("thousands of receipts and events", 6), *["advance"] * 6] == progress.told
    assert peaks[1] < 2 * peaks[0]


def test_a_report_is_plain_data(originals):
    """The report as JSON holds everything by name, and a difference with its table, key and field."""
    document = audit(originals[0]["sqlite"], held=originals[1]["sqlite"][0]).to_document()

    named = {"ok", "difference", "counts", "unsealed", "balances", "tokens", "log", "keys", "lacks_write_ahead_log"}
    assert named == set(document)
    assert {"origin", "size", "root", "extends"} == set(document["log"])
    assert document["ok"] and document["difference"] is None
