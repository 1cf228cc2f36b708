"""The scorers as a worker knows them: several are asked at once, and whoever dies loses nothing.

What a scorer was working on when it died is asked for again, with less memory: it may have died of it. Knows no Ray:
how a scorer is asked is given.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from deployment.errors import ServiceError, log_text_of
from deployment.replica.observer import ScoringObserver
from deployment.replica.scoring.messages import BundleUnreadError, Outcome, UnscoredResponse
from deployment.replica.scoring.remote_scoring import ScoringElsewhere
from deployment.replica.scoring.scoring_order import ScoringOrder, ScoringTask

_LOG = logging.getLogger(__name__)
MOST_DEATHS = 5
"""A response under which so many scorers died in turn is not asked for again."""
PATIENCE_S = 3600.0
"""After so long in which no scorer could read its bundle, a response is the commons'."""
RETRY_S = 1.0
_TELL_EVERY_S = 1.0

Ask = Callable[[UnscoredResponse], Outcome]
"""Lets a scorer score a response, and waits for it.

Raises:
    ScorerAwayError: none could be asked.
    ScorerDiedError: it died meanwhile.
"""


class ScorerAwayError(ServiceError):
    """No scorer takes a response now."""


class ScorerDiedError(ServiceError):
    """A scorer ended while it worked on a response."""


class ScorerPool(ScoringElsewhere):
    """Scorers behind a few threads, each of which asks for one response at a time.

    Args:
        ask: lets one be scored.
        observer: is told how long each took, and how many wait.
        bundle: folder of the bundle that generated them.
        manifest_sha256: hash of its manifest.
        served_dtype: in which numbers it was decoded; the receipt says so.
        at_once: how many are asked for together.
    """

    def __init__(
        self,
        ask: Ask,
        observer: ScoringObserver,
        *,
        bundle: Path,
        manifest_sha256: str,
        served_dtype: str,
        at_once: int,
    ) -> None:
        super().__init__()
        self._ask = ask
        self._observer = observer
        self._bundle = bundle
        self._manifest_sha256 = manifest_sha256
        self._served_dtype = served_dtype
        self._told = 0, 0.0
        self._closing = threading.Event()
        self._arrived = threading.Condition()
        self._waiting = ScoringOrder()
        for number in range(at_once):
            threading.Thread(target=self._run, name=f"protoken-scorers-{number}", daemon=True).start()

    def _send(self, task: ScoringTask) -> None:
        with self._arrived:
            self._waiting.put(task)
            self._arrived.notify()
        self._look()

    def _end(self) -> None:
        self._closing.set()
        with self._arrived:
            self._arrived.notify_all()
        self._look()

    def _look(self) -> None:
        """Tell how many wait, when that changes, and once a second while some do."""
        number, now, (before, at) = len(self), time.monotonic(), self._told
        if number != before or (number and now > at + _TELL_EVERY_S):
            self._told = number, now
            self._observer.note_unscored(number, self.lag_s)

    def _run(self) -> None:
        while not self._closing.is_set():
            if (task := self._next()) is None:
                continue
            begun = time.perf_counter()
            outcome = self._outcome(task)
            if outcome is None:
                return
            if not isinstance(outcome, Exception):
                self._observer.note_attribution(time.perf_counter() - begun)
            task.done(outcome)

    def _next(self) -> ScoringTask | None:
        """Whose turn it is, waited for; None where this process ends."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._waiting) or self._closing.is_set())
            return self._waiting.take(urgent=True) or self._waiting.take(urgent=False)

    def _outcome(self, task: ScoringTask) -> Outcome | None:
        """What a scorer makes of a response; None where this process ends first."""
        generation, deaths, unread_since = task.generation, 0, math.inf
        response = UnscoredResponse(
            self._bundle,
            self._manifest_sha256,
            generation.prompt_token_ids,
            generation.token_ids,
            generation.sampling.temperature,
            task.token_level,
        )
        while not self._closing.is_set():
            try:
                outcome = self._ask(replace(response, frugal=deaths > 0))
            except ScorerAwayError as error:
                _LOG.debug("no scorer can be asked: %s", error)
            except ScorerDiedError as error:
                deaths += 1
                _LOG.warning("a scorer died while it worked on a response: %s", log_text_of(error))
                if deaths == MOST_DEATHS:
                    return error
            except Exception as error:  # noqa: BLE001 - this response's, whatever it is
                return error
            else:
                if not isinstance(outcome, BundleUnreadError):
                    return outcome if isinstance(outcome, Exception) else self._told_as_served(task, outcome)
                unread_since = min(unread_since, time.monotonic())
                if time.monotonic() >= unread_since + PATIENCE_S:
                    return outcome
            self._closing.wait(RETRY_S)
        return None

    def _told_as_served(self, task: ScoringTask, response: Outcome) -> Outcome:
        """A score, with the text and the numbers of whoever decoded."""
        assert not isinstance(response, Exception)
        settings = {**response.settings, "served_dtype": self._served_dtype}
        generation = task.generation
        return replace(response, tokens=generation.tokens, text=generation.text, settings=settings)
