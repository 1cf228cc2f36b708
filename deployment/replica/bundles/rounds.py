"""The rounds of one consortium in a replica: the one that is served, and those that still end what they began.

What is published takes the place of what is served once it is in memory: whoever comes then is served by it, whoever
was there ends where he began, and is scored and booked there. What a dead process generated with an earlier round is
scored with that round's bundle, which is loaded for it. At most one round is in memory beside the one that is served.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from attribution.bundle.bundle import manifest_of
from attribution.errors import BundleError
from deployment.health.parts import Check
from deployment.replica.active_request import Deliver
from deployment.replica.bundles.published import POLL_S, PublishedBundles
from deployment.replica.bundles.served_round import ReplicaBooks, ServedRound
from deployment.replica.messages import Job, ModelCard
from deployment.replica.recovery import book_unscored
from deployment.replica.worker import Worker
from deployment.spool.records import ProgressRecord
from rewards.errors import CreditError, LedgerError
from rewards.store.publications import Publication

_LOG = logging.getLogger(__name__)
RETRY_S = 30.0
"""After how long a bundle is tried again that could not be loaded."""
PATIENCE_S = 3600.0
"""After so long without its bundle, a response is the commons'."""
_STOP_S = 60.0
_SHORT = 8  # digits of a hash by which people tell rounds apart


class Load(Protocol):
    """Brings the bundle of a folder into memory: `RoundLoader`, or what stands in for it."""

    def __call__(self, folder: Path, *, serves: bool) -> ServedRound:
        """To be served, or only to score what was generated with it."""


@dataclass
class _Leftover:
    """A response of a dead process whose round is not in memory, since when."""

    progress: ProgressRecord
    since: float = field(default_factory=time.monotonic)


class Rounds:
    """Follows what is published until it is stopped; takes jobs from any thread.

    Args:
        published: what was published, and where it lies.
        own: the folder that the service's setting names, served where nothing was published.
        load: brings a bundle into memory.
        books: where receipts of responses go that nobody can score.
        tell: is told, again and again, whether what was published last is served.
        poll_s: how often it looks what is published.
        patience_s: how long a response waits for the bundle that generated it, where that cannot be loaded.

    Raises:
        AttributionError: no bundle that was published can be loaded; this is of the newest one.
        LedgerError: the ledger cannot be read.
    """

    def __init__(
        self,
        published: PublishedBundles,
        own: Path,
        load: Load,
        books: ReplicaBooks,
        tell: Callable[[bool], None],
        *,
        poll_s: float = POLL_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._published = published
        self._load = load
        self._books = books
        self._tell = tell
        self._poll_s = poll_s
        self._patience_s = patience_s
        self._lock = threading.Lock()
        self._fault: str | None = None
        self._failed: dict[str, float] = {}  # hash of a model that could not be loaded -> when to try again
        self._current = self._first(own)
        self._ending: list[ServedRound] = []
        self._idle: list[ServedRound] = []  # of these, the ones that had nothing to do a while ago
        self._leftovers: list[_Leftover] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="protoken-rounds", daemon=True)
        self._thread.start()

    @property
    def card(self) -> ModelCard:
        """What is served."""
        return replace(self._current.card, fault=self._fault)

    @property
    def alive(self) -> bool:
        """Whether all rounds in memory work, and what is published is followed."""
        with self._lock:
            return self._thread.is_alive() and all(each.alive for each in (self._current, *self._ending))

    @property
    def engine_checks(self) -> Mapping[str, Check]:
        """What is watched of the engine: that of the first round, as only an engine of our own changes rounds."""
        return self._current.engine_checks

    def check(self) -> None:
        """Return where the files of the bundle that is served are as they were; raises as `parts.bundle` does."""
        self._current.check()

    def submit(self, job: Job, deliver: Deliver) -> Worker:
        """Give a job to the round that is served; the worker that has it, which can cancel it."""
        with self._lock:  # so that no round ends between the choice and the job
            worker = self._current.worker
            worker.submit(job, deliver)
        return worker

    def knows(self, model_sha256: str) -> bool:
        """Whether what that model generated can be scored here, now or later."""
        with self._lock:
            if any(each.card.global_sha256 == model_sha256 for each in (self._current, *self._ending)):
                return True
        try:
            return bool(self._published.folders(model_sha256))
        except LedgerError:
            return True  # later it will show

    def attribute(self, progress: ProgressRecord) -> None:
        """Score and book what a dead process generated, by the round that did; until then it stays in the spool."""
        with self._lock:
            if not self._recover(progress):
                self._leftovers.append(_Leftover(progress))

    def stop(self, timeout_s: float) -> None:
        """Refuse new jobs, book what was generated so far, and end every thread."""
        self._closing.set()
        self._thread.join(timeout_s)
        for each in (*self._ending, self._current):
            each.stop(timeout_s)

    def _first(self, own: Path) -> ServedRound:
        """The newest publication that can be loaded, so that a bad one keeps nobody from starting again."""
        standing = self._published.standing()
        errors: list[Exception] = []
        for publication in standing:
            try:
                served = self._load_model(publication.model_sha256, serves=True)
            except Exception as error:  # noqa: BLE001 - whatever it is, the one before may do
                _LOG.error("the bundle in %s is published and cannot be served: %s", publication.bundle, error)
                errors.append(error)
            else:
                self._note(standing[0] if errors else None)
                return served
        if errors:
            raise errors[0]
        return self._load(own, serves=True)

    def _run(self) -> None:
        while not self._closing.wait(self._poll_s):
            for act in (self._follow, self._retire, self._take_in):
                try:
                    act()
                except LedgerError as error:
                    _LOG.debug("what is published cannot be read now: %s", error)
                except Exception:  # noqa: BLE001 - the next look may do; without this thread nothing would follow
                    _LOG.exception("what is published could not be followed")

    def _follow(self) -> None:
        """Serve what was published last."""
        standing = self._published.standing()
        if not standing or standing[0].model_sha256 == self._current.card.global_sha256:
            self._note(None)
        elif not self._go_back_to(standing[0].model_sha256) and not self._ending:
            served = self._try_load(standing[0].model_sha256, serves=True)
            if served is not None:
                self._switch(served)
            self._note(None if served is not None else standing[0])

    def _note(self, unserved: Publication | None) -> None:
        """Remember, and tell, what was published last and is not served."""
        self._fault = None if unserved is None else _fault_of(unserved)
        self._tell(unserved is None)

    def _go_back_to(self, model_sha256: str) -> bool:
        """Serve a round again that still ends what it began; False where none is that."""
        for each in self._ending:
            if each.serves and each.card.global_sha256 == model_sha256:
                self._switch(each)
                return True
        return False

    def _switch(self, served: ServedRound) -> None:
        with self._lock:
            before, self._current = self._current, served
            self._ending = [each for each in (*self._ending, before) if each is not served]
        self._note(None)
        now, then = (each.card.global_sha256[:_SHORT] for each in (served, before))
        _LOG.warning("%s: %s is served now; what %s began it ends", served.card.name, now, then)

    def _retire(self) -> None:
        """Take rounds out of memory that have ended all that they began."""
        over = self._withdraw_idle()
        if over:
            while over:
                _stop(over.pop())
            gc.collect()  # a worker and its threads know each other

    def _withdraw_idle(self) -> list[ServedRound]:
        """Rounds that had nothing to do at two looks, so that nothing was on its way in between; given nothing more."""
        with self._lock:
            idle = [each for each in self._ending if each.alive and each.worker.is_idle]
            over = [each for each in idle if each in self._idle]
            self._idle = [each for each in idle if each not in over]
            self._ending = [each for each in self._ending if each not in over]
        return over

    def _take_in(self) -> None:
        """Score what dead processes left of a round that is not in memory, one round after the other."""
        with self._lock:
            leftovers = self._leftovers = [each for each in self._leftovers if not self._recover(each.progress)]
        scorable = [each.progress.model_sha256 for each in leftovers if self._is_scorable(each)]
        if not scorable or self._ending:
            return
        served = self._try_load(scorable[0], serves=False)
        if served is not None:
            with self._lock:
                self._ending.append(served)
                self._leftovers = [each for each in self._leftovers if not self._recover(each.progress)]

    def _is_scorable(self, leftover: _Leftover) -> bool:
        """Whether a response waits on for its round; where not, it is booked without a score.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        progress = leftover.progress
        rule = self._books.sampling.rule(progress.consortium, progress.created_at_us)
        if rule.is_measured(progress.response_id) and time.monotonic() < leftover.since + self._patience_s:
            return True
        try:
            book_unscored(progress, rule, self._books.bookings)
        except CreditError as error:
            self._books.spool.set_aside(progress.record(), str(error))
        with self._lock:
            self._leftovers.remove(leftover)
        return False

    def _recover(self, progress: ProgressRecord) -> bool:
        """Give a response to its round, where that is in memory; under the lock, so that the round does not end."""
        for each in (self._current, *self._ending):
            if each.card.global_sha256 == progress.model_sha256:
                each.worker.recover(progress)
                return True
        return False

    def _try_load(self, model_sha256: str, *, serves: bool) -> ServedRound | None:
        """A bundle by the hash of its model; None where it cannot be loaded now, which is told once.

        Raises:
            LedgerError: the ledger, which tells where it lies, cannot be read.
        """
        if time.monotonic() < self._failed.get(model_sha256, 0.0):
            return None
        try:
            served = self._load_model(model_sha256, serves=serves)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, what is served goes on
            if model_sha256 not in self._failed:
                _LOG.error("bundle %s cannot be served, and is tried again: %s", model_sha256[:_SHORT], error)
            self._failed[model_sha256] = time.monotonic() + RETRY_S
            return None
        self._failed.pop(model_sha256, None)
        return served

    def _load_model(self, model_sha256: str, *, serves: bool) -> ServedRound:
        """A bundle by the hash of its model, from the first place where it lies.

        Raises:
            BundleError: it lies in none, or is damaged.
            LedgerError: the ledger, which tells the places, cannot be read.
        """
        problems = []
        for folder in self._published.folders(model_sha256):
            try:
                if manifest_of(folder).global_.sha256 == model_sha256:
                    return self._load(folder, serves=serves)
                problems.append(f"{folder} holds another bundle now")
            except BundleError as error:
                problems.append(str(error))
        raise BundleError("; ".join(problems) or f"no bundle with model {model_sha256} was published")


def _stop(served: ServedRound) -> None:
    served.stop(_STOP_S)
    _LOG.warning("%s: %s has ended all that it began", served.card.name, served.card.global_sha256[:_SHORT])


def _fault_of(publication: Publication) -> str:
    """What is told to whoever asks how the service is; names no path."""
    return (
        f"round {publication.round} ({publication.model_sha256[:_SHORT]}) is published and cannot be loaded; "
        "the one before is served"
    )
