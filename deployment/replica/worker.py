"""The one thread that owns a model: jobs join its batch between steps, leave when done, and are booked before they end.

A job's `Finished` is delivered only after its tokens or its receipt are durable, and the last piece of text comes with
it; a job that was cancelled, or that failed, is booked for what had been generated, and no other job notices. Scores
are worked on between the steps. Knows no Ray, no HTTP and no event loop.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from attribution.model import FederatedModel
from attribution.records import Step
from deployment.errors import SpoolError, log_text_of
from deployment.replica.active_request import ActiveRequest, Deliver
from deployment.replica.booking.credit_recorder import CreditRecorder
from deployment.replica.capacity import Capacity
from deployment.replica.engines.decoder import Decoder
from deployment.replica.engines.model_thread import ModelThread
from deployment.replica.failures import disk_failure, failure_of, outcome, overload_failure, stop_failure
from deployment.replica.fair_queue import FairQueue
from deployment.replica.logprobs import LogprobLine, TokenTexts
from deployment.replica.messages import Admitted, Event, Failed, Job
from deployment.replica.observer import Observer
from deployment.replica.prompt_encoding import Encoder
from deployment.replica.scoring.scoring_queue import Scoring
from deployment.spool.records import ProgressRecord

_LOG = logging.getLogger(__name__)
_TURN_S = 0.02
_LAST_SCORES_S = 30.0  # what is not scored by then, another process scores


class Worker:
    """Continuous batching at the iteration level, in a thread of its own.

    `submit`, `cancel` and `recover` may be called from any thread; events are delivered from the worker's, from the
    booking queue's, from those that read prompts, or from the caller's where a job is refused at once.
    """

    def __init__(
        self,
        model: FederatedModel,
        batch: Decoder,
        *,
        scoring: Scoring,
        recorder: CreditRecorder,
        capacity: Capacity,
        observer: Observer,
        thread: ModelThread | None = None,
    ) -> None:
        """`thread` is the one that loaded the model, where that was one of its own."""
        self._batch = batch
        self.card = recorder.card
        self._scoring = scoring
        self._recorder = recorder
        self._capacity = capacity
        self._observer = observer
        self._changed = threading.Condition()
        self._encoder = Encoder(model, batch, capacity.default_max_tokens, self._take_encoded)
        self._texts = TokenTexts(model.backend_tokenizer, model.end_token_ids)
        self._ending = threading.Lock()
        self._encoding: dict[str, ActiveRequest] = {}
        self._waiting: FairQueue[ActiveRequest] = FairQueue()
        self._running: dict[str, ActiveRequest] = {}
        self._cancelled: set[str] = set()
        self._load = 0, 0
        self._joined = 0
        self._recovering: deque[ProgressRecord] = deque()
        self._stopping = False
        self._thread = thread or ModelThread()
        self._thread.end_with(self._run)

    @property
    def alive(self) -> bool:
        """Whether jobs are still being worked on."""
        return self._thread.alive

    @property
    def is_idle(self) -> bool:
        """Whether nothing is decoded, waits, or is still to be scored."""
        return self._load == (0, 0) and not self._recovering and not len(self._scoring)

    def submit(self, job: Job, deliver: Deliver) -> None:
        """Take a job; its events go to `deliver`, the last of them a `Finished` or a `Failed`.

        The first of a streamed job is `Admitted`, once its prompt was read, unless it is refused.
        """
        logprobs = None if job.top_logprobs is None else LogprobLine(self._texts, by_token=job.with_token_ids)
        row = ActiveRequest(job, deliver, logprobs=logprobs)
        with self._changed:
            gone = self._stopping or not self.alive
            refused = stop_failure() if gone else self._refusal(job)
            if refused is None:
                self._encoding[job.response_id] = row
                self._tell_load()
                self._encoder.take(row)
                return
        self._end(row, refused)

    def _refusal(self, job: Job) -> Failed | None:
        """Why there is no place for a job: all are taken, or its application has taken its part of them."""
        in_line = len(self._encoding) + len(self._waiting)
        own = sum(row.job.application == job.application for row in self._encoding.values())
        own += self._waiting.count(job.application)
        why = self._capacity.refusal(running=len(self._running), in_line=in_line, own=own)
        return None if why is None else overload_failure(why, self._waiting.wait_s())

    def cancel(self, response_id: str) -> None:
        """Let a job go: at once when it waits, at the next step when it runs. Nothing happens when it has ended."""
        with self._changed:
            waiting = self._waiting.discard(response_id) or self._encoding.pop(response_id, None)
            if waiting is not None:
                self._tell_load()
                self._end(waiting, None)
            if response_id in self._running:
                self._cancelled.add(response_id)
                self._changed.notify()

    def recover(self, progress: ProgressRecord) -> None:
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

    def _take_encoded(self, row: ActiveRequest, refused: Failed | None) -> None:
        """The prompt of a row was read: it waits for a place in the batch, unless it is refused or let go."""
        with self._changed:
            still = self._encoding.get(row.job.response_id) is row
            if still and refused is None:
                if row.job.streamed:
                    self._deliver(row, Admitted())
                job, cost = row.job, len(row.prompt_ids)
                self._waiting.put(job.application, job.response_id, row, cost=cost, weight=job.weight)
            if still:
                del self._encoding[row.job.response_id]
                self._tell_load()
                self._changed.notify()
        if still and refused is not None:
            self._end(row, refused)

    def _run(self) -> None:
        try:
            while not self._stopping:
                self._admit()
                is_reading, begun = self._batch.is_reading, time.perf_counter()
                self._advance(self._batch.step())
                for response_id, error in self._batch.take_failures().items():
                    self._withdraw(response_id, failure_of(self._running[response_id].job, error))
                self._score(time.perf_counter() - begun, is_reading=is_reading)
            for response_id in list(self._running):
                self._withdraw(response_id, stop_failure())
            self._scoring.finish(_LAST_SCORES_S)
        finally:
            self._abandon()

    def _admit(self) -> None:
        """Wait for work; then let go who was cancelled, and let join whom there is room for."""
        with self._changed:
            self._tell_load()
            self._thread.rest()
            self._changed.wait_for(
                lambda: self._waiting or self._running or self._recovering or len(self._scoring) or self._stopping
            )
            self._thread.beat()
            self._waiting.note_ends(self._joined - len(self._running))
            cancelled, self._cancelled = self._cancelled, set()
            room = self._capacity.max_batch - len(self._running) + len(cancelled & self._running.keys())
            room = min(room, self._capacity.max_unscored - len(self._scoring) - len(self._running))
            joining = [] if self._stopping else self._capacity.take(self._waiting, self._running.values(), room)
            self._running.update({row.job.response_id: row for row in joining})
            self._joined = len(self._running)
            self._tell_load()
        for response_id in cancelled & self._running.keys():
            self._withdraw(response_id)
        for row in joining:
            self._join(row)

    def _score(self, step_s: float, *, is_reading: bool) -> None:
        """Score between steps; while nobody is decoded, in short turns, between which whoever comes is let in."""
        while self._recovering and len(self._scoring) < self._capacity.max_unscored:
            self._recorder.recover(self._recovering.popleft())
        if not len(self._batch):
            self._scoring.advance(_TURN_S)
        else:
            piled_up = 2 * len(self._scoring) > self._capacity.max_unscored
            self._scoring.advance_after(step_s, is_reading=is_reading, piled_up=piled_up)

    def _join(self, row: ActiveRequest) -> None:
        assert row.sampling is not None, "a row waits only once its prompt was read"
        try:
            self._batch.join(row.job.response_id, row.prompt_ids, row.sampling)
        except Exception as error:  # noqa: BLE001 - this row's, whatever it is
            del self._running[row.job.response_id]
            self._end(row, failure_of(row.job, error))

    def _advance(self, steps: Sequence[Step]) -> None:
        """What a step brought: progress is spooled before its text is shown, and then come the ends."""
        first_s: list[float] = []
        between_s: list[float] = []
        for step in steps:
            row = self._running[step.key]
            seconds = row.take(step)
            (between_s if len(row.token_ids) > 1 else first_s).append(seconds)
        self._observer.note_step(first_s, between_s)
        self._charge([self._running[step.key].job for step in steps])
        ended = [step for step in steps if step.finish_reason is not None]
        self._show([step for step in steps if step.finish_reason is None])
        for step in ended:
            self._finish(self._running[step.key], step.text)

    def _charge(self, jobs: Sequence[Job]) -> None:
        """A token came for each of these: who was served much is served after the others."""
        with self._changed:
            for job in jobs:
                self._waiting.charge(job.application, 1, job.weight)

    def _show(self, steps: Sequence[Step]) -> None:
        """Deliver the texts of rows that go on; a stream whose progress the disk refuses ends here."""
        due = [row for step in steps if (row := self._running[step.key]).is_due]
        try:
            self._recorder.record(due)
        except Exception:  # noqa: BLE001 - whose it is shows when each is recorded apart
            for row in due:
                self._record(row)
        for step in steps:
            if step.text and step.key in self._running:
                row = self._running[step.key]
                try:
                    row.show(step.text)
                except Exception as error:  # noqa: BLE001 - nobody is there to take it
                    _LOG.error("text of response %s finds nobody: %s", step.key, log_text_of(error))
                    self._withdraw(step.key)

    def _record(self, row: ActiveRequest) -> None:
        try:
            self._recorder.record([row])
        except SpoolError as error:
            _LOG.error("response %s ends, as its progress cannot be spooled: %s", row.job.response_id, error)
            self._withdraw(row.job.response_id, disk_failure())
        except Exception as error:  # noqa: BLE001 - this row's, whatever it is
            self._withdraw(row.job.response_id, failure_of(row.job, error))

    def _finish(self, row: ActiveRequest, text: str) -> None:
        """Book a response that ended, and let its last event follow."""
        self._leave(row)
        try:
            self._recorder.finish(row, self._batch.leave(row.job.response_id), text, partial(self._end, row))
        except Exception as error:  # noqa: BLE001 - this row's, whatever it is
            credited = not row.ended and self._recorder.give_up(row, error)
            self._end(row, replace(failure_of(row.job, error), credited=credited))

    def _withdraw(self, response_id: str, why: Failed | None = None) -> None:
        """Take a row out before its end and book what it had; whoever still listens is told `why`."""
        row = self._running[response_id]
        self._leave(row)
        if why is None:  # nobody waits to hear what is booked
            self._end(row, None)

        def tell(credited: bool) -> None:
            self._end(row, why and replace(why, credited=credited))

        try:
            self._recorder.withdraw(row, self._batch.leave(response_id), tell)
        except Exception as error:  # noqa: BLE001 - this row's, whatever it is
            tell(self._recorder.give_up(row, error))

    def _leave(self, row: ActiveRequest) -> None:
        """Give a row's place to another; its end may be told later."""
        with self._changed:
            del self._running[row.job.response_id]

    def _end(self, row: ActiveRequest, event: Event | None) -> None:
        """Count how a row ended, once, and deliver its last event; None when nobody listens any more."""
        with self._ending:
            before, row.ended = row.ended, True
        if before:
            return
        self._observer.note_end(outcome(event), row.seconds)
        if event is not None:
            self._deliver(row, row.with_rest(event))

    def _deliver(self, row: ActiveRequest, event: Event) -> None:
        """Tell a row's caller; one that cannot be told is gone, and keeps nobody else from being told."""
        try:
            row.deliver(event)
        except Exception as error:  # noqa: BLE001 - the caller's, whatever it is
            _LOG.error("response %s finds nobody to tell: %s", row.job.response_id, log_text_of(error))

    def _tell_load(self) -> None:
        """Tell how many run and wait; under the lock, so that the last one told is the last one there was."""
        load = len(self._running), len(self._encoding) + len(self._waiting)
        if load != self._load:
            self._load = load
            self._observer.load(*load)

    def _abandon(self) -> None:
        """The thread ends, as asked or not: whoever still waits is told."""
        with self._changed:
            self._stopping = True
            self._encoder.close()
            left = [*self._running.values(), *self._waiting, *self._encoding.values()]
            for rows in (self._running, self._waiting, self._encoding):
                rows.clear()
            self._tell_load()
        self._scoring.abandon()
        for row in left:
            self._end(row, stop_failure())
