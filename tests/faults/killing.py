"""Processes that are killed, what they said before, and what the books must hold after."""

import os
import random
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

from rewards import Ledger
from rewards.audit import audit
from tests.rewards.receipts import make_receipt

PROGRESS_TOKENS = 16


@dataclass
class Seen:
    """What applications saw of every process: tokens shown, responses whose end came, and the lag that was told."""

    shown: dict[str, int] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    lags: list[tuple[int, float]] = field(default_factory=list)

    def take(self, line: str) -> None:
        """One line of a victim."""
        what, *rest = line.split()
        if what == "lag":
            self.lags.append((int(rest[0]), float(rest[1])))
        else:
            (self.shown if what == "shown" else self.ended)[rest[0]] = int(rest[1])


class Victim:
    """A process that says what it promised, and its reader."""

    def __init__(self, mode: str, url: str, folder: Path, name: str, seed: int, seen: Seen) -> None:
        command = [sys.executable, "-m", "tests.faults.victim", mode, url, str(folder), name, str(seed)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._begun = threading.Event()
        self._reader = threading.Thread(target=self._read, args=(seen,))
        self._reader.start()

    def _read(self, seen: Seen) -> None:
        with self.process.stdout as lines:
            for line in lines:
                seen.take(line)
                if not line.startswith("lag"):
                    self._begun.set()

    def wait_until_busy(self) -> None:
        """Return when it has promised something."""
        assert self._begun.wait(60), "the process did not begin within a minute"

    def kill(self) -> None:
        """SIGKILL; returns when everything that it had said is read."""
        assert self.process.poll() is None, f"it ended by itself with {self.process.returncode}"
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()

    def finish(self) -> None:
        """Wait for an end of its own accord."""
        assert self.process.wait(120) == 0
        self._reader.join()


def kill_again_and_again(mode: str, url: str, folder: Path, kills: int, seed: int) -> Seen:
    """Two processes at once over one ledger and one spool; at random moments one is killed and replaced."""
    print(f"{mode}: {kills} kills, seed {seed}")
    seen, numbers = Seen(), random.Random(seed)
    victims = [Victim(mode, url, folder, f"{mode}{each}", seed, seen) for each in range(2)]
    for number in range(kills):
        chosen = number % 2
        victims[chosen].wait_until_busy()
        threading.Event().wait(numbers.uniform(0.0, 0.4))
        victims[chosen].kill()
        victims[chosen] = Victim(mode, url, folder, f"{mode}{number + 2}", seed, seen)
    for victim in victims:
        victim.wait_until_busy()
        victim.kill()
    return seen


def check_books(url: str, seen: Seen) -> None:
    """Nothing lost, nothing doubled, streams cut short within 16 tokens, and every row in order."""
    ledger = Ledger(url)
    booked = {receipt["response_id"]: receipt for receipt in ledger.receipts_after(0, limit=10**6)}
    assert len(booked) == ledger.last_sequence(), "a response is booked twice"
    for response_id, tokens in seen.ended.items():
        assert dict(make_receipt(response_id, tokens).amounts) == booked[response_id]["amounts"], response_id
    for response_id in seen.shown.keys() | booked.keys():
        if response_id not in seen.ended:
            credited = booked[response_id]["tokens"] if response_id in booked else 0
            assert abs(credited - seen.shown.get(response_id, 0)) <= PROGRESS_TOKENS, response_id
    tokens = sum(receipt["tokens"] for receipt in booked.values())
    assert tokens * 1_000_000 == sum(ledger.balances().values())
    ledger.close()
    report = audit(url)
    assert report.difference is None, report.difference
