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
from dataclasses import replace
from pathlib import Path

from deployment.errors import PartLostError
from deployment.health.watched_parts import Check
from deployment.replica.active_request import Deliver
from deployment.replica.booking.recovery import book_unscored
from deployment.replica.bundles.loading import Load, Loading
from deployment.replica.bundles.publication_index import POLL_S, PublishedBundles
from deployment.replica.bundles.served_round import ReplicaBooks, ServedRound
from deployment.replica.messages import Job, ModelCard
from deployment.replica.worker import Worker
from deployment.spool.records import ProgressRecord
from rewards.errors import CreditError, LedgerError
from rewards.store.publications import Publication

_LOG = logging.getLogger(__name__)
PATIENCE_S = 3600.0
"""After so long without its bundle, which was tried all the while, a response is the commons'."""
WAIT_S = 60.0
"""How long a publication may wait for what ends before that is told."""
_STOP_S = 60.0
_SHORT = 8  # digits of a hash by which people tell rounds apart


class Rounds:
    """Follows what is published until it is stopped; takes jobs from any thread.

    Args:
        published: what was published, and where it lies.
        own: the folder that the service's setting names, served where nothing was published.
        load: brings a bundle into memory.
        books: where receipts of responses go that nobody can score.
        tell: is told, again and again, whether what was published last is served.
        poll_s: how often it looks what is published.
        patience_s: how long the bundle is tried that generated a response, where that cannot be loaded.

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
        self._loading = Loading(published, load, patience_s)
        self._books = books
        self._tell = tell
        self._poll_s = poll_s
        self._lock = threading.Lock()
        self._fault: str | None = None
        self._waiting: tuple[int, float] | None = None  # the publication that waits for what ends, since when
        self._current = self._first(own, load)
        self._ending: list[ServedRound] = []
        self._idle: list[ServedRound] = []  # of these, the ones that had nothing to do a while ago
        self._leftovers: list[ProgressRecord] = []  # of rounds that are not in memory
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
        """Return where the files of the bundle that is served are as they were; raises as `watched_parts.bundle` does.

        Where its folder is gone, another one will do where the same bundle was published.
        """
        current = self._current
        try:
            current.check()
        except PartLostError:
            moved = self._loading.moved_round(current)
            if moved is None:
                raise
            _LOG.warning(
                "%s: the bundle is watched in %s now, not in %s", moved.card.name, moved.folder, current.folder
            )
            with self._lock:
                if self._current is current:
                    self._current = moved

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
                self._leftovers.append(progress)

    def stop(self, timeout_s: float) -> None:
        """Refuse new jobs, book what was generated so far, and end every thread."""
        self._closing.set()
        self._thread.join(timeout_s)
        for each in (*self._ending, self._current):
            each.stop(timeout_s)

    def _first(self, own: Path, load: Load) -> ServedRound:
        """The newest publication that can be loaded, so that a bad one keeps nobody from starting again."""
        standing = self._published.standing()
        errors: list[Exception] = []
        for publication in standing:
            try:
                served = self._loading.load(publication.model_sha256, serves=True)
            except Exception as error:  # noqa: BLE001 - whatever it is, the one before may do
                _LOG.error("the bundle in %s is published and cannot be served: %s", publication.bundle, error)
                errors.append(error)
            else:
                self._note(_fault_of(standing[0]) if errors else None)
                return served
        if errors:
            raise errors[0]
        return load(own, serves=True)

    def _run(self) -> None:
        while not self._closing.wait(self._poll_s):
            # First what has ended: of what is free then, a publication comes before what the dead left.
            for act in (self._retire, self._follow, self._take_in):
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
        elif self._go_back_to(standing[0].model_sha256):
            return
        elif self._ending:
            self._note_wait(standing[0])
        else:
            served = self._loading.attempt(standing[0].model_sha256, serves=True)
            if served is not None:
                self._switch(served)
            self._note(None if served is not None else _fault_of(standing[0]))

    def _note(self, fault: str | None) -> None:
        """Remember, and tell, why what was published last is not served; None where it is."""
        self._fault = fault
        self._tell(fault is None)

    def _note_wait(self, unserved: Publication) -> None:
        """As `_note`, of a publication that waits for what ends, once that has lasted."""
        if self._waiting is None or self._waiting[0] != unserved.sequence:
            self._waiting = unserved.sequence, time.monotonic()
        if time.monotonic() >= self._waiting[1] + WAIT_S:
            ending = self._ending[0].card.global_sha256[:_SHORT]
            self._note(f"{_name_of(unserved)} is published and waits until what {ending} began, or left, has ended")

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
            self._leftovers = [each for each in self._leftovers if not self._recover(each)]
            leftovers = tuple(self._leftovers)
        awaited = dict.fromkeys(each.model_sha256 for each in leftovers if not self._book_unscored(each))
        self._loading.forget_all_but(awaited)
        if self._ending:
            return
        for model_sha256 in awaited:
            served = self._loading.attempt(model_sha256, serves=False)
            if served is not None:
                with self._lock:
                    self._ending.append(served)
                    self._leftovers = [each for each in self._leftovers if not self._recover(each)]
                return

    def _book_unscored(self, progress: ProgressRecord) -> bool:
        """Book a response without a score that needs none, or whose bundle is given up; False where it waits for that.

        Another consortium's waits on: a replica of its own, which takes this one's spool over some day, may have its
        bundle where this one has not.

        Raises:
            LedgerError: the ledger cannot be read.
        """
        rule = self._books.sampling.rule(progress.consortium, progress.created_at_us)
        is_own = progress.consortium == self._current.card.name
        if rule.is_measured(progress.response_id) and not (is_own and self._loading.is_given_up(progress.model_sha256)):
            return False
        try:
            book_unscored(progress, rule, self._books.bookings)
        except CreditError as error:
            self._books.spool.set_aside(progress.record(), str(error))
        with self._lock:
            self._leftovers = [each for each in self._leftovers if each is not progress]
        return True

    def _recover(self, progress: ProgressRecord) -> bool:
        """Give a response to its round, where that is in memory; under the lock, so that the round does not end."""
        for each in (self._current, *self._ending):
            if each.card.global_sha256 == progress.model_sha256:
                each.worker.recover(progress)
                return True
        return False


def _stop(served: ServedRound) -> None:
    served.stop(_STOP_S)
    _LOG.warning("%s: %s has ended all that it began", served.card.name, served.card.global_sha256[:_SHORT])


def _name_of(publication: Publication) -> str:
    return f"round {publication.round} ({publication.model_sha256[:_SHORT]})"


def _fault_of(publication: Publication) -> str:
    """What is told to whoever asks how the service is; names no path."""
    return f"{_name_of(publication)} is published and cannot be loaded; the one before is served"
