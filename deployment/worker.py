"""The one thread that owns a model: jobs join its batch between steps, leave when done, and are booked before they end.

What it promises: a job's `Finished` is delivered only after its receipt is durable, and the last piece of text comes
with it; a job that was cancelled is booked for what had been generated. Knows no Ray, no HTTP and no event loop.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from attribution import (
    AttributedResponse,
    AttributionError,
    Batch,
    FederatedModel,
    Generation,
    PromptError,
    Sampling,
    Step,
)
from deployment.booking import receipt_of, summary_of, token_credits
from deployment.messages import Delta, Event, Failed, Finished, Job, ModelCard
from rewards import CreditError, Ledger, LedgerError

__all__ = ["Attribute", "Limits", "Observer", "Worker"]

_LOG = logging.getLogger(__name__)
RETRY_AFTER_S = 1

Deliver = Callable[[Event], None]


class Attribute(Protocol):
    """`attribution.attribute` under the preset that feeds the ledger."""

    def __call__(self, model: FederatedModel, generation: Generation, *, token_level: bool) -> AttributedResponse:
        """Scores and shares of a generation."""


class Observer(Protocol):
    """Who is told how requests fare. Outcomes are `finished`, `cancelled`, `refused` and `failed`."""

    def first_token(self, seconds: float) -> None:
        """A request's first token came this long after the request."""

    def ended(self, outcome: str, seconds: float) -> None:
        """A request ended this long after it came."""


@dataclass(frozen=True)
class Limits:
    """How many rows are decoded together, how many jobs may wait, and how many tokens a silent job gets."""

    max_batch: int
    max_waiting: int
    default_max_tokens: int


@dataclass
class _Row:
    job: Job
    deliver: Deliver
    since: float = field(default_factory=time.perf_counter)
    has_token: bool = False

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.since


class Worker:
    """Continuous batching at the iteration level, in a thread of its own.

    `submit` and `cancel` may be called from any thread; events are delivered from the worker's, or from the caller's
    where a job is refused at once.
    """

    def __init__(
        self,
        model: FederatedModel,
        batch: Batch,
        *,
        attribute: Attribute,
        ledger: Ledger,
        limits: Limits,
        observer: Observer,
    ) -> None:
        self.card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
        self._model = model
        self._batch = batch
        self._attribute = attribute
        self._ledger = ledger
        self._limits = limits
        self._observer = observer
        self._changed = threading.Condition()
        self._waiting: deque[_Row] = deque()
        self._running: dict[str, _Row] = {}
        self._cancelled: set[str] = set()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="protoken-worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are still being worked on."""
        return self._thread.is_alive()

    def submit(self, job: Job, deliver: Deliver) -> None:
        """Take a job; its events go to `deliver`, the last of them a `Finished` or a `Failed`."""
        row = _Row(job, deliver)
        with self._changed:
            gone = self._stopping or not self.alive
            full = len(self._waiting) + len(self._running) >= self._limits.max_batch + self._limits.max_waiting
            if not gone and not full:
                self._waiting.append(row)
                self._changed.notify()
                return
        if gone:
            self._end(row, _stopped())
        else:
            message = f"all {self._limits.max_batch} places and {self._limits.max_waiting} waiting places are taken"
            self._end(row, Failed(429, f"{message}; try again later", "overloaded", retry_after_s=RETRY_AFTER_S))

    def cancel(self, response_id: str) -> None:
        """Let a job go: at once when it waits, at the next step when it runs. Nothing happens when it has ended."""
        with self._changed:
            waiting = [row for row in self._waiting if row.job.response_id == response_id]
            for row in waiting:
                self._waiting.remove(row)
                self._observer.ended("cancelled", row.seconds)
            if response_id in self._running:
                self._cancelled.add(response_id)
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
                for step in self._batch.step():
                    self._advance(step)
            for response_id in list(self._running):
                self._withdraw(response_id, _stopped())
        finally:
            self._abandon()

    def _admit(self) -> None:
        """Wait for work; then let go who was cancelled, and let join whom there is room for."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self._stopping)
            cancelled, self._cancelled = self._cancelled, set()
            room = self._limits.max_batch - len(self._running) + len(cancelled & self._running.keys())
            joining = [] if self._stopping else [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
            self._running.update({row.job.response_id: row for row in joining})
        for response_id in cancelled & self._running.keys():
            self._withdraw(response_id)
        for row in joining:
            self._join(row)

    def _join(self, row: _Row) -> None:
        job = row.job
        is_text = isinstance(job.prompt, str)
        prompt_ids: list[int] = []
        sampling = None
        try:
            prompt_ids = self._encode(job)
            sampling = Sampling(self._token_limit(job, prompt_ids), job.temperature, job.top_p, job.seed, job.stop)
            self._batch.join(job.response_id, prompt_ids, sampling)
        except PromptError as error:
            too_long = sampling and len(prompt_ids) + sampling.max_new_tokens > self.card.context_length
            param = "prompt" if is_text and error.parameter == "messages" else error.parameter
            code = "context_length_exceeded" if too_long else "invalid_value"
            self._end(row, Failed(400, str(error), code, param))

    def _encode(self, job: Job) -> list[int]:
        if isinstance(job.prompt, str):
            return self._model.encode_text(job.prompt)
        return self._model.encode_chat([{"role": message.role, "content": message.content} for message in job.prompt])

    def _token_limit(self, job: Job, prompt_ids: list[int]) -> int:
        """Tokens to generate: what was asked for, else the default or what the context leaves, whichever is less."""
        if job.max_tokens is not None:
            return job.max_tokens
        return max(1, min(self._limits.default_max_tokens, self.card.context_length - len(prompt_ids)))

    def _advance(self, step: Step) -> None:
        row = self._running[step.key]
        if not row.has_token:
            row.has_token = True
            self._observer.first_token(row.seconds)
        if step.finish_reason is None:
            if step.text:
                row.deliver(Delta(step.text))
            return
        generation = self._batch.leave(step.key)
        self._end(row, self._book(row, generation, step.text, token_level=row.job.token_level))

    def _withdraw(self, response_id: str, event: Event | None = None) -> None:
        """Take a row out before its end and book what it had; `event` tells whoever still listens."""
        row = self._running[response_id]
        generation = self._batch.leave(response_id)
        if generation.token_ids:
            self._book(row, generation, "", token_level=False)
        self._end(row, event)

    def _book(self, row: _Row, generation: Generation, text: str, *, token_level: bool) -> Finished | Failed:
        """Attribute and book a generation: the end to deliver, which says that it is durable or that nothing is."""
        try:
            response = self._attribute(self._model, generation, token_level=token_level)
            receipt = receipt_of(row.job, self.card, response, duration_us=round(row.seconds * 1e6))
            booked = self._ledger.append(receipt)
        except (AttributionError, CreditError):
            _LOG.exception("response %s could not be attributed; nothing is booked", row.job.response_id)
            return Failed(500, "the response could not be attributed, so it is withheld", "attribution_failed")
        except LedgerError:
            _LOG.exception("response %s could not be booked", row.job.response_id)
            return Failed(503, "the ledger could not be written, so the response is withheld", "ledger_unavailable")
        return Finished(
            text=text,
            finish_reason=generation.finish_reason or "stop",
            prompt_tokens=len(generation.prompt_token_ids),
            completion_tokens=len(generation.token_ids),
            summary=summary_of(response, receipt, booked),
            tokens=token_credits(response) if token_level else (),
        )

    def _end(self, row: _Row, event: Event | None) -> None:
        """Forget a row, count how it ended, and deliver its last event; None when nobody listens any more."""
        self._running.pop(row.job.response_id, None)
        self._observer.ended(_outcome(event), row.seconds)
        if event is not None:
            row.deliver(event)

    def _abandon(self) -> None:
        """The thread ends, as asked or not: whoever still waits is told."""
        with self._changed:
            self._stopping = True
            left = [*self._running.values(), *self._waiting]
            self._waiting.clear()
        for row in left:
            self._end(row, _stopped())


def _stopped() -> Failed:
    return Failed(503, "the model is stopping or was restarted; try again", "engine_unavailable", retry_after_s=5)


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
