"""The one thread that owns a model: jobs join its batch between steps, leave when done, and are booked before they end.

A job's `Finished` is delivered only after its receipt is durable, and the last piece of text comes with it; a job that
was cancelled is booked for what had been generated. Knows no Ray, no HTTP and no event loop.
"""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from attribution import Batch, FederatedModel, PromptError, Sampling, Step
from deployment.accounts import Accounts, Attribute, Deliver, Row
from deployment.booker import Booker
from deployment.errors import SpoolError
from deployment.messages import Event, Failed, Finished, Job, ModelCard
from deployment.records import Progress
from deployment.spool import Spool

__all__ = ["Capacity", "Observer", "Worker"]

_LOG = logging.getLogger(__name__)
RETRY_AFTER_S = 1


class Observer(Protocol):
    """Who is told how requests fare. Outcomes are `finished`, `cancelled`, `refused` and `failed`."""

    def stepped(self, first_s: Sequence[float], between_s: Sequence[float]) -> None:
        """A step brought one token to each of some requests: the first one so long after the request, or a next one."""

    def attributed(self, seconds: float) -> None:
        """A response was attributed, in so long."""

    def load(self, running: int, waiting: int) -> None:
        """So many requests are being decoded, and so many wait."""

    def ended(self, outcome: str, seconds: float) -> None:
        """A request ended this long after it came."""


@dataclass(frozen=True)
class Capacity:
    """How many rows are decoded together, how many jobs may wait, and how many tokens a silent job gets."""

    max_batch: int
    max_waiting: int
    default_max_tokens: int


class Worker:
    """Continuous batching at the iteration level, in a thread of its own.

    `submit`, `cancel` and `recover` may be called from any thread; events are delivered from the worker's, from the
    booker's, or from the caller's where a job is refused at once.
    """

    def __init__(
        self,
        model: FederatedModel,
        batch: Batch,
        *,
        attribute: Attribute,
        spool: Spool,
        booker: Booker,
        capacity: Capacity,
        observer: Observer,
    ) -> None:
        self.card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
        self._model = model
        self._batch = batch
        self._accounts = Accounts(
            model, self.card, attribute=attribute, spool=spool, booker=booker, attributed=observer.attributed
        )
        self._capacity = capacity
        self._observer = observer
        self._changed = threading.Condition()
        self._waiting: deque[Row] = deque()
        self._running: dict[str, Row] = {}
        self._cancelled: set[str] = set()
        self._load = 0, 0
        self._recovering: deque[Progress] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="protoken-worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are still being worked on."""
        return self._thread.is_alive()

    def submit(self, job: Job, deliver: Deliver) -> None:
        """Take a job; its events go to `deliver`, the last of them a `Finished` or a `Failed`."""
        row = Row(job, deliver)
        with self._changed:
            gone = self._stopping or not self.alive
            full = len(self._waiting) + len(self._running) >= self._capacity.max_batch + self._capacity.max_waiting
            if not gone and not full:
                self._waiting.append(row)
                self._tell_load()
                self._changed.notify()
                return
        if gone:
            self._end(row, _stopped())
        else:
            message = f"all {self._capacity.max_batch} places and {self._capacity.max_waiting} waiting places are taken"
            self._end(row, Failed(429, f"{message}; try again later", "overloaded", retry_after_s=RETRY_AFTER_S))

    def cancel(self, response_id: str) -> None:
        """Let a job go: at once when it waits, at the next step when it runs. Nothing happens when it has ended."""
        with self._changed:
            waiting = [row for row in self._waiting if row.job.response_id == response_id]
            for row in waiting:
                self._waiting.remove(row)
                self._tell_load()
                self._observer.ended("cancelled", row.seconds)
            if response_id in self._running:
                self._cancelled.add(response_id)
                self._changed.notify()

    def recover(self, progress: Progress) -> None:
        """Credit a stream that a dead process left, between steps; until that is done it stays in the spool."""
        with self._changed:
            self._recovering.append(progress)
            self._changed.notify()

    def stop(self, timeout_s: float) -> None:
        """Refuse new jobs, book what was generated so far, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._admit()
                self._advance(self._batch.step())
                if self._recovering:
                    self._accounts.recover(self._recovering.popleft())
            for response_id in list(self._running):
                self._withdraw(response_id, _stopped())
        finally:
            self._abandon()

    def _admit(self) -> None:
        """Wait for work; then let go who was cancelled, and let join whom there is room for."""
        with self._changed:
            self._tell_load()
            self._changed.wait_for(lambda: self._waiting or self._running or self._recovering or self._stopping)
            cancelled, self._cancelled = self._cancelled, set()
            room = self._capacity.max_batch - len(self._running) + len(cancelled & self._running.keys())
            joining = [] if self._stopping else [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._running.update({row.job.response_id: row for row in joining})
            self._tell_load()
        for response_id in cancelled & self._running.keys():
            self._withdraw(response_id)
        for row in joining:
            self._join(row)

    def _join(self, row: Row) -> None:
        job = row.job
        is_text = isinstance(job.prompt, str)
        prompt_ids: list[int] = []
        sampling = None
        try:
            prompt_ids = self._encode(job)
            sampling = Sampling(self._token_limit(job, prompt_ids), job.temperature, job.top_p, job.seed, job.stop)
            self._batch.join(job.response_id, prompt_ids, sampling)
            row.prompt_ids = tuple(prompt_ids)
        except PromptError as error:
            too_long = sampling and len(prompt_ids) + sampling.max_new_tokens > self.card.context_length
            param = "prompt" if is_text and error.parameter == "messages" else error.parameter
            code = "context_length_exceeded" if too_long else "invalid_value"
            del self._running[job.response_id]
            self._end(row, Failed(400, str(error), code, param))

    def _encode(self, job: Job) -> list[int]:
        if isinstance(job.prompt, str):
            return self._model.encode_text(job.prompt)
        return self._model.encode_chat([{"role": message.role, "content": message.content} for message in job.prompt])

    def _token_limit(self, job: Job, prompt_ids: list[int]) -> int:
        """Tokens to generate: what was asked for, else the default or what the context leaves, whichever is less."""
        if job.max_tokens is not None:
            return job.max_tokens
        return max(1, min(self._capacity.default_max_tokens, self.card.context_length - len(prompt_ids)))

    def _advance(self, steps: Sequence[Step]) -> None:
        """What a step brought: progress is spooled before its text is shown, and then come the ends."""
        first_s: list[float] = []
        between_s: list[float] = []
        for step in steps:
            row = self._running[step.key]
            seconds = row.take(step.token_id)
            (between_s if len(row.token_ids) > 1 else first_s).append(seconds)
        self._observer.stepped(first_s, between_s)
        ended = [step for step in steps if step.finish_reason is not None]
        self._show([step for step in steps if step.finish_reason is None])
        for step in ended:
            row = self._running[step.key]
            self._accounts.finish(row, self._batch.leave(step.key), step.text, partial(self._end, row))
            del self._running[step.key]

    def _show(self, steps: Sequence[Step]) -> None:
        """Deliver the texts of rows that go on; a stream whose progress the disk refuses ends here."""
        due = [row for step in steps if (row := self._running[step.key]).is_due]
        try:
            self._accounts.record(due)
        except SpoolError:
            _LOG.exception("%d streams end, as their progress cannot be spooled", len(due))
            for row in due:
                self._withdraw(row.job.response_id, _no_disk())
        for step in steps:
            if step.text and step.key in self._running:
                self._running[step.key].show(step.text)

    def _withdraw(self, response_id: str, failed: Failed | None = None) -> None:
        """Take a row out before its end and book what it had; whoever still listens is told that it `failed`."""
        row = self._running[response_id]
        credited = self._accounts.withdraw(row, self._batch.leave(response_id))
        del self._running[response_id]
        self._end(row, failed and replace(failed, credited=credited))

    def _end(self, row: Row, event: Event | None) -> None:
        """Count how a row ended, and deliver its last event; None when nobody listens any more."""
        self._observer.ended(_outcome(event), row.seconds)
        if event is not None:
            row.deliver(event)

    def _tell_load(self) -> None:
        """Tell how many run and wait; under the lock, so that the last one told is the last one there was."""
        load = len(self._running), len(self._waiting)
        if load != self._load:
            self._load = load
            self._observer.load(*load)

    def _abandon(self) -> None:
        """The thread ends, as asked or not: whoever still waits is told."""
        with self._changed:
            self._stopping = True
            left = [*self._running.values(), *self._waiting]
            self._running.clear()
            self._waiting.clear()
            self._tell_load()
        for row in left:
            self._end(row, _stopped())


def _stopped() -> Failed:
    return Failed(503, "the model is stopping or was restarted; try again", "engine_unavailable", retry_after_s=5)


def _no_disk() -> Failed:
    return Failed(503, "the disk for receipts cannot be written, so the response ends here", "ledger_unavailable")


def _outcome(event: Event | None) -> str:
    match event:
        case None:
            return "cancelled"
        case Finished():
            return "finished"
        case Failed(status=400 | 429):
            return "refused"
        case _:
            return "failed"
