"""Processes that are killed, what they said before, and what the books must hold after."""

import os
import random
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from rewards.audit.replay import audit
from rewards.ledger.ledger import Ledger
from tests.rewards.receipts import make_receipt
from tests.waiting import PATIENCE_S

PROGRESS_TOKENS = 16


@dataclass
class Seen:
    """What applications saw of every process, in tokens: what they asked for, were shown, and got the end of."""

    asked: dict[str, int] = field(default_factory=dict)
    shown: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    kills: int = 0

    def take(self, line: str) -> None:
        """One line of a victim."""
        what, response_id, tokens = line.split()
        {"asked": self.asked, "shown": self.shown, "ended": self.ended}[what][response_id] = int(tokens)


class Victim:
    """A process that says what it promised, and its reader. None outlives the `with`, whatever the test found."""

    def __init__(self, mode: str, url: str, folder: Path, name: str, seed: int, seen: Seen) -> None:
        command = [sys.executable, "-m", "tests.faults.victim", mode, url, str(folder), name, str(seed)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._seen = seen
        self._begun = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read(self) -> None:
        with self.process.stdout as lines:
            for line in lines:
                self._seen.take(line)
                if not line.startswith("asked"):
                    self._begun.set()

    def wait_until_busy(self) -> None:
        """Return when it has promised something."""
        assert self._begun.wait(PATIENCE_S), "the process did not begin"

    def kill(self) -> None:
        """SIGKILL; returns when everything that it had said is read."""
        assert self.process.poll() is None, f"it ended by itself with {self.process.returncode}"
        os.kill(self.process.pid, signal.SIGKILL)
        assert -signal.SIGKILL == self.process.wait(), "it ended by itself in the last moment"
        self._reader.join()
        self._seen.kills += 1

    def finish(self) -> None:
        """Wait for an end of its own accord."""
        assert self.process.wait(PATIENCE_S) == 0
        self._reader.join()


def kill_again_and_again(mode: str, url: str, folder: Path, kills: int, seed: int) -> Seen:
    """Two processes at once over one ledger and one spool; at random moments one is killed and replaced.

    The last two are not replaced.
    """
    print(f"{mode}: {kills} kills, seed {seed}")
    seen, numbers = Seen(), random.Random(seed)
    with ExitStack() as begun:

        def begin(number: int) -> Victim:
            return begun.enter_context(Victim(mode, url, folder, f"{mode}{number}", seed, seen))

        victims = [begin(0), begin(1)]
        for number in range(kills):
            victim = victims.pop(0)
            victim.wait_until_busy()
            threading.Event().wait(numbers.uniform(0.0, 0.4))
            victim.kill()
            if number + 2 < kills:
                victims.append(begin(number + 2))
    return seen


def drain(url: str, folder: Path, seen: Seen) -> None:
    """Take over and book what the dead left; nothing may stay behind, refused or damaged."""
    with Victim("drain", url, folder, "drain", 0, seen) as heir:
        heir.finish()
    assert [] == list(folder.iterdir()), "something could not be booked, or was damaged"


def check_books(url: str, seen: Seen) -> None:
    """Nothing lost, nothing doubled, nothing else, streams cut short within 16 tokens, and every row in order."""
    ledger = Ledger(url)
    booked = {receipt.response_id: receipt for receipt in ledger.receipts_after(0, limit=10**6)}
    assert len(booked) == ledger.last_sequence(), "a response is booked twice"
    assert booked.keys() <= seen.asked.keys(), "something is booked that nobody asked for"
    assert seen.ended.keys() <= booked.keys(), "a response whose end was delivered is lost"
    for response_id, receipt in booked.items():
        assert dict(make_receipt(response_id, receipt.tokens).amounts) == receipt.amounts, response_id
    for response_id, tokens in seen.ended.items():
        assert tokens == booked[response_id].tokens, response_id
    for response_id in seen.shown.keys() - seen.ended.keys():
        credited = booked[response_id].tokens if response_id in booked else 0
        behind = seen.shown[response_id] - credited
        assert -1 <= behind < PROGRESS_TOKENS, (response_id, behind)  # what is spooled may not be shown yet
    tokens = sum(receipt.tokens for receipt in booked.values())
    assert (tokens, tokens * 1_000_000) == (ledger.tokens(), sum(ledger.balances().values()))
    ledger.close()
    report = audit(url)
    assert report.difference is None, report.difference
