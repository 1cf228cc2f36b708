"""The Ray Serve deployment that holds the model: one consortium's rounds, and events to their callers.

Thin on purpose: what happens to a job is `worker`'s business, which bundle it is given is `rollout`'s, what a score is
`attribution`'s.
"""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import ray

from deployment.cluster.core_files import forbid_core_files
from deployment.cluster.loopback import listen_on_own_address
from deployment.cluster.machine import require_given
from deployment.errors import RETRY_AFTER_S, WorkerDiedError
from deployment.health.faults import Watch
from deployment.health.places import ledger_folder
from deployment.metrics.replica import ReplicaMetrics
from deployment.replica.booking.booking_queue import BookingQueue
from deployment.replica.booking.recovery import Recovery
from deployment.replica.bundles.publication_index import PublishedBundles
from deployment.replica.bundles.rollout import Rounds
from deployment.replica.bundles.served_round import ReplicaBooks, RoundLoader
from deployment.replica.event_stream import EventStream
from deployment.replica.failures import ledger_failure
from deployment.replica.messages import Event, Failed, Finished, Job, Report
from deployment.replica.scoring.scorer import ask_scorers
from deployment.settings import Settings
from deployment.spool.spool import Spool
from rewards.errors import LedgerError
from rewards.ledger.ledger import Ledger
from rewards.sampled_credit.keys import SamplingKeys
from rewards.store.continuity import Continuity

STOP_TIMEOUT_S = 60.0


class Replica:
    """Owns the model of one consortium. Wrapped as a Serve deployment in `app`, which sets its resources.

    Args:
        settings: of the service.
        consortium: whose model.
        bundle: the folder that the settings name for it.

    Raises:
        StartError: the machine is not what the settings say, or has too little memory for the bundle.
        BundleError: the bundle is missing, altered or malformed.
        LedgerError: the ledger is missing or not at head.
        SpoolError: the spool's folder cannot be written.
    """

    def __init__(self, settings: Settings, consortium: str, bundle: Path) -> None:
        forbid_core_files()
        listen_on_own_address()
        require_given(settings, ray.get_runtime_context().get_assigned_resources())
        self._metrics = ReplicaMetrics(consortium)
        self._ledger = Ledger(settings.replica_ledger or settings.ledger)
        self._sampling = SamplingKeys(self._ledger.database)
        self._spool = Spool(ledger_folder(settings.spool, self._ledger))
        self._bookings = BookingQueue(self._ledger, self._spool, self._metrics.lag)
        books = ReplicaBooks(self._sampling, self._spool, self._bookings)
        self._rounds = Rounds(
            PublishedBundles(self._ledger.database, consortium, settings.bundles),
            bundle,
            RoundLoader(settings, books, self._metrics, ask_scorers() if settings.scorers else None),
            books,
            lambda is_served: self._metrics.note_publication(is_served=is_served),
        )
        self._watch = Watch(
            {
                "ledger": Continuity(self._ledger.database).check,
                "spool": self._spool.check,
                "bundle": self._rounds.check,
                **self._rounds.engine_checks,
            }
        )
        self._recovery = Recovery(self._spool, self._bookings, self._ledger, self._rounds.knows, self._rounds.attribute)

    async def report(self) -> Report:
        """How this replica is."""
        return Report(self._rounds.card, tuple((fault.code, fault.message) for fault in self._watch.faults))

    async def generate(self, job: Job) -> AsyncGenerator[Event, None]:
        """Events of one response. A caller that goes away cancels the job at the next await."""
        for fault in self._watch.faults:
            yield Failed(503, fault.message, fault.code, retry_after_s=RETRY_AFTER_S)
            return
        try:
            self._sampling.rule(self._rounds.card.name, job.created_at_us)
        except LedgerError:
            yield ledger_failure()
            return
        events = EventStream(asyncio.get_running_loop())
        worker = self._rounds.submit(job, events.put)
        try:
            while True:
                event = await events.take()
                yield event
                if isinstance(event, Finished | Failed):
                    return
        finally:
            worker.cancel(job.response_id)

    def check_health(self) -> None:
        """Called by Serve now and then.

        Raises:
            WorkerDiedError: a thread has ended, or hangs; Serve replaces the replica, and the next one takes over its
                spool.
        """
        for part in (self._rounds, self._bookings, self._recovery):
            if not part.alive:
                raise WorkerDiedError(f"the thread of {type(part).__name__} died, or hangs; see the replica's log")

    def __del__(self) -> None:
        """Called by Serve when the replica stops: what cancelled jobs had generated is still booked."""
        if hasattr(self, "_recovery"):
            self._watch.close()
            self._rounds.stop(STOP_TIMEOUT_S)
            self._recovery.close()
            self._bookings.close()
            self._spool.close()
            self._ledger.close()
            self._metrics.close()
