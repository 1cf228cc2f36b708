"""The ledger books a response once, tells the truth about it, and lets nobody change what is booked."""

import sqlite3
from dataclasses import fields, replace

import pytest

from rewards import ConflictError, Ledger, LedgerError, Receipt
from tests.rewards.receipts import make_receipt


def test_append_books_the_whole_receipt(ledger):
    """What was appended is found under its response id, field by field, with sequence, hash and booking time."""
    receipt = make_receipt("r")
    booked = ledger.append(receipt)
    found = ledger.receipt("r")

    assert (1, "r", receipt.payload_sha256, False) == (
        booked.sequence,
        booked.response_id,
        booked.payload_sha256,
        booked.replayed,
    )
    assert receipt == Receipt(**{field.name: found[field.name] for field in fields(Receipt)})
    assert (1, receipt.payload_sha256) == (found["sequence"], found["payload_sha256"])
    assert found["booked_at_us"] > receipt.created_at_us


def test_same_receipt_again_returns_the_first_booking(ledger):
    """A repeated receipt is booked once; the answer is the first booking, marked as replayed."""
    first = ledger.append(make_receipt("r"))
    ledger.append(make_receipt("s"))
    again = ledger.append(make_receipt("r"))

    assert replace(first, replayed=True) == again
    assert 2 == ledger.last_sequence()


def test_same_id_with_another_payload_is_refused(ledger):
    """The same response id with another payload is a conflict that names the id and writes nothing."""
    ledger.append(make_receipt("r"))
    before = ledger.balances()
    with pytest.raises(ConflictError, match="'r'"):
        ledger.append(make_receipt("r", tokens=8))

    assert before == ledger.balances()
    assert (1, 7) == (ledger.last_sequence(), ledger.tokens())


def test_balances_and_tokens_over_a_window(ledger):
    """Balances and tokens add up the receipts with after < sequence ≤ up_to; a client with nothing stands at zero."""
    for number, tokens in enumerate([4, 8, 12]):
        ledger.append(make_receipt(f"r{number}", tokens))

    assert {"bank": 6_000_000, "clinic": 12_000_000, "commons": 6_000_000, "rider": 0} == ledger.balances()
    assert {"bank": 2_000_000, "clinic": 4_000_000, "commons": 2_000_000, "rider": 0} == ledger.balances(
        after=1, up_to=2
    )
    assert (24, 20, 4, 8) == (
        ledger.tokens(),
        ledger.tokens(after=1),
        ledger.tokens(up_to=1),
        ledger.tokens(after=1, up_to=2),
    )


def test_empty_ledger(ledger):
    """An empty ledger has no balances, no tokens, no receipts and the last sequence 0."""
    assert ({}, 0, 0, [], None) == (
        ledger.balances(),
        ledger.tokens(),
        ledger.last_sequence(),
        ledger.receipts_after(0),
        ledger.receipt("r"),
    )


def test_receipts_after_pages_in_order(ledger):
    """Pages of receipts follow the order of booking, with each receipt's own amounts."""
    for number in range(5):
        ledger.append(make_receipt(f"r{number}", tokens=number + 1))
    page = ledger.receipts_after(1, limit=2)

    assert [(2, "r1"), (3, "r2")] == [(receipt["sequence"], receipt["response_id"]) for receipt in page]
    assert [2_000_000, 3_000_000] == [sum(receipt["amounts"].values()) for receipt in page]
    assert ["r3", "r4"] == [receipt["response_id"] for receipt in ledger.receipts_after(3)]


def test_last_sequence_before_a_moment(ledger):
    """A moment cuts the ledger before the first receipt that was booked at or after it."""
    for number in range(3):
        ledger.append(make_receipt(f"r{number}"))
    third = ledger.receipt("r2")["booked_at_us"]

    assert 2 == ledger.last_sequence(before_us=third)
    assert 3 == ledger.last_sequence(before_us=third + 1)
    assert 0 == ledger.last_sequence(before_us=1)


def test_last_sequence_survives_a_clock_that_steps_back(ledger, tmp_path):
    """With a receipt out of order in time, only those before it count, so that no window has a hole."""
    ledger.append(make_receipt("r0"))
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        columns = (
            "response_id,payload_sha256,booked_at_us,created_at_us,application,consortium,model_sha256,method,settings,"
            "version,tokens,measurement,duration_us"
        )
        late = columns.replace("response_id", "'late'").replace("booked_at_us", "booked_at_us + 1000000000", 1)
        raw.execute(f"INSERT INTO receipts ({columns}) SELECT {late} FROM receipts")
    ledger.append(make_receipt("r2"))

    assert 1 == ledger.last_sequence(before_us=ledger.receipt("r2")["booked_at_us"] + 1)


@pytest.mark.parametrize("table", ["receipts", "entries", "periods"])
@pytest.mark.parametrize(
    "change", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "INSERT OR REPLACE INTO {0} SELECT * FROM {0}"]
)
def test_database_refuses_to_change_what_is_booked(ledger, tmp_path, table, change):
    """The database itself refuses UPDATE, DELETE and REPLACE, whoever asks, on receipts, entries and periods."""
    ledger.append(make_receipt("r"))
    raw = sqlite3.connect(tmp_path / "ledger.db")
    raw.execute(f"INSERT INTO periods VALUES ('p', 1, 1, 1, '{{}}', '{{}}', '{'0' * 64}')")
    column = {"receipts": "tokens", "entries": "amount", "periods": "closed_at_us"}[table]
    before = raw.execute(f"SELECT * FROM {table}").fetchall()
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        raw.execute(change.format(table, column, column))

    assert before == raw.execute(f"SELECT * FROM {table}").fetchall()
    raw.close()


@pytest.mark.parametrize("amount", [-1, 0.5, "much"])
def test_database_refuses_an_amount_that_is_none(ledger, tmp_path, amount):
    """An entry's amount is an integer of at least 0, also for who writes past the ledger."""
    ledger.append(make_receipt("r"))
    raw = sqlite3.connect(tmp_path / "ledger.db")
    with pytest.raises(sqlite3.IntegrityError):
        raw.execute("INSERT INTO entries (receipt_sequence, account, amount) VALUES (1, 'new', ?)", (amount,))
    raw.close()


def test_refused_write_leaves_the_ledger_usable(ledger):
    """After a conflict the next receipt takes the next number: nothing half-done, no gap."""
    ledger.append(make_receipt("r"))
    for _ in range(20):
        with pytest.raises(ConflictError):
            ledger.append(make_receipt("r", tokens=9))

    assert 2 == ledger.append(make_receipt("s")).sequence


def test_opening_what_is_not_prepared_is_refused(tmp_path):
    """A missing file is refused with the call that makes it, and is not created by the attempt."""
    with pytest.raises(LedgerError, match=r"Ledger\.prepare"):
        Ledger(f"sqlite:///{tmp_path}/none.db")

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "postgresql://me:secret@host/ledger"]
)
@pytest.mark.parametrize("use", [Ledger, Ledger.prepare])
def test_url_that_is_no_sqlite_file_is_refused(url, use):
    """Only a SQLite file can be a ledger; the message shows the form, and never a password."""
    with pytest.raises(LedgerError, match=r"sqlite:////absolute/path\.db") as refusal:
        use(url)

    assert "secret" not in str(refusal.value)


def test_file_that_is_no_database_is_refused(tmp_path):
    """A file of something else is named, and left as it is."""
    (tmp_path / "notes.txt").write_text("not a database, " * 100)
    with pytest.raises(LedgerError, match=r"notes\.txt.*not a database"):
        Ledger.prepare(f"sqlite:///{tmp_path}/notes.txt")

    assert "not a database, " * 100 == (tmp_path / "notes.txt").read_text()
