"""A round that is published in the middle of the load, and taken back; and which round each receipt may name.

Knows the commands an operator types, and no request.
"""

import asyncio
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from attribution.bundle.bundle import open_bundle
from attribution.bundle.updates import weighted_sum
from attribution.bundle.writing import Member, write_bundle
from rewards.store.receipts import BookedReceipt

SWITCH_S = 90.0
"""How long it may take until every response that begins is of the round that was published, kills and all."""
AT = (0.4, 0.7)
"""When a round is published and when it is taken back, as parts of the run."""
_WEAKER = 0.9


@dataclass
class Publishing:
    """What was published when.

    Attributes:
        rounds: hashes of the global models, the one that serves first before the one that is published.
        changes: when the command began and ended by which the second was published, and the one by which it was taken
            back, in microseconds since 1970.
        failures: what the commands said that did not succeed.
    """

    rounds: tuple[str, str]
    changes: list[tuple[int, int]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    async def publish_and_take_back(self, bundle: Path, ledger: str, total_s: float) -> None:
        """As an operator would, while the load goes on."""
        consortium = open_bundle(bundle).manifest.consortium
        begin = asyncio.get_running_loop().time()
        for part, words in zip(AT, (["publish", str(bundle)], ["rollback", consortium]), strict=True):
            await asyncio.sleep(begin + part * total_s - asyncio.get_running_loop().time())
            begun_us = time.time_ns() // 1000
            command = [sys.executable, "-m", "deployment.cli", "consortium", *words, "--ledger", ledger]
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            told, _ = await process.communicate()
            if process.returncode:
                self.failures.append(told.decode().strip())
            self.changes.append((begun_us, time.time_ns() // 1000))

    def misnamed(self, receipts: Iterable[BookedReceipt]) -> list[str]:
        """Responses whose receipts name a round that answered nobody when they were asked for."""
        return [each.response_id for each in receipts if each.model_sha256 not in self._answering(each.created_at_us)]

    def of_second(self, receipts: Iterable[BookedReceipt]) -> int:
        """How many receipts name the round that was published."""
        return sum(each.model_sha256 == self.rounds[1] for each in receipts)

    def _answering(self, at_us: int) -> set[str]:
        """The rounds that may have answered what was asked for then."""
        first, second = self.rounds
        answering = {first}
        for (begun_us, ended_us), before, after in zip(self.changes, (first, second), (second, first), strict=False):
            if at_us >= begun_us:
                answering = {before, after} if at_us < ended_us + SWITCH_S * 1e6 else {after}
        return answering


def next_round(bundle: Path, folder: Path) -> Path:
    """A bundle of the next round, in which every client has unlearnt a little; under `folder`."""
    opened = open_bundle(bundle)
    manifest = opened.manifest
    members = [
        Member(
            client.id,
            client.name,
            client.examples,
            client.weight,
            weighted_sum([(_WEAKER, opened.updates[client.id])]),
            opened.last_round.get(client.id),
        )
        for client in manifest.clients
    ]
    return write_bundle(folder, manifest.consortium, manifest.base.reference, manifest.round + 1, members).path
