"""The program that is killed: the real worker over a small real model, with spool, booking queue and takeover.

`python -m tests.faults.writer FOLDER` loads the model once, into FOLDER, and then forks a process for each line of its
input (an `Order` as JSON), so that a life begins within a few hundredths of a second of the death before it. A life
appends to a file of its own what its applications see, one JSON object a line, and ends in order on SIGTERM.
"""

import json
import os
import queue
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch

from attribution.attribute import credit_in_pieces
from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from attribution.records import Step
from attribution.scoring.credit_preset import USUAL_EFFORT
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.credit_recorder import CreditRecorder
from deployment.replica.booking.recovery import Recovery
from deployment.replica.capacity import Capacity
from deployment.replica.messages import Delta, Event, Finished, Job, ModelCard
from deployment.replica.scoring.scoring_queue import ScoringQueue
from deployment.replica.worker import Worker
from deployment.spool.spool import Spool
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys
from tests.attribution.consortia import base_model, lora_update, write_consortium

CLIENTS = {"clinic": "A clinic", "bank": "A bank"}
CONSORTIUM = "test"
MOST_TOKENS = 90


@dataclass(frozen=True)
class Order:
    """What a life is to do: serve so many callers at once over a ledger and a spool, and write what they see.

    `dies_after`: after so many ends of responses it kills itself, in the moment in which the last one is delivered.
    """

    url: str
    spool: str
    seen: str
    callers: int
    seed: int
    dies_after: int | None


class Counting(Batch):
    """A batch that tells how many tokens a row has been given."""

    def __init__(self, model: FederatedModel) -> None:
        super().__init__(model)
        self.given: Counter[str] = Counter()

    def step(self) -> list[Step]:
        """One token for every row that has not ended."""
        steps = super().step()
        self.given.update(step.key for step in steps)
        return steps


class Observed:
    """Nobody watches how requests fare."""

    def note_step(self, first_s: Sequence[float], between_s: Sequence[float]) -> None:
        """Tokens came."""

    def note_attribution(self, seconds: float) -> None:
        """It was."""

    def load(self, running: int, waiting: int) -> None:
        """They are so many."""

    def note_unscored(self, responses: int, seconds: float) -> None:
        """They wait for their score."""

    def note_end(self, outcome: str, seconds: float) -> None:
        """It ended."""


class Life:
    """One process between its start and its death."""

    def __init__(self, order: Order, model: FederatedModel) -> None:
        self._order = order
        self._ends = count(1)
        self._seen = os.open(order.seen, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._batch = Counting(model)
        ledger = Ledger(order.url)
        self._spool = Spool(Path(order.spool))
        self._bookings = BookingQueue(
            ledger, self._spool, lambda receipts, seconds: self.say(lag=seconds, receipts=receipts)
        )
        card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
        scoring = ScoringQueue(model, credit_in_pieces, USUAL_EFFORT, Observed())
        sampling = SamplingKeys(ledger.database)
        books = {"sampling": sampling, "scoring": scoring, "spool": self._spool, "bookings": self._bookings}
        self._worker = Worker(
            model,
            self._batch,
            scoring=scoring,
            recorder=CreditRecorder(card, **books),
            capacity=Capacity(max_batch=8, max_waiting=100, default_max_tokens=16),
            observer=Observed(),
        )
        self._recovery = Recovery(
            self._spool,
            self._bookings,
            ledger,
            card.global_sha256.__eq__,
            self._worker.recover,
            interval_s=0.2,
        )
        self._callers = [threading.Thread(target=self._call, args=(n,), daemon=True) for n in range(order.callers)]

    def run(self) -> None:
        """Serve until SIGTERM, then end as a replica does."""
        ending = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: ending.set())
        for caller in self._callers:
            caller.start()
        self.say(began=os.getpid())
        ending.wait()
        self._worker.stop(30)
        self._recovery.close()
        self._bookings.close()
        self._spool.close()
        self.say(left=os.getpid())

    def say(self, **line: Any) -> None:
        """A line of what was seen, which is there once this returns, whatever becomes of the process."""
        os.write(self._seen, json.dumps(line).encode() + b"\n")

    def _call(self, number: int) -> None:
        """One caller, until it is refused: every third response is not streamed, every fourth given up on the way."""
        chance = random.Random(f"{self._order.seed} {number}")
        for turn in count():
            name = f"{self._order.seed}-{number}-{turn}"
            tokens, streamed, patience = chance.randint(1, MOST_TOKENS), turn % 3 != 1, MOST_TOKENS
            if turn % 4 == 2:
                patience = chance.randint(1, tokens)
            job = Job(
                response_id=name,
                application="0123456789ab",
                created_at_us=1_700_000_000_000_000,
                prompt=f"tell me {number}",
                max_tokens=tokens,
                temperature=1.0,
                top_p=1.0,
                seed=turn,
                stop=(),
                token_level=False,
                streamed=streamed,
            )
            self.say(asked=name, tokens=tokens, streamed=streamed)
            ends: queue.SimpleQueue[bool] = queue.SimpleQueue()
            self._worker.submit(job, partial(self._take, job, ends, patience))
            if not ends.get():
                return

    def _take(self, job: Job, ends: "queue.SimpleQueue[bool]", patience: int, event: Event) -> None:
        """An event of a response, written down before anything else happens, as if the application had read it."""
        name = job.response_id
        match event:
            case Delta():
                given = self._batch.given[name]
                if job.streamed:
                    self.say(shown=name, tokens=given)
                if given >= patience:
                    self._worker.cancel(name)
                    ends.put(True)
            case Finished():
                credit = dict(event.summary.credit)
                self.say(ended=name, tokens=event.completion_tokens, credit=credit, booked=event.booked)
                if next(self._ends) == self._order.dies_after:
                    os.kill(os.getpid(), signal.SIGKILL)
                ends.put(True)
            case _:
                self.say(failed=name, status=event.status, why=event.message)
                ends.put(False)


def small_model(folder: Path) -> FederatedModel:
    """A random four-block Llama that two clients trained; it never ends by itself."""
    torch.set_num_threads(1)  # and no thread may be there before a fork
    base = base_model("llama")
    updates = {name: lora_update(base, seed, first_block=2) for seed, name in enumerate(CLIENTS)}
    model = FederatedModel.load(write_consortium(folder, base, updates))
    model.end_token_ids = set()
    return model


def main(arguments: Sequence[str]) -> None:
    """Fork a life for each order, and tell its process id."""
    model = small_model(Path(arguments[0]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the dead are buried at once, so that their ids are gone
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            Life(Order(**json.loads(line)), model).run()
            os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
