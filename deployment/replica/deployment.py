"""The Ray Serve deployment that holds the model: one federated model, one worker thread, events to their callers.

Thin on purpose: what happens to a job is `worker`'s business, what a score is `attribution`'s.
"""

import asyncio
from collections.abc import AsyncGenerator
from functools import partial

import ray
import torch

from attribution.attribute import credit_in_pieces, paper_in_pieces
from attribution.model import FederatedModel
from attribution.scoring.credit_preset import Effort
from deployment.cluster.core_files import forbid_core_files
from deployment.cluster.loopback import listen_on_own_address
from deployment.errors import WorkerDiedError
from deployment.health import parts
from deployment.health.places import ledger_folder
from deployment.health.watch import RETRY_AFTER_S, Watch
from deployment.metrics.replica import ReplicaMetrics
from deployment.replica.booking_queue import BookingQueue
from deployment.replica.capacity import Capacity
from deployment.replica.endings import ledger_failure
from deployment.replica.engines.model_thread import ModelThread
from deployment.replica.engines.parts import engine_of
from deployment.replica.event_stream import EventStream
from deployment.replica.machine import require_given, require_memory
from deployment.replica.messages import Event, Failed, Finished, Job, ModelCard, Report
from deployment.replica.recorder import CreditRecorder
from deployment.replica.recovery import Recovery
from deployment.replica.scoring_queue import ScoringQueue
from deployment.replica.worker import Worker
from deployment.settings import Settings
from deployment.spool.spool import Spool
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from rewards.sampling.keys import SamplingKeys
from rewards.store.continuity import Continuity

STOP_TIMEOUT_S = 60.0


class Replica:
    """Owns the model. Wrapped as a Serve deployment in `app`, which sets its resources.

    Raises:
        StartError: the machine is not what the settings say, or has too little memory for the bundle.
        BundleError: the bundle is missing, altered or malformed.
        LedgerError: the ledger is missing or not at head.
        SpoolError: the spool's folder cannot be written.
    """

    def __init__(self, settings: Settings) -> None:
        forbid_core_files()
        listen_on_own_address()
        require_given(settings, ray.get_runtime_context().get_assigned_resources())
        require_memory(settings)
        thread = ModelThread()
        model = thread.call(partial(_load, settings))
        self._metrics = ReplicaMetrics(model.name)
        self._ledger = Ledger(settings.replica_ledger or settings.ledger)
        self._sampling = SamplingKeys(self._ledger.database)
        self._spool = Spool(ledger_folder(settings.spool, self._ledger))
        self._bookings = BookingQueue(self._ledger, self._spool, self._metrics.lag)
        card = ModelCard(model.name, model.global_sha256, model.client_ids, model.context_length)
        effort = Effort(settings.nodes, settings.tolerance)
        in_pieces = paper_in_pieces if settings.method == "paper" else credit_in_pieces
        scoring = ScoringQueue(model, in_pieces, effort, self._metrics)
        self._engine = engine_of(settings, model, scoring, thread, self._metrics.note_engine)
        recorder = CreditRecorder(
            card,
            sampling=self._sampling,
            scoring=self._engine.scoring,
            spool=self._spool,
            bookings=self._bookings,
            engine=self._engine.marks,
        )
        self._worker = Worker(
            model,
            self._engine.decoder,
            scoring=self._engine.scoring,
            recorder=recorder,
            capacity=Capacity(
                settings.max_batch,
                settings.max_waiting,
                settings.default_max_tokens,
                settings.max_unscored,
                self._engine.max_batch_tokens,
            ),
            observer=self._metrics,
            thread=self._engine.thread,
        )
        self._watch = Watch(
            {
                "ledger": Continuity(self._ledger.database).check,
                "spool": self._spool.check,
                "bundle": parts.bundle("bundle", settings.bundle),
                **self._engine.checks,
            }
        )
        self._recovery = Recovery(self._spool, self._bookings, self._ledger, self._worker.card, self._worker.recover)

    async def report(self) -> Report:
        """How this replica is."""
        return Report(self._worker.card, tuple((fault.code, fault.message) for fault in self._watch.faults))

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response. A caller that goes away cancels the job at the next await."""
        for fault in self._watch.faults:
            yield Failed(503, fault.message, fault.code, retry_after_s=RETRY_AFTER_S)
            return
        try:
            self._sampling.rule(self._worker.card.name, job.created_at_us)
        except LedgerError:
            yield ledger_failure()
            return
        events = EventStream(asyncio.get_running_loop())
        self._worker.submit(job, events.put)
        try:
            while True:
                event = await events.take()
                yield event
                if isinstance(event, Finished | Failed):
                    return
        finally:
            self._worker.cancel(job.response_id)

    def check_health(self) -> None:
        """Called by Serve now and then.

        Raises:
            WorkerDiedError: a thread has ended; Serve replaces the replica, and the next one takes over its spool.
        """
        for part in (self._worker, self._engine, self._bookings, self._recovery):
            if not part.alive:
                raise WorkerDiedError(f"the thread of {type(part).__name__} died; see the replica's log")

    def __del__(self) -> None:
        """Called by Serve when the replica stops: what cancelled jobs had generated is still booked."""
        if hasattr(self, "_recovery"):
            self._watch.close()
            self._worker.stop(STOP_TIMEOUT_S)
            self._engine.close()
            self._recovery.close()
            self._bookings.close()
            self._spool.close()
            self._ledger.close()
            self._metrics.close()


def _load(settings: Settings) -> FederatedModel:
    """The model, in the thread that is to run it: how many threads a parallel loop has is a setting of that thread."""
    torch.set_num_threads(settings.processors)
    is_served = settings.engine.kind == "embedded"
    return FederatedModel.load(
        settings.bundle,
        device=settings.device,
        dtype=settings.serve_dtype if is_served else settings.score_dtype,
        score_dtype=settings.score_dtype,
    )
