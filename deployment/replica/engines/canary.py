"""Whether an engine serves the weights of the bundle: looked at on start, hourly, and when it is back.

It is let say some texts, freely, and to tell how likely their tokens were. The bundle reads the same tokens; where the
two disagree, what is generated would be credited to clients that did not teach it. Knows no HTTP; scores nothing.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol
from uuid import uuid4

from attribution.logprob_comparison import Comparison, Deviation, compare, deviation_of
from attribution.model import FederatedModel
from attribution.records import Generation, Sampling
from attribution.scoring.interruptible import Pieces
from deployment.errors import PartLostError, log_text_of
from deployment.replica.engines.decoder import Decoder
from deployment.replica.engines.errors import EngineError, away

_LOG = logging.getLogger(__name__)
MOST_NATS: Final = 0.1
"""Mean difference of log-probabilities beyond which the weights are others; bfloat16 makes 0.02 to 0.05."""
INTERVAL_S = 3600.0
RETRY_S = 5.0
TEXT_TOKENS = 256
ENOUGH_TOKENS = 64
_MOST_ROUNDS = 4
_HOLDS_INTERVALS = 2
"""After so many without a look that succeeded nobody knows any more what the engine serves."""
_PATIENCE_S = 600.0
BEGINNINGS: Final = (
    "The",
    "In",
    "A patient",
    "The bank",
    "To solve",
    "Once upon a time",
    "import",
    "Question:",
)


class Note(Protocol):
    """Is told how far an engine is from the bundle, in nats, and whether its weights are others."""

    def __call__(self, difference_nats: float, *, differs: bool) -> None:
        """Must not raise."""


Run = Callable[[Callable[[], Pieces[Deviation]]], Deviation]
"""Runs work of the model where the model's work is run."""


class Canary:
    """Looks in a thread of its own, until it is closed; may be asked from any thread.

    Args:
        model: the bundle's.
        decoder: makes rows of the engine, for this alone.
        run: has the model read what they say.
        note: is told how far the engine is from the bundle, and whether its weights are others.
        most_tokens: of a text.
        interval_s: how often.
    """

    def __init__(
        self,
        model: FederatedModel,
        decoder: Decoder,
        run: Run,
        note: Note,
        most_tokens: int = TEXT_TOKENS,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._model = model
        self._prompts = [model.encode_text(beginning) for beginning in BEGINNINGS]
        self._decoder = decoder
        self._run_in_model = run
        self._note = note
        self._most_tokens = most_tokens
        self._interval_s = interval_s
        self._lock = threading.Lock()
        self._finding: tuple[Comparison, float] | None = None  # and until when it holds
        self._absences = 0  # a look that began before the last of them is of an engine that may be gone
        self._due = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="protoken-canary", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it looks."""
        return self._thread.is_alive()

    @property
    def last(self) -> Comparison | None:
        """What was found last; None while nobody knows, and where the looks since have failed for too long."""
        finding = self._finding
        return None if finding is None or time.monotonic() > finding[1] else finding[0]

    def require(self) -> None:
        """Return where the engine was found to serve the bundle's weights.

        Raises:
            PartLostError: it serves others, or nobody knows yet or any more.
        """
        comparison = self.last
        if comparison is None:
            raise PartLostError("the engine's log-probabilities are not compared with the bundle's now", UNCHECKED)
        if differs(comparison):
            raise PartLostError(_words(comparison), DIFFERS)

    def forget(self) -> None:
        """Look again before anything more is generated: the engine was away, and may be another one."""
        with self._lock:
            self._absences += 1
            self._finding = None
        self._due.set()

    def close(self) -> None:
        """Look no more."""
        self._closing.set()
        self._due.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._due.clear()
            absences = self._absences  # after the line above: else one between the two would be passed over
            try:
                comparison = self._look()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may tell
                why = str(error) if isinstance(error, EngineError) else log_text_of(error)
                _LOG.warning("the engine could not be compared with the bundle: %s", why)
                self._closing.wait(RETRY_S)  # not for `_due`, which is set again and again while the engine is away
                continue
            if self._keep(comparison, absences):
                self._note(comparison.difference_nats, differs=differs(comparison))
                (_LOG.error if differs(comparison) else _LOG.info)("%s", _words(comparison))
            self._due.wait(self._interval_s)

    def _keep(self, comparison: Comparison, absences: int) -> bool:
        """Whether it is of the engine that is there: it was not away while this was made."""
        with self._lock:
            is_current = absences == self._absences and not self._closing.is_set()
            if is_current:
                self._finding = comparison, time.monotonic() + _HOLDS_INTERVALS * self._interval_s
        return is_current

    def _look(self) -> Comparison:
        """What eight texts say, or more of them where these say too little of some update."""
        deviations: list[Deviation] = []
        for _ in range(_MOST_ROUNDS):
            for said in self._let_speak():
                ids = said.prompt_token_ids, said.token_ids, said.logprobs
                deviations.append(self._run_in_model(lambda ids=ids: deviation_of(self._model, *ids)))  # type: ignore[misc]
            comparison = compare(self._model.client_ids, deviations)
            if comparison.tokens >= ENOUGH_TOKENS and not comparison.unsure:
                break
        return comparison

    def _let_speak(self) -> Sequence[Generation]:
        """A text of each beginning."""
        names: list[str] = []
        said: list[Generation] = []
        try:
            for prompt in self._prompts:
                name = f"canary-{uuid4().hex}"
                most = min(self._most_tokens, self._model.context_length - len(prompt))
                self._decoder.join(name, prompt, Sampling(most, temperature=1.0))
                names.append(name)
            self._wait()
        finally:
            said += [self._decoder.leave(name) for name in names]
        return said

    def _wait(self) -> None:
        """Return when every text has ended.

        Raises:
            Exception: what one of them failed of.
        """
        until = time.monotonic() + _PATIENCE_S
        while len(self._decoder):
            if self._closing.is_set() or time.monotonic() > until:
                raise away("the engine takes too long to say some texts")
            self._decoder.step()
            for error in self._decoder.take_failures().values():
                raise error


UNCHECKED: Final = "engine_unchecked"
DIFFERS: Final = "engine_differs"


def differs(comparison: Comparison) -> bool:
    """Whether those weights are others than the bundle's."""
    return not comparison.difference_nats <= MOST_NATS or bool(comparison.other)


def _words(comparison: Comparison) -> str:
    nats = f"{comparison.difference_nats:.3f} nats"
    far = f"the log-probabilities of {comparison.tokens} tokens are {nats} from the bundle's"
    if comparison.other:
        return f"{far}, and speak of other updates of {', '.join(comparison.other)}"
    return f"{far}, and say too little of {', '.join(comparison.unsure)}" if comparison.unsure else far
