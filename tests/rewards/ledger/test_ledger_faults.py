"""Crashes and races with real threads and processes: what was promised is there, and once."""

import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier

import pytest

from rewards import periods
from rewards.errors import ReceiptConflictError
from rewards.ledger.ledger import Ledger
from rewards.periods.errors import PeriodClosedError
from rewards.settlement.policy import Policy
from tests.rewards.processes import PROCESSES
from tests.rewards.receipts import MEMBERS, make_receipt
from tests.waiting import PATIENCE_S

POLICY = Policy(pool=1001, currency="EUR")
ROUNDS = 4


def append_until_killed(url: str, pipe: Connection) -> None:
    """Book without end, reporting each id only when the ledger has promised it."""
    ledger = Ledger(url)
    for number in count():
        ledger.append(make_receipt(f"r{number}", tokens=1 + number % 5))
        pipe.send(f"r{number}")


def append_all(url: str, ids: list[str], all_there: Barrier, pipe: Connection) -> None:
    """Prepare, open and book as one of several processes that do just the same; report what was new."""
    all_there.wait(PATIENCE_S)
    Ledger.prepare(url)
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)
    pipe.send([response_id for response_id in ids if not ledger.append(make_receipt(response_id)).replayed])


def append_in_rounds(url: str, rounds: list[list[str]], all_there: Barrier, pipe: Connection) -> None:
    """Book the receipts of each round as one of several processes that begin it together; report what was new."""
    ledger = Ledger(url)
    for ids in rounds:
        all_there.wait(PATIENCE_S)
        pipe.send([response_id for response_id in ids if not ledger.append(make_receipt(response_id)).replayed])


def close_in_rounds(url: str, names: list[str], all_there: Barrier, pipe: Connection) -> None:
    """Close each period as one of several closers that begin together; report whether this one won, and with what."""
    ledger = Ledger(url)
    for name in names:
        all_there.wait(PATIENCE_S)
        try:
            pipe.send(("won", periods.close(ledger, name, POLICY, "test")))
        except PeriodClosedError as error:
            pipe.send(("lost", error.settlement))


def start(target, *arguments):
    """A process and the end of the pipe on which it reports."""
    ours, theirs = PROCESSES.Pipe()
    process = PROCESSES.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    return process, ours


def test_a_killed_writer_keeps_its_promises(url, tmp_path):
    """After SIGKILL in the middle of booking, every reported receipt is there once and whole, and booking goes on."""
    writer, reports = start(append_until_killed, url)
    promised = [reports.recv() for _ in range(40)]
    writer.kill()
    writer.join()
    while reports.poll():
        try:
            promised.append(reports.recv())
        except EOFError:
            break
    ledger = Ledger(url)
    booked = ledger.receipts_after(0)

    assert promised == [receipt.response_id for receipt in booked][: len(promised)]
    assert len(booked) <= len(promised) + 1  # the one in flight may be there or not, but not in part
    assert all(sum(receipt.amounts.values()) == receipt.tokens * 1_000_000 for receipt in booked)
    assert ledger.append(make_receipt("r0", tokens=1)).replayed
    assert len(booked) + 1 == ledger.append(make_receipt("after")).sequence
    ledger.close()
    with sqlite3.connect(tmp_path / "ledger.db") as raw:
        assert [("ok",)] == raw.execute("PRAGMA integrity_check").fetchall()


def test_threads_racing_on_the_same_ids_book_each_once(ledger):
    """Eight threads that append the same receipts through one ledger book each of them once between them."""
    ids = [f"r{number}" for number in range(12)]

    def run(_worker):
        return [response_id for response_id in ids if not ledger.append(make_receipt(response_id)).replayed]

    with ThreadPoolExecutor(8) as pool:
        new = Counter(response_id for ids_of_one in pool.map(run, range(8)) for response_id in ids_of_one)

    assert Counter(ids) == new
    assert (12, 12 * 7) == (ledger.last_sequence(), ledger.tokens())


def test_threads_racing_with_different_payloads_have_one_winner(ledger):
    """Of several payloads that claim one response id at once, exactly one is booked and the others are told."""

    def run(tokens):
        try:
            ledger.append(make_receipt("r", tokens))
        except ReceiptConflictError:
            return None
        return tokens

    with ThreadPoolExecutor(8) as pool:
        (winner,) = (tokens for tokens in pool.map(run, range(1, 9)) if tokens is not None)

    assert winner == ledger.tokens() == ledger.receipt("r").tokens


@pytest.mark.parametrize("racers", [2, 8])
def test_processes_racing_on_the_same_ids_book_each_once(url, racers):
    """Of two and of eight processes that append the same receipts, exactly one books each of them, in every round."""
    rounds = [[f"r{turn}-{number}" for number in range(5)] for turn in range(ROUNDS)]
    all_there = PROCESSES.Barrier(racers)
    racing = [start(append_in_rounds, url, rounds, all_there) for _ in range(racers)]
    new = [Counter(response_id for _, reports in racing for response_id in reports.recv()) for _ in rounds]
    for process, _ in racing:
        process.join()
    ledger = Ledger(url)

    assert [Counter(ids) for ids in rounds] == new
    assert list(range(1, 5 * ROUNDS + 1)) == [receipt.sequence for receipt in ledger.receipts_after(0)]
    ledger.close()


def test_processes_racing_from_nothing_prepare_one_schema(tmp_path):
    """Processes that all make the same new ledger and append the same receipts book each of them once."""
    url = f"sqlite:///{tmp_path}/new/ledger.db"
    all_there = PROCESSES.Barrier(4)
    racing = [start(append_all, url, ["r0", "r1"], all_there) for _ in range(4)]
    new = Counter(response_id for _, reports in racing for response_id in reports.recv())
    for process, _ in racing:
        process.join()

    assert Counter(["r0", "r1"]) == new


def test_preparing_at_once_from_many_threads_makes_one_schema(tmp_path):
    """Sixteen first preparations at the same moment all succeed."""
    url = f"sqlite:///{tmp_path}/ledger.db"
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(Ledger.prepare, [url] * 16))
    ledger = Ledger(url)
    ledger.register("demo", MEMBERS)

    assert 1 == ledger.append(make_receipt("r")).sequence
    ledger.close()


@pytest.mark.parametrize("racers", [2, 8])
def test_of_several_closers_exactly_one_wins(ledger, url, racers):
    """Two, and eight, processes close the same period at once: one does, the others get its settlement; every time."""
    names = [f"2026-{turn + 1:02}" for turn in range(ROUNDS)]
    all_there = PROCESSES.Barrier(racers + 1)
    closers = [start(close_in_rounds, url, names, all_there) for _ in range(racers)]
    rounds = []
    for name in names:
        ledger.append(make_receipt(f"in {name}"))
        all_there.wait(PATIENCE_S)
        rounds.append([reports.recv() for _, reports in closers])
    for process, _ in closers:
        process.join()
    stored = [period.settlement for period in periods.all(ledger)]

    assert [{"won": 1, "lost": racers - 1}] * ROUNDS == [Counter(outcome for outcome, _ in each) for each in rounds]
    assert [[settlement] * racers for settlement in stored] == [[found for _, found in each] for each in rounds]


def test_closing_while_booking_loses_nothing(ledger):
    """Receipts booked while periods close each fall into exactly one period."""

    def book(worker):
        for number in range(15):
            ledger.append(make_receipt(f"r{worker}-{number}"))

    with ThreadPoolExecutor(3) as pool:
        writers = [pool.submit(book, worker) for worker in range(3)]
        ledger.append(make_receipt("first"))
        for name in count():
            done = all(writer.done() for writer in writers)
            if ledger.last_sequence() > max([0, *(period.window[1] for period in periods.all(ledger))]):
                periods.close(ledger, f"p{name}", POLICY, "test")
            if done:
                break
    settlements = [period.settlement for period in periods.all(ledger)]

    assert 46 * 7_000_000 == sum(line.credit for settlement in settlements for line in settlement.lines)
    assert [0, *(settlement.window[1] for settlement in settlements)][:-1] == [
        settlement.window[0] for settlement in settlements
    ]
