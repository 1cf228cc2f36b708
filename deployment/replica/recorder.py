"""From generated tokens to booked credit: attribution, receipt, spool, booking, and the event that may follow.

What it promises: `Finished` is told only once the receipt is durable, in the spool or in the ledger; of a stream, what
was delivered was spooled before it was, but for the last PROGRESS_TOKENS - 1 tokens. Runs in the thread that owns the
model; knows no batch and no queue.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from attribution.errors import ScoreError
from attribution.forcing import forced_generation
from attribution.model import FederatedModel
from attribution.records import AttributedResponse, Generation, Sampling, Step
from deployment.errors import SpoolError, log_text_of
from deployment.replica.booking_queue import BookingQueue, Outcome, OutcomeListener
from deployment.replica.endings import attribution_failure
from deployment.replica.logprobs import LogprobLine
from deployment.replica.messages import Delta, Event, Failed, Finished, Job, ModelCard
from deployment.replica.receipts import ResponseOrigin, receipt_of, summary_of, token_credits
from deployment.spool.records import RECOVERED, ProgressRecord, commons_receipt, record_of
from deployment.spool.spool import Spool
from rewards.credit import Receipt
from rewards.errors import CreditError, RewardsError
from rewards.ledger.ledger import Booking

_LOG = logging.getLogger(__name__)
PROGRESS_TOKENS = 16
"""A stream's progress is spooled when this many tokens came since the last time."""

Deliver = Callable[[Event], None]


class Attribute(Protocol):
    """`attribution.attribute` under the preset that feeds the ledger."""

    def __call__(self, model: FederatedModel, generation: Generation, *, token_level: bool) -> AttributedResponse:
        """Scores and shares of a generation."""


@dataclass
class ActiveRequest:
    """A job on its way: what was generated, how much of it is in the spool, and how much its caller was shown."""

    job: Job
    deliver: Deliver
    since: float = field(default_factory=time.perf_counter)
    prompt_ids: tuple[int, ...] = ()
    token_ids: list[int] = field(default_factory=list)
    sampling: Sampling | None = None
    spooled: int = 0
    shown: int = 0
    ended: bool = False
    last_token: float | None = None
    logprobs: LogprobLine | None = None

    @property
    def seconds(self) -> float:
        """Time since the job came."""
        return time.perf_counter() - self.since

    @property
    def is_due(self) -> bool:
        """Whether the next token may be shown only after progress was spooled."""
        return self.job.streamed and len(self.token_ids) - self.spooled >= PROGRESS_TOKENS

    def take(self, step: Step) -> float:
        """Add a token; the time since the one before it, or since the job came."""
        now = time.perf_counter()
        if self.logprobs is not None:
            self.logprobs.add(step)
        before, self.last_token = self.last_token or self.since, now
        self.token_ids.append(step.token_id)
        return now - before

    def show(self, text: str) -> None:
        """Deliver text; of a job that is not streamed the application sees nothing of it yet."""
        self.shown = len(self.token_ids) if self.job.streamed else 0
        self.deliver(Delta(text, () if self.logprobs is None else self.logprobs.tell(text)))

    def with_logprobs(self, event: Event) -> Event:
        """The last event, with the log-probabilities that are still to be told."""
        if self.logprobs is None or not isinstance(event, Finished):
            return event
        return replace(event, logprobs=self.logprobs.tell_rest(event.text))


class CreditRecorder:
    """The books of one replica, as far as they are made by whoever owns the model.

    `attributed` is told how many seconds each attribution took.
    """

    def __init__(
        self,
        model: FederatedModel,
        card: ModelCard,
        *,
        attribute: Attribute,
        spool: Spool,
        bookings: BookingQueue,
        attributed: Callable[[float], None],
    ) -> None:
        self._model = model
        self._card = card
        self._attribute = attribute
        self._attributed = attributed
        self._spool = spool
        self._bookings = bookings

    def record(self, rows: Sequence[ActiveRequest]) -> None:
        """Spool the progress of streams, all in one write.

        Raises:
            SpoolError: the disk refuses; nothing more of them may be shown.
        """
        self._spool.append([self._progress(row).record() for row in rows])
        for row in rows:
            row.spooled = len(row.token_ids)

    def finish(self, row: ActiveRequest, generation: Generation, text: str, end: Deliver) -> None:
        """Book a finished response; `end` is given its last event, once, maybe from another thread and later."""
        token_level = row.job.token_level
        try:
            response = self._response(generation, token_level=token_level)
            receipt = receipt_of(row.job, self._card, response, duration_us=round(row.seconds * 1e6))
        except (ScoreError, CreditError):
            self._forget(row.job.response_id)
            end(attribution_failure(credited=False))
            return
        except Exception as error:  # noqa: BLE001 - out of memory, say: it is this response's, whatever it is
            end(attribution_failure(credited=self.give_to_commons(row, error)))
            return
        finished = Finished(
            text=text,
            finish_reason=generation.finish_reason or "stop",
            prompt_tokens=len(generation.prompt_token_ids),
            completion_tokens=len(generation.token_ids),
            summary=summary_of(response, receipt),
            tokens=token_credits(response) if token_level else (),
        )
        is_durable = self._spool_receipt(receipt)
        told = partial(_end_of, end, finished, is_durable=is_durable)
        self._book(receipt, told, until_told=not is_durable and not row.shown)

    def withdraw(self, row: ActiveRequest, generation: Generation) -> bool:
        """Book what a response had that is not finished; False when nothing of it can be booked."""
        if not generation.token_ids:
            return False
        try:
            return self._book_cut(row.job, generation, round(row.seconds * 1e6), {"delivered": row.shown})
        except Exception as error:  # noqa: BLE001 - as in `finish`
            return self.give_to_commons(row, error)

    def give_to_commons(self, row: ActiveRequest, error: Exception) -> bool:
        """Book a response that nobody can attribute, for `error`; False when nothing of it was delivered, or is booked.

        Nobody earns by it, but what an application was shown stands in the books.
        """
        _LOG.error("response %s cannot be attributed: %s", row.job.response_id, log_text_of(error))
        try:
            if not row.shown:
                self._spool.mark_done([row.job.response_id])
                return False
            why, cut = f"attribution failed: {type(error).__name__}", {"delivered": row.shown}
            receipt = commons_receipt(self._progress(row), why, cut)
        except (CreditError, SpoolError) as refused:
            _LOG.error("response %s is not booked: %s", row.job.response_id, refused)
            return False
        self._spool_receipt(receipt)
        self._book(receipt)
        return True

    def recover(self, progress: ProgressRecord) -> None:
        """Book a stream that the crash of another process cut, as far as its progress was spooled."""
        try:
            generation = forced_generation(
                self._model, progress.prompt_ids, progress.token_ids, temperature=progress.temperature
            )
            self._book_cut(progress, generation, progress.duration_us, RECOVERED)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end one process after another
            _LOG.error("stream %s of a dead process cannot be attributed: %s", progress.response_id, log_text_of(error))
            self._recover_for_commons(progress, f"attribution failed: {type(error).__name__}")

    def _recover_for_commons(self, progress: ProgressRecord, why: str) -> None:
        try:
            self._book(commons_receipt(progress, why))
        except CreditError as error:
            self._spool.set_aside(progress.record(), str(error))

    def _book_cut(
        self, origin: ResponseOrigin, generation: Generation, duration_us: int, cut: Mapping[str, Any]
    ) -> bool:
        try:
            response = self._response(generation, token_level=False)
            receipt = receipt_of(origin, self._card, response, duration_us, cut)
        except (ScoreError, CreditError):
            self._forget(origin.response_id)
            return False
        self._spool_receipt(receipt)
        self._book(receipt)
        return True

    def _book(self, receipt: Receipt, told: OutcomeListener | None = None, *, until_told: bool = False) -> None:
        """Hand a receipt to the booking queue; where that fails, it is as when the ledger is away."""
        try:
            self._bookings.book(receipt, told, until_told=until_told)
        except Exception as error:  # noqa: BLE001 - this response's, whatever it is
            _LOG.error("response %s waits in the spool: %s", receipt.response_id, log_text_of(error))
            if told is not None:
                told(None)

    def _response(self, generation: Generation, *, token_level: bool) -> AttributedResponse:
        begun = time.perf_counter()
        response = self._attribute(self._model, generation, token_level=token_level)
        self._attributed(time.perf_counter() - begun)
        return response

    def _spool_receipt(self, receipt: Receipt) -> bool:
        """Whether the receipt is durable now; if not, the ledger alone can still make it so."""
        try:
            self._spool.append([record_of(receipt)])
        except Exception as error:  # noqa: BLE001 - a full disk, or no memory to write: the ledger is left
            _LOG.error("response %s is not spooled: %s", receipt.response_id, log_text_of(error))
            return False
        return True

    def _forget(self, response_id: str) -> None:
        """Nothing is ever paid on a score that is no number, not after a restart either."""
        _LOG.error("a score of response %s is not a finite number; nothing is booked", response_id)
        self._spool.mark_done([response_id])

    def _progress(self, row: ActiveRequest) -> ProgressRecord:
        job = row.job
        return ProgressRecord(
            response_id=job.response_id,
            application=job.application,
            created_at_us=job.created_at_us,
            consortium=self._card.name,
            model_sha256=self._card.global_sha256,
            prompt_ids=row.prompt_ids,
            token_ids=tuple(row.token_ids),
            temperature=job.temperature,
            duration_us=round(row.seconds * 1e6),
        )


def _end_of(end: Deliver, finished: Finished, outcome: Outcome, *, is_durable: bool) -> None:
    """Deliver what a response ends with, now that it is told how its receipt stands."""
    match outcome:
        case Booking():
            end(finished)
        case RewardsError():
            end(Failed(500, "the ledger refuses the response's credit, so it is withheld", "booking_refused"))
        case None if is_durable:
            end(replace(finished, booked=False))
        case None:
            end(
                Failed(503, "neither disk nor ledger can be written, so the response is withheld", "ledger_unavailable")
            )
