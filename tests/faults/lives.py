"""Processes of `writer` that are begun and killed, what their applications saw, and what the books must say of it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from deployment.replica.active_request import PROGRESS_TOKENS
from rewards.audit.replay import audit
from rewards.ledger.ledger import Ledger
from tests.faults.writer import CLIENTS, CONSORTIUM, Order
from tests.waiting import until


class Life:
    """A process that serves, until it is killed or stopped."""

    def __init__(self, pid: int, seen: Path) -> None:
        self.pid = pid
        self.killed = False
        self._seen = seen

    def __len__(self) -> int:
        """How many lines were seen of it so far."""
        return self._seen.read_bytes().count(b"\n") if self._seen.exists() else 0

    def lines(self) -> list[dict[str, Any]]:
        """What was seen of it so far; a line that is being written is not seen yet."""
        *whole, _ = self._seen.read_bytes().split(b"\n") if len(self) else [b""]
        return [json.loads(line) for line in whole]

    def await_death(self) -> None:
        """Wait until it has killed itself, as it was told to."""
        until(lambda: not self.is_there)
        lines = self.lines()
        assert any("ended" in line for line in lines), "it died of something else"
        assert not any("left" in line for line in lines), "it ended by itself"
        self.killed = True

    def kill(self) -> None:
        """SIGKILL. That it had ended by itself is an error."""
        self._end(signal.SIGKILL)
        self.killed = True

    def stop(self) -> None:
        """Let it end in order."""
        self._end(signal.SIGTERM)
        assert any("left" in line for line in self.lines()), "it did not end in order"

    @property
    def is_there(self) -> bool:
        """Whether the process lives."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, 0)
            return True
        return False

    def _end(self, number: signal.Signals) -> None:
        assert self.is_there, f"it ended by itself, having seen {self.lines()[-1:]}"
        os.kill(self.pid, number)
        until(lambda: not self.is_there)


@dataclass
class Lives:
    """Lives over one ledger and one spool, each begun with a seed of its own."""

    program: "subprocess.Popen[str]"
    folder: Path
    url: str
    seed: int
    all: list[Life] = field(default_factory=list)

    @property
    def spool(self) -> Path:
        """The folder of their spools."""
        return self.folder / "spool"

    @property
    def kills(self) -> int:
        """How many of them were killed."""
        return sum(life.killed for life in self.all)

    def begin(self, callers: int = 6, dies_after: int | None = None) -> Life:
        """A new one, which takes over what the dead have left."""
        assert self.program.stdin
        assert self.program.stdout
        number = len(self.all)
        seen = self.folder / f"seen-{number}.jsonl"
        order = Order(self.url, str(self.spool), str(seen), callers, self.seed + number, dies_after)
        self.program.stdin.write(json.dumps(asdict(order)) + "\n")
        self.program.stdin.flush()
        life = Life(int(self.program.stdout.readline()), seen)
        self.all.append(life)
        return life

    def kill_at_random(self, life: Life, chance: Random) -> None:
        """Kill it in its first moments, or when its applications have seen so many lines more."""
        if chance.random() < 1 / 4:
            time.sleep(chance.uniform(0, 0.2))
        else:
            wanted = chance.randrange(1, 400)
            until(lambda: len(life) >= wanted)
            time.sleep(chance.uniform(0, 0.02))
        life.kill()

    def settle(self) -> None:
        """Let one that serves nobody take over whatever is left, and end."""
        heir = self.begin(callers=0)
        until(lambda: any("began" in line for line in heir.lines()))
        until(lambda: [0] == [path.stat().st_size for path in self.spool.glob("spool-*.jsonl")])
        heir.stop()
        assert [] == list(self.spool.iterdir()), "something could not be booked, or was damaged"


@contextmanager
def living(program: "subprocess.Popen[str]", folder: Path, url: str) -> Iterator[Lives]:
    """Lives over a ledger; none outlives the `with`. Seeded anew each time, and the seed is printed."""
    seed = Random().randrange(2**32)
    print(f"seed {seed}")
    ledger = Ledger(url)
    ledger.register(CONSORTIUM, CLIENTS)
    ledger.close()
    lives = Lives(program, folder, url, seed)
    try:
        yield lives
    finally:
        for life in lives.all:
            if not life.killed and life.is_there:
                life.kill()


@contextmanager
def started(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """The program from which lives are forked."""
    command = [sys.executable, "-m", "tests.faults.writer", str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout
        assert "ready\n" == program.stdout.readline()
        yield program
        assert program.stdin
        program.stdin.close()


@dataclass
class Found:
    """How the responses of some lives ended, in numbers that show whether a test looked."""

    ended: int = 0  # delivered to the end
    left: int = 0  # given up by the caller
    recovered: int = 0  # cut by a death
    untold: int = 0  # whole and booked, but dead before the end was delivered


def check(lives: Lives) -> Found:
    """Hold the books against what all applications saw: nothing lost, nothing doubled, nothing else, all sums exact."""
    lines = [line for life in lives.all for line in life.lines()]
    asked = {line["asked"]: line for line in lines if "asked" in line}
    ended = {line["ended"]: line for line in lines if "ended" in line}
    shown = {line["shown"]: line["tokens"] for line in lines if "shown" in line}
    ledger = Ledger(lives.url)
    receipts = {receipt.response_id: receipt for receipt in ledger.receipts_after(0, limit=10**6)}

    assert len(ended) == sum("ended" in line for line in lines), "a response ended twice"
    assert len(receipts) == ledger.last_sequence(), "a response is booked twice"
    assert receipts.keys() <= asked.keys(), "something is booked that nobody asked for"
    assert ended.keys() <= receipts.keys(), "a response whose end was delivered is lost"
    found = Found()
    for name, receipt in receipts.items():
        if name in ended:
            _check_whole(receipt, ended[name])
            found.ended += 1
        elif "recovered" in receipt.measurement:
            found.recovered += 1
        elif "cut" in receipt.measurement:
            found.left += 1
        else:
            assert receipt.tokens == asked[name]["tokens"]
            found.untold += 1
    for name in shown.keys() - ended.keys():
        credited = receipts[name].tokens if name in receipts else 0
        assert shown[name] - PROGRESS_TOKENS < credited <= shown[name] + PROGRESS_TOKENS, (name, shown[name], credited)
    _check_sums(ledger, receipts)
    ledger.close()
    report = audit(lives.url)
    assert report.difference is None, report.difference
    return found


def _check_whole(receipt: dict[str, Any], end: dict[str, Any]) -> None:
    assert (receipt.tokens, receipt.amounts) == (end["tokens"], end["credit"])
    assert "cut" not in receipt.measurement


def _check_sums(ledger: Ledger, receipts: dict[str, dict[str, Any]]) -> None:
    sums: Counter[str] = Counter()
    for receipt in receipts.values():
        assert receipt.tokens * 1_000_000 == sum(receipt.amounts.values())
        sums.update(receipt.amounts)
    tokens = sum(receipt.tokens for receipt in receipts.values())

    assert (dict(sums), tokens) == ({k: v for k, v in ledger.balances().items() if k in sums}, ledger.tokens())
    assert tokens * 1_000_000 == sum(ledger.balances().values())
