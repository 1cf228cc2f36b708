"""From generated tokens to booked credit: spool, score, receipt, booking, and the event that may follow.

What it promises: a response is durable, as its token ids or as its receipt, in the spool or in the ledger, before its
end is told; of a stream, what was delivered was spooled before it was, but for the last PROGRESS_TOKENS - 1 tokens.
Whoever asked for attribution is told the end when the score is there; nobody else waits for it. Runs in the worker's
thread; knows no batch.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from attribution.errors import ScoreError
from attribution.records import AttributedResponse, FinishReason, Generation
from attribution.teacher_forcing import generation_of
from deployment.errors import SpoolError, log_text_of
from deployment.replica.active_request import ActiveRequest, Deliver
from deployment.replica.booking.booking_queue import BookingQueue, Outcome, OutcomeListener
from deployment.replica.booking.credit_summary import summary_of, token_credits
from deployment.replica.booking.receipts import receipt_of
from deployment.replica.failures import attribution_failure, ledger_failure, stop_failure
from deployment.replica.messages import Failed, Finished, ModelCard
from deployment.replica.scoring.scoring_order import ScoringTask
from deployment.replica.scoring.scoring_queue import Scoring
from deployment.spool.lines import Record
from deployment.spool.records import RECOVERED, ProgressRecord, record_of, unscored_receipt
from deployment.spool.spool import Spool
from rewards.credit import Receipt
from rewards.errors import CreditError, LedgerError, RewardsError
from rewards.ledger.ledger import Booking
from rewards.sampled_credit.keys import SamplingKeys
from rewards.sampled_credit.rule import SamplingRule

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Ending:
    """Tokens that are to be booked.

    Attributes:
        progress: what they are, as it is spooled.
        generation: the same for the scorer.
        marks: what the receipt says beside the score: how far a response came that was cut, and how it was sampled.
        token_level: whether each token is scored too.
        weight: of the application's key; 1 of a response that a dead process left.
        shown: how many of the tokens the application has.
        text: what was held back.
        end: is given the last event of a finished response, once; None where it is told already, or nobody waits.
        told: hears whether any of a response that was cut is booked.
    """

    progress: ProgressRecord
    generation: Generation
    marks: Mapping[str, Any] = field(default_factory=dict)
    token_level: bool = False
    weight: int = 1
    shown: int = 0
    text: str = ""
    end: Deliver | None = None
    told: Callable[[bool], None] = lambda _: None

    @property
    def is_told(self) -> bool:
        """Whether the application has the whole response already."""
        return self.progress.finish_reason is not None and self.end is None


class CreditRecorder:
    """The books of one replica, as far as they are made by whoever owns the model.

    Args:
        card: what is served.
        sampling: which responses are measured.
        scoring: scores them, in its own time.
        spool: holds what the ledger does not have yet.
        bookings: brings receipts to the ledger.
        engine: what receipts say of who generated the tokens, where that was not the model itself.
    """

    def __init__(
        self,
        card: ModelCard,
        *,
        sampling: SamplingKeys,
        scoring: Scoring,
        spool: Spool,
        bookings: BookingQueue,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        self.card = card
        self._sampling = sampling
        self._scoring = scoring
        self._spool = spool
        self._bookings = bookings
        self._engine = dict(engine or {})

    def record(self, rows: Sequence[ActiveRequest]) -> None:
        """Spool the progress of streams, all in one write.

        Raises:
            SpoolError: the disk refuses; nothing more of them may be shown.
        """
        self._spool.append([self._progress(row).record() for row in rows])
        for row in rows:
            row.spooled = len(row.token_ids)

    def finish(self, row: ActiveRequest, generation: Generation, text: str, end: Deliver) -> None:
        """Book a finished response; `end` is given its last event, once, maybe from another thread and later.

        That event waits for the score only where the application asked for it, or where the disk refuses what would
        let another process score it.
        """
        progress = self._progress(row, generation.finish_reason or "stop")
        ending = _Ending(
            progress,
            generation,
            token_level=row.job.token_level,
            weight=row.job.weight,
            shown=row.shown,
            text=text,
            end=end,
        )
        if not row.job.attributed and self._try_to_spool(progress.record()):
            end(_end_event(ending))
            ending = replace(ending, end=None, shown=len(progress.token_ids))
        self._take(ending)

    def withdraw(self, row: ActiveRequest, generation: Generation, told: Callable[[bool], None]) -> None:
        """Book what a response had that is not finished; `told` hears whether any of it is, maybe later."""
        if not generation.token_ids:
            told(False)
            return
        progress = self._progress(row)
        marks = {"cut": True, "delivered": row.shown}
        if row.spooled < len(progress.token_ids):
            self._try_to_spool(progress.record())
        self._take(_Ending(progress, generation, marks, weight=row.job.weight, shown=row.shown, told=told))

    def give_up(self, row: ActiveRequest, error: Exception) -> bool:
        """Book a response that nobody can score, for `error`; False when nothing of it was delivered, or is booked."""
        return self._give_up(self._progress(row), {"cut": True, "delivered": row.shown}, row.shown, error)

    def recover(self, progress: ProgressRecord) -> None:
        """Book what a dead process left: a response that waited for its score, or a stream that its end cut."""
        generation = generation_of(progress.prompt_ids, progress.token_ids, progress.temperature)
        marks = RECOVERED if progress.finish_reason is None else {}
        self._take(_Ending(progress, generation, marks, shown=len(progress.token_ids)))

    def _take(self, ending: _Ending) -> None:
        """Let a response be scored, unless it is not to be measured and nobody asks."""
        try:
            rule = self._rule(ending.progress)
        except LedgerError as error:
            _LOG.error("response %s waits in the spool: %s", ending.progress.response_id, error)
            ending.told(True)
            if ending.end is not None:
                ending.end(ledger_failure())
            return
        if rule.is_measured(ending.progress.response_id) or ending.end is not None:
            self._scoring.put(
                ScoringTask(
                    ending.generation,
                    ending.token_level,
                    urgent=ending.end is not None,
                    done=partial(self._take_outcome, ending),
                    abandoned=partial(_leave_to_another, ending),
                    application=ending.progress.application,
                    weight=ending.weight,
                )
            )
        else:
            ending.told(self._give_up(ending.progress, ending.marks, ending.shown, None))

    def _take_outcome(self, ending: _Ending, outcome: AttributedResponse | Exception) -> None:
        """Book a response that was scored, or could not be."""
        if isinstance(outcome, Exception):
            self._fail(ending, outcome)
            return
        try:
            receipt = self._receipt(ending, outcome)
            finished = None if ending.end is None else _end_event(ending, outcome, receipt)
        except Exception as error:  # noqa: BLE001 - out of memory, say: it is this response's, whatever it is
            self._fail(ending, error)
            return
        self._settle(ending, receipt, finished)

    def _fail(self, ending: _Ending, error: Exception) -> None:
        """Book a response without a score as far as an application has it, and let its end tell."""
        if isinstance(error, ScoreError | CreditError) and not ending.is_told:
            credited = self._forget(ending.progress.response_id)
        else:
            credited = self._give_up(ending.progress, ending.marks, ending.shown, error)
        ending.told(credited)
        if ending.end is not None:
            ending.end(attribution_failure(credited=credited))

    def _settle(self, ending: _Ending, receipt: Receipt, finished: Finished | None) -> None:
        """Make a receipt durable, and let the end of its response follow."""
        is_durable = self._try_to_spool(record_of(receipt))
        ending.told(True)
        if finished is None or ending.end is None:
            self._book(receipt)
            return
        told = partial(_end_of, ending.end, finished, is_durable=is_durable)
        self._book(receipt, told, until_told=not is_durable and not ending.shown)

    def _give_up(self, progress: ProgressRecord, marks: Mapping[str, Any], shown: int, error: Exception | None) -> bool:
        """Book what has no score: nobody earns by it, but what an application was shown stands in the books.

        Of a response that is not to be measured that is no failure, and `error` is None.
        """
        if error is not None:
            _LOG.error("response %s cannot be attributed: %s", progress.response_id, log_text_of(error))
        try:
            if error is not None and not shown:
                self._spool.mark_done([progress.response_id])
                return False
            why = f"attribution failed: {type(error).__name__}"
            receipt = unscored_receipt(progress, self._rule(progress), why, marks)
        except (RewardsError, SpoolError) as refused:
            _LOG.error("response %s is not booked: %s", progress.response_id, refused)
            return False
        self._try_to_spool(record_of(receipt))
        self._book(receipt)
        return True

    def _receipt(self, ending: _Ending, response: AttributedResponse) -> Receipt:
        rule, progress = self._rule(ending.progress), ending.progress
        if not rule.is_measured(progress.response_id):
            return unscored_receipt(progress, rule, "", ending.marks)
        marks = {**ending.marks, **rule.evidence(progress.response_id)}
        if self._engine:
            response = replace(response, settings={**response.settings, **self._engine})
        return receipt_of(progress, self.card, response, progress.duration_us, marks)

    def _rule(self, progress: ProgressRecord) -> SamplingRule:
        return self._sampling.rule(progress.consortium, progress.created_at_us)

    def _book(self, receipt: Receipt, told: OutcomeListener | None = None, *, until_told: bool = False) -> None:
        """Hand a receipt to the booking queue; where that fails, it is as when the ledger is away."""
        try:
            self._bookings.book(receipt, told, until_told=until_told)
        except Exception as error:  # noqa: BLE001 - this response's, whatever it is
            _LOG.error("response %s waits in the spool: %s", receipt.response_id, log_text_of(error))
            if told is not None:
                told(None)

    def _try_to_spool(self, record: Record) -> bool:
        """Whether the record is durable now; if not, the ledger alone can still make it so."""
        try:
            self._spool.append([record])
        except Exception as error:  # noqa: BLE001 - a full disk, or no memory to write: the ledger is left
            _LOG.error("response %s is not spooled: %s", record["id"], log_text_of(error))
            return False
        return True

    def _forget(self, response_id: str) -> bool:
        """Nothing is ever paid on a score that is no number, not after a restart either: False, it is not booked."""
        _LOG.error("a score of response %s is not a finite number; nothing is booked", response_id)
        self._spool.mark_done([response_id])
        return False

    def _progress(self, row: ActiveRequest, finish_reason: FinishReason | None = None) -> ProgressRecord:
        job = row.job
        return ProgressRecord(
            response_id=job.response_id,
            application=job.application,
            created_at_us=job.created_at_us,
            consortium=self.card.name,
            model_sha256=self.card.global_sha256,
            prompt_ids=row.prompt_ids,
            token_ids=tuple(row.token_ids),
            temperature=job.temperature,
            duration_us=round(row.seconds * 1e6),
            finish_reason=finish_reason,
        )


def _leave_to_another(ending: _Ending) -> None:
    """Tell whoever waits that this process ends; what the spool has of the response another one books."""
    ending.told(True)
    if ending.end is not None:
        ending.end(stop_failure())


def _end_event(ending: _Ending, response: AttributedResponse | None = None, receipt: Receipt | None = None) -> Finished:
    """The last event of a finished response, with its credit where that is known already."""
    summary = None if response is None or receipt is None else summary_of(response, receipt)
    return Finished(
        text=ending.text,
        finish_reason=ending.progress.finish_reason or "stop",
        prompt_tokens=len(ending.progress.prompt_ids),
        completion_tokens=len(ending.progress.token_ids),
        summary=summary,
        tokens=token_credits(response) if response is not None and ending.token_level else (),
        booked=summary is not None,
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
