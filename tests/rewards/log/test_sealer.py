"""Everything booked gets into the log once, in order, under signed checkpoints that extend one another."""

import logging
import threading
import tracemalloc

import pytest
from sqlalchemy import select, text

from rewards.errors import LedgerError, LogError, SignatureError
from rewards.ledger.ledger import Ledger
from rewards.log import checkpoints, sealer
from rewards.log.checkpoints import checkpoint_at, latest_checkpoint
from rewards.log.leaves import event_leaf, receipt_leaf
from rewards.log.merkle import MemoryNodes, root
from rewards.log.sealer import Sealer, StoredNodes, register_signing_key, seal, verify_keys
from rewards.signing.notes import open_checkpoint
from rewards.store import events
from rewards.store.database import now_us
from rewards.store.tables import EventRow, ReceiptRow
from tests.rewards.books import KEY, ORIGIN, OTHER_KEY
from tests.rewards.processes import PROCESSES
from tests.rewards.receipts import make_receipt
from tests.waiting import until


def leaves_of(ledger):
    """Source and sequence of every leaf, in the order of the log."""
    with ledger.database.read() as connection:
        rows = connection.execute(text("SELECT leaf_index, source, sequence FROM leaves ORDER BY leaf_index")).all()
    assert list(range(len(rows))) == [row[0] for row in rows]
    return [(source, sequence) for _, source, sequence in rows]


def checkpoints_of(ledger):
    """Every checkpoint, opened with the keys that the books name."""
    with ledger.database.read() as connection:
        notes = connection.execute(text("SELECT note FROM checkpoints ORDER BY size")).scalars()
        return [open_checkpoint(note, verify_keys(connection), ORIGIN) for note in notes]


def hashes_of(ledger):
    """The leaf hash of every leaf, from the rows."""
    found = []
    with ledger.database.read() as connection:
        receipts = {row["sequence"]: {**row} for row in connection.execute(select(ReceiptRow)).mappings()}
        happened = {row["sequence"]: {**row} for row in connection.execute(select(EventRow)).mappings()}
    for source, sequence in leaves_of(ledger):
        if source == "event":
            found.append(event_leaf(happened[sequence]))
        else:
            amounts = ledger.receipt(receipts[sequence]["response_id"]).amounts
            found.append(receipt_leaf(receipts[sequence], amounts))
    return found


def seal_until_told(url, ending, pipe):
    """Seal as fast as it goes, as one of several processes; report how often there was something new."""
    ledger = Ledger(url)
    pipe.send("ready")
    sealed = 0
    while not ending.is_set():
        sealed += seal(ledger, KEY, ORIGIN) is not None
    pipe.send(sealed)


def test_sealing_puts_receipts_and_then_events_into_the_log(ledger):
    """Every receipt and event is a leaf, receipts first, each in the order of its numbers; once."""
    for number in range(4):
        ledger.append(make_receipt(f"r{number}"))
    first = seal(ledger, KEY, ORIGIN)
    ledger.append(make_receipt("r4"))
    ledger.reverse("r0", "a test", "tester")
    second = seal(ledger, KEY, ORIGIN)
    receipts, registered = [("receipt", n) for n in range(1, 7)], [("event", n) for n in range(1, 5)]

    assert receipts[:4] + registered + receipts[4:] == leaves_of(ledger)
    assert (8, 10) == (first.size, second.size)
    assert [first, second] == checkpoints_of(ledger)


def test_the_root_is_that_of_the_rows(ledger):
    """Each checkpoint's root is that of a tree grown from nothing over the rows."""
    for number in range(7):
        ledger.append(make_receipt(f"r{number}"))
        seal(ledger, KEY, ORIGIN)
    tree = MemoryNodes(hashes_of(ledger))

    assert 7 == len(checkpoints_of(ledger))
    for checkpoint in checkpoints_of(ledger):
        assert root(tree, checkpoint.size) == checkpoint.root
    with ledger.database.read() as connection:
        assert checkpoints_of(ledger)[-1].root == root(StoredNodes(connection), tree.size)


def test_sealing_again_changes_nothing(ledger):
    """Without anything new there is no checkpoint, also for a ledger that was opened anew."""
    seal(ledger, KEY, ORIGIN)

    assert seal(ledger, KEY, ORIGIN) is None
    assert 1 == len(checkpoints_of(ledger))


def test_a_checkpoint_says_when_and_after_what_it_was_sealed(ledger, monkeypatch):
    """Moment and size of the one before are signed, and a clock that steps back does not turn history around."""
    seal(ledger, KEY, ORIGIN)
    behind = now_us() - 300_000_000
    monkeypatch.setattr(checkpoints, "now_us", lambda *_: behind)
    ledger.append(make_receipt("r"))
    seal(ledger, KEY, ORIGIN)
    first, second = checkpoints_of(ledger)
    with ledger.database.read() as connection:
        moments = [checkpoint_at(connection, each.size).sealed_at_us for each in (first, second)]

    assert moments[0] == moments[1] > behind
    assert (f"sealed_at_us {moments[0]}", "previous_size 0") == first.extensions
    assert (f"sealed_at_us {moments[1]}", f"previous_size {first.size}") == second.extensions


def test_the_latest_checkpoint_is_found(ledger):
    """Before the first seal there is none; then the latest, or the one of a size, with the note that was signed."""
    with ledger.database.read() as connection:
        assert latest_checkpoint(connection) is None
    first = seal(ledger, KEY, ORIGIN)
    ledger.append(make_receipt("r"))
    second = seal(ledger, KEY, ORIGIN)
    with ledger.database.read() as connection:
        latest, older = latest_checkpoint(connection), checkpoint_at(connection, first.size)

        assert checkpoint_at(connection, 99) is None
    assert (second.size, second.root.hex(), KEY.public.key_id) == (latest.size, latest.root, latest.key_id)
    assert ORIGIN == latest.origin
    assert first == open_checkpoint(older.note, [KEY.public], ORIGIN)


def test_keys_are_registered_once_and_before_they_sign(ledger):
    """A key is an event of its own, also when sealing brings it; a second key is added beside the first."""
    register_signing_key(ledger, KEY.public)
    register_signing_key(ledger, KEY.public)
    seal(ledger, KEY, ORIGIN)
    seal(ledger, OTHER_KEY, ORIGIN)
    with ledger.database.read() as connection:
        added = events.find(connection, kinds=["signing_key.added"])

        assert [KEY.public, OTHER_KEY.public] == verify_keys(connection)
    assert [KEY.public.key_id, OTHER_KEY.public.key_id] == [event.subject for event in added]
    assert [{"public": key.public.encode()} for key in (KEY, OTHER_KEY)] == [event.document for event in added]
    assert [("service", f"signing_key.added:{key.public.key_id}") for key in (KEY, OTHER_KEY)] == [
        (event.actor, event.once) for event in added
    ]
    assert 2 == len(checkpoints_of(ledger))


def test_a_key_of_which_something_else_was_noted_is_registered(ledger):
    """An event of another kind about it does not stand for its registration."""
    with ledger.database.write() as connection:
        events.record(connection, "signing_key.looked_at", KEY.public.key_id, "tester", {})
    seal(ledger, KEY, ORIGIN)

    with ledger.database.read() as connection:
        assert [KEY.public] == verify_keys(connection)


def test_a_log_keeps_its_name(ledger):
    """A log cannot be sealed under another origin than before, nor under none; nothing is written."""
    for origin in ("", "a\nb"):
        with pytest.raises(SignatureError, match="line break"):
            seal(ledger, KEY, origin)
    seal(ledger, KEY, ORIGIN)
    ledger.append(make_receipt("r"))
    with pytest.raises(LogError, match=r"sealed as 'consortium\.example/ledger'.*'elsewhere'"):
        seal(ledger, KEY, "elsewhere")

    assert 1 == len(checkpoints_of(ledger))
    assert ("receipt", 1) not in leaves_of(ledger)


def test_a_backlog_is_sealed_in_pages(ledger, monkeypatch):
    """What waits is sealed page by page, each in a transaction and under a checkpoint of its own."""
    monkeypatch.setattr(sealer, "PAGE_LEAVES", 5)
    ledger.append_many([make_receipt(f"r{number}") for number in range(13)])
    seal(ledger, KEY, ORIGIN)
    tree = MemoryNodes(hashes_of(ledger))

    assert [5, 10, 15, 17] == [checkpoint.size for checkpoint in checkpoints_of(ledger)]
    assert [root(tree, size) for size in (5, 10, 15, 17)] == [each.root for each in checkpoints_of(ledger)]


def test_pages_before_a_failure_stay(ledger, monkeypatch):
    """When the database fails in the middle of a page, the page is not there at all, and the next seal brings it."""
    monkeypatch.setattr(sealer, "PAGE_LEAVES", 5)
    ledger.append_many([make_receipt(f"r{number}") for number in range(8)])
    sound, calls = checkpoints.sign_checkpoint, []

    def failing(checkpoint, key):
        calls.append(checkpoint)
        if len(calls) == 2:
            raise SignatureError("the key is away")
        return sound(checkpoint, key)

    monkeypatch.setattr(checkpoints, "sign_checkpoint", failing)
    with pytest.raises(SignatureError):
        seal(ledger, KEY, ORIGIN)

    assert 5 == len(leaves_of(ledger))
    seal(ledger, KEY, ORIGIN)
    assert 12 == len(leaves_of(ledger)) == checkpoints_of(ledger)[-1].size


@pytest.mark.long
def test_a_backlog_is_sealed_in_flat_memory(ledger, monkeypatch):
    """Memory is that of a page: four times the backlog needs no more of it."""
    monkeypatch.setattr(sealer, "PAGE_LEAVES", 200)
    peaks = []
    for first, last in ((0, 1000), (1000, 5000)):
        ledger.append_many([make_receipt(f"r{number}") for number in range(first, last)])
        tracemalloc.start()
        seal(ledger, KEY, ORIGIN)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()

    assert 5004 == checkpoints_of(ledger)[-1].size
    assert peaks[1] < 2 * peaks[0], "four times as much would be four times the memory; garbage is half a page here"


def test_racing_sealers_seal_each_leaf_once(url, ledger):
    """Three processes seal while one books: every leaf is there once, and every checkpoint is the rows'."""
    ending = PROCESSES.Event()
    sealers = []
    for _ in range(3):
        ours, theirs = PROCESSES.Pipe()
        process = PROCESSES.Process(target=seal_until_told, args=(url, ending, theirs))
        process.start()
        sealers.append((process, ours))
    assert ["ready"] * 3 == [pipe.recv() for _, pipe in sealers]
    for number in range(40):
        ledger.append(make_receipt(f"r{number}"))
    ending.set()
    sealed = [pipe.recv() for _, pipe in sealers]
    for process, _ in sealers:
        process.join()
    seal(ledger, KEY, ORIGIN)
    tree = MemoryNodes(hashes_of(ledger))

    assert 44 == len(leaves_of(ledger)) == len(set(leaves_of(ledger)))
    assert 0 <= len(checkpoints_of(ledger)) - sum(sealed) <= 1
    for checkpoint in checkpoints_of(ledger):
        assert root(tree, checkpoint.size) == checkpoint.root


def test_a_sealer_seals_on_its_own(ledger):
    """What is booked is in the log within the interval, without anybody asking; the thread ends on close."""
    sealer = Sealer(ledger, KEY, ORIGIN, interval_s=0.02)
    ledger.append(make_receipt("r"))
    until(lambda: ("receipt", 1) in leaves_of(ledger))
    (running,) = [thread for thread in threading.enumerate() if thread.name == "protoken-sealer"]
    sealer.close()

    assert running.daemon, "a process that is ended does not wait for it"
    assert not running.is_alive()


def test_a_sealer_seals_once_more_when_it_closes(ledger):
    """What was booked since the last interval is not left behind."""
    sealer = Sealer(ledger, KEY, ORIGIN, interval_s=3600)
    ledger.append(make_receipt("r"))
    sealer.close()

    assert ("receipt", 1) in leaves_of(ledger)


@pytest.mark.parametrize(
    ("error", "told", "traceback"),
    [(LedgerError("the database is away"), ": the database is away", None), (RuntimeError("what?"), "", RuntimeError)],
)
def test_a_sealer_outlives_what_fails(ledger, monkeypatch, caplog, error, told, traceback):
    """A failure is a line with the log's name, with where it arose if nobody foresaw it; the next interval goes on."""
    write, failing = ledger.database.write, threading.Event()
    failing.set()

    def write_or_fail():
        if failing.is_set():
            raise error
        return write()

    monkeypatch.setattr(ledger.database, "write", write_or_fail)
    with caplog.at_level(logging.ERROR):
        sealer = Sealer(ledger, KEY, ORIGIN, interval_s=0.02)
        until(lambda: len(caplog.records) >= 2)
    failing.clear()
    until(lambda: leaves_of(ledger))
    sealer.close()

    said = (f"sealing the log {ORIGIN} failed; it is tried again{told}", traceback)
    assert {said} == {(record.message, record.exc_info and record.exc_info[0]) for record in caplog.records}


def test_a_node_that_is_not_there_is_named(ledger):
    """A place beyond the log raises a LogError and nothing else."""
    seal(ledger, KEY, ORIGIN)
    with ledger.database.read() as connection, pytest.raises(LogError, match="no complete node 7 at level 3"):
        StoredNodes(connection).node(3, 7)
