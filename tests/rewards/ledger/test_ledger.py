"""The ledger books a response once, tells the truth about it, and lets nobody change what is booked."""

from dataclasses import fields, replace

import pytest
from sqlalchemy import text

from rewards.credit import Receipt
from rewards.errors import CreditError, LedgerError, ReceiptConflictError, ReversalError
from rewards.ledger.ledger import Booking, Ledger
from tests.rewards.receipts import MEMBERS, make_receipt

COLUMN_OF = {
    "receipts": "tokens",
    "entries": "amount",
    "events": "at_us",
    "leaves": "sequence",
    "nodes": "hash",
    "checkpoints": "root",
}


def run(ledger: Ledger, statement: str) -> None:
    """Do what somebody with the database's own client could."""
    with ledger.database.write() as connection:
        connection.execute(text(statement))


def rows(ledger: Ledger, table: str) -> list[tuple]:
    """Every row of a table."""
    with ledger.database.read() as connection:
        return sorted(tuple(row) for row in connection.execute(text(f"SELECT * FROM {table}")))


def fill_every_book(ledger: Ledger) -> None:
    """At least one row in each append-only table."""
    ledger.append(make_receipt("r"))
    digest = "0" * 64
    run(ledger, "INSERT INTO leaves VALUES (0, 'receipt', 1)")
    run(ledger, f"INSERT INTO nodes VALUES (0, 0, '{digest}')")
    run(ledger, f"INSERT INTO checkpoints VALUES (1, '{digest}', 'key', 'note', 1)")


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
    assert receipt == Receipt(**{field.name: getattr(found, field.name) for field in fields(Receipt)})
    assert (1, receipt.payload_sha256) == (found.sequence, found.payload_sha256)
    assert found.booked_at_us > receipt.created_at_us


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
    with pytest.raises(ReceiptConflictError, match="'r'"):
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

    assert [(2, "r1"), (3, "r2")] == [(receipt.sequence, receipt.response_id) for receipt in page]
    assert [2_000_000, 3_000_000] == [sum(receipt.amounts.values()) for receipt in page]
    assert ["r3", "r4"] == [receipt.response_id for receipt in ledger.receipts_after(3)]


def test_last_sequence_before_a_moment(ledger):
    """A moment cuts the ledger before the first receipt that was booked at or after it."""
    for number in range(3):
        ledger.append(make_receipt(f"r{number}"))
    third = ledger.receipt("r2").booked_at_us

    assert 2 == ledger.last_sequence(before_us=third)
    assert 3 == ledger.last_sequence(before_us=third + 1)
    assert 0 == ledger.last_sequence(before_us=1)


def test_a_clock_that_steps_back_does_not_turn_history_around(ledger, monkeypatch):
    """A receipt booked while the clock is behind gets the time of the one before it, so that no window has a hole."""
    ledger.append(make_receipt("r0"))
    first = ledger.receipt("r0").booked_at_us
    monkeypatch.setattr("rewards.ledger.ledger.now_us", lambda *_: first - 300_000_000)
    ledger.append(make_receipt("r1"))

    assert first == ledger.receipt("r1").booked_at_us
    assert (0, 2) == (ledger.last_sequence(before_us=first), ledger.last_sequence(before_us=first + 1))


@pytest.mark.parametrize("table", ["receipts", "entries", "events", "leaves", "nodes", "checkpoints"])
@pytest.mark.parametrize("change", ["UPDATE {0} SET {1} = {1}", "DELETE FROM {0}"])
def test_database_refuses_to_change_what_is_booked(ledger, table, change):
    """The database itself refuses UPDATE and DELETE on every book, whoever asks."""
    fill_every_book(ledger)
    before = rows(ledger, table)
    with pytest.raises(LedgerError, match=f"{table} is append-only"):
        run(ledger, change.format(table, COLUMN_OF[table]))

    assert before
    assert before == rows(ledger, table)


@pytest.mark.parametrize("table", ["receipts", "entries", "events", "leaves", "nodes", "checkpoints"])
def test_database_refuses_to_replace_or_truncate(ledger, table):
    """What deletes without saying so, SQLite's REPLACE and PostgreSQL's TRUNCATE, is refused too."""
    fill_every_book(ledger)
    before = rows(ledger, table)
    replace_rows = f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}"
    with pytest.raises(LedgerError, match=f"{table} is append-only|cannot truncate"):
        run(ledger, f"TRUNCATE {table} CASCADE" if ledger.database.is_postgresql else replace_rows)

    assert before == rows(ledger, table)


@pytest.mark.parametrize("amount", ["0.5", "'much'", "NULL"])
def test_a_strict_table_refuses_an_amount_that_is_no_integer(sqlite_url, amount):
    """An entry's amount is an integer, also for who writes past the ledger."""
    ledger = Ledger(sqlite_url)
    ledger.append(make_receipt("r"))
    with pytest.raises(LedgerError, match=r"entries\.amount"):
        run(ledger, f"INSERT INTO entries (receipt_sequence, account, amount) VALUES (1, 'new', {amount})")
    ledger.close()


def test_an_unregistered_client_is_refused(ledger):
    """A receipt that credits a client who is not in the consortium is refused, naming it and who is."""
    with pytest.raises(CreditError, match=r"'stranger'.*consortium 'demo'.*bank, clinic, rider"):
        ledger.append(make_receipt("r", shares={"bank": 0.5, "stranger": 0.25}))

    assert 0 == ledger.last_sequence()


def test_registering_again_changes_nothing(ledger):
    """Clients stay as they were registered first; one who joins later is added."""
    ledger.register("demo", {"bank": "Another name", "shop": "A shop"})

    assert {"demo": {**MEMBERS, "shop": "A shop"}} == ledger.clients()


def test_an_id_is_one_organisation_in_every_consortium_of_a_ledger(ledger: Ledger) -> None:
    """Two consortia that call different organisations alike are not merged; one organisation may be in both."""
    before = ledger.clients()
    with pytest.raises(CreditError) as refused:
        ledger.register("harbour", {"port": "A port", "bank": "Another bank"})

    assert before == ledger.clients()
    assert all(word in str(refused.value) for word in ("'A bank'", "'Another bank'", "'demo'", "'harbour.bank'"))
    ledger.register("harbour", {"bank": "A bank", "harbour.bank": "Another bank"})
    ledger.register("demo", {"bank": "Another name"})  # registered there already, and stays as it is
    assert {"bank": "A bank", "harbour.bank": "Another bank"} == ledger.clients()["harbour"]
    assert "A bank" == ledger.clients()["demo"]["bank"]


@pytest.mark.parametrize("name", ["", "a/b", "commons", "pending", "tab\t", "x" * 101])
def test_an_id_that_no_client_may_have_is_refused(ledger, name):
    """Reserved, empty, unprintable or overlong ids cannot be registered."""
    with pytest.raises(CreditError, match=r"client|id"):
        ledger.register("demo", {name: "name"})


def test_many_receipts_in_one_transaction_have_an_outcome_each(ledger):
    """New, repeated, conflicting and unregistered receipts of one batch are told apart; the good are booked."""
    batch = [
        make_receipt("a"),
        make_receipt("a"),
        make_receipt("a", tokens=9),
        make_receipt("b", shares={"stranger": 0.5}),
        make_receipt("c"),
    ]
    outcomes = ledger.append_many(batch)

    assert [False, True, ReceiptConflictError, CreditError, False] == [
        outcome.replayed if isinstance(outcome, Booking) else type(outcome) for outcome in outcomes
    ]
    assert ["a", "c"] == [receipt.response_id for receipt in ledger.receipts_after(0)]


def test_a_reversal_negates_every_entry_once(ledger):
    """The counter-entries name what they reverse, bring balances back, and are booked once."""
    ledger.append(make_receipt("kept", tokens=3))
    ledger.append(make_receipt("r"))
    booked = ledger.reverse("r", "a duplicate of another response", "0123456789ab")
    again = ledger.reverse("r", "said twice", "0123456789ab")
    reversal = ledger.receipt("reversal-r")

    assert (3, False, True) == (booked.sequence, booked.replayed, again.replayed)
    assert ("reversal", "r", -7) == (reversal.kind, reversal.reverses, reversal.tokens)
    assert {"reason": "a duplicate of another response", "actor": "0123456789ab"} == reversal.measurement
    assert ledger.balances(up_to=1) == ledger.balances()
    assert 3 == ledger.tokens()


@pytest.mark.parametrize(("response_id", "reason"), [("none", "why"), ("reversal-r", "why"), ("r", " "), ("r", "a\n")])
def test_what_cannot_be_reversed_is_refused(ledger, response_id, reason):
    """An unknown response, a reversal, and a reversal without a reason are refused; nothing is written."""
    ledger.append(make_receipt("r"))
    ledger.append(make_receipt("s"))
    ledger.reverse("s", "wrong", "me")
    with pytest.raises(ReversalError, match=r"reversed|reason"):
        ledger.reverse(response_id.replace("reversal-r", "reversal-s"), reason, "me")

    assert 3 == ledger.last_sequence()


def test_refused_write_leaves_the_ledger_usable(ledger):
    """After a conflict the next receipt takes the next number: nothing half-done, no gap."""
    ledger.append(make_receipt("r"))
    for _ in range(20):
        with pytest.raises(ReceiptConflictError):
            ledger.append(make_receipt("r", tokens=9))

    assert 2 == ledger.append(make_receipt("s")).sequence


def test_opening_what_is_not_prepared_is_refused(tmp_path):
    """A missing file is refused with the command that makes it, and is not created by the attempt."""
    with pytest.raises(LedgerError, match="protoken keys create"):
        Ledger(f"sqlite:///{tmp_path}/none.db")

    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://me:secret@host/ledger"])
@pytest.mark.parametrize("use", [Ledger, Ledger.prepare])
def test_url_of_another_kind_is_refused(url, use):
    """A ledger is a SQLite file or PostgreSQL; the message shows both forms, and never a password."""
    with pytest.raises(LedgerError, match=r"sqlite:////absolute/path\.db") as refusal:
        use(url)

    assert "secret" not in str(refusal.value)


def test_file_that_is_no_database_is_refused(tmp_path):
    """A file of something else is named, and left as it is."""
    (tmp_path / "notes.txt").write_text("not a database, " * 100)
    with pytest.raises(LedgerError, match=r"notes\.txt.*not a database"):
        Ledger.prepare(f"sqlite:///{tmp_path}/notes.txt")

    assert "not a database, " * 100 == (tmp_path / "notes.txt").read_text()
