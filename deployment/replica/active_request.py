"""A job on its way through a replica: what was generated, how much of it is spooled, and how much was shown.

Knows its caller; knows no batch, no spool and no score.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from attribution.records import Sampling, Step
from deployment.replica.logprobs import LogprobLine
from deployment.replica.messages import Delta, Event, Finished, Job, TokenIds

PROGRESS_TOKENS = 16
"""A stream's progress is spooled when this many tokens came since the last time."""

Deliver = Callable[[Event], None]


@dataclass
class ActiveRequest:
    """A job on its way: what was generated, how much of it is in the spool, and how much its caller was shown.

    `told` counts the tokens whose ids were told.
    """

    job: Job
    deliver: Deliver
    since: float = field(default_factory=time.perf_counter)
    prompt_ids: tuple[int, ...] = ()
    token_ids: list[int] = field(default_factory=list)
    sampling: Sampling | None = None
    spooled: int = 0
    shown: int = 0
    told: int = 0
    ended: bool = False
    last_token: float | None = None
    logprobs: LogprobLine | None = None

    @property
    def seconds(self) -> float:
        """Time since the job came."""
        return time.perf_counter() - self.since

    @property
    def most_tokens(self) -> int:
        """Tokens of the prompt and those that may be generated: so many places it may need in the model's cache."""
        return len(self.prompt_ids) + (0 if self.sampling is None else self.sampling.max_new_tokens)

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
        self.deliver(Delta(text, () if self.logprobs is None else self.logprobs.tell(text), self._tell_ids()))

    def with_rest(self, event: Event) -> Event:
        """The last event, with the log-probabilities and the ids that are still to be told."""
        if not isinstance(event, Finished):
            return event
        logprobs = () if self.logprobs is None else self.logprobs.tell_rest(event.text)
        return replace(event, logprobs=logprobs, token_ids=self._tell_ids())

    def _tell_ids(self) -> TokenIds | None:
        if not self.job.with_token_ids:
            return None
        told, self.told = self.told, len(self.token_ids)
        return TokenIds(tuple(self.token_ids[told:]), None if told else self.prompt_ids)
