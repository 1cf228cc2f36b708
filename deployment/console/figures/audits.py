"""The independent audit, started from the console: in a thread of its own, one at a time, the last outcome kept.

What an audit checks is the business of `rewards.audit`; this knows who asked, how far it is, and what came of it.
"""

import logging
import threading
from dataclasses import dataclass

from rewards.audit.replay import audit
from rewards.audit.report import Report
from rewards.errors import RewardsError
from rewards.store.database import now_us

_LOG = logging.getLogger(__name__)


class Run:
    """An audit that is under way; the `rewards.audit.report.AuditProgress` that it tells how far it is.

    Attributes:
        actor: id of the key that asked for it.
        started_at_us: when, in microseconds since 1970.
        stage: what `done` and `total` count; empty before anything is counted.
        done: pieces done.
        total: pieces in all.
    """

    def __init__(self, actor: str) -> None:
        self.actor = actor
        self.started_at_us = now_us()
        self.stage = ""
        self.done = 0
        self.total = 0

    def start(self, description: str, total: int) -> None:
        """A stage of `total` pieces begins."""
        self.stage, self.done, self.total = description, 0, total

    def advance(self) -> None:
        """One piece is done."""
        self.done += 1


@dataclass(frozen=True)
class Outcome:
    """An audit that has ended.

    Attributes:
        actor: id of the key that asked for it.
        started_at_us: when it began, in microseconds since 1970.
        ended_at_us: when it ended.
        report: what it found; None where it could not be made.
        failure: why it could not be made; empty where it was.
    """

    actor: str
    started_at_us: int
    ended_at_us: int
    report: Report | None
    failure: str


class Audits:
    """Audits of one ledger, at most one at a time; usable from several threads.

    Args:
        url: of the ledger.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._running: Run | None = None
        self._last: Outcome | None = None

    @property
    def current(self) -> Run | None:
        """The audit that is under way; None when there is none."""
        return self._running

    @property
    def last(self) -> Outcome | None:
        """The audit that ended last; None before the first has."""
        return self._last

    def begin(self, actor: str) -> bool:
        """Begin an audit in the background; False when one is under way, which then goes on."""
        with self._lock:
            if self._running is not None:
                return False
            self._running = Run(actor)
        threading.Thread(target=self._audit, args=(self._running,), name="protoken-audit", daemon=True).start()
        return True

    def _audit(self, run: Run) -> None:
        report, failure = None, ""
        try:
            report = audit(self._url, progress=run)
        except RewardsError as error:
            failure = str(error)
        except Exception:  # noqa: BLE001 - whatever it was, it is told, and the next audit can begin
            _LOG.exception("the audit failed")
            failure = "it failed in a way that nobody foresaw; the service's log tells more"
        with self._lock:
            self._last = Outcome(run.actor, run.started_at_us, now_us(), report, failure)
            self._running = None
