"""Prompts to token ids before a job may wait for the model: in threads of their own, long ones apart from short ones.

So nobody's stream waits for another's prompt to be read, and what is too long is refused before it has a place. Knows
no batch and no HTTP.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from attribution.model import FederatedModel
from attribution.records import Sampling
from deployment.replica.active_request import ActiveRequest
from deployment.replica.engines.decoder import Decoder
from deployment.replica.failures import failure_of, overload_failure
from deployment.replica.messages import Failed, Job, Prompt, PromptIds

SHORT_CHARACTERS = 32_768
"""Prompts up to here are read in tens of milliseconds, and wait for none that is longer."""
ENCODING_PATIENCE_S = 10.0
"""How long a prompt waits to be read, before its job is refused as one too many."""


def encode(model: FederatedModel, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, as the model is run on them.

    Raises:
        PromptError: it is no text, too long, or the model's chat template is missing or refuses it.
    """
    if isinstance(prompt, PromptIds):
        return list(prompt.ids)
    if isinstance(prompt, str):
        return model.encode_text(prompt)
    return model.encode_chat([{"role": message.role, "content": message.content} for message in prompt])


class Encoder:
    """Two threads that read prompts, short ones and long ones.

    Args:
        model: whose tokenizer and template it is; the tokenizers' own code runs beside Python's.
        batch: says what can join it.
        default_max_tokens: the most tokens of a job that does not say.
        done: is told of each row, with its prompt and sampling in it, or why it is refused; from one of the threads.
    """

    def __init__(
        self,
        model: FederatedModel,
        batch: Decoder,
        default_max_tokens: int,
        done: Callable[[ActiveRequest, Failed | None], None],
    ) -> None:
        self._model = model
        self._batch = batch
        self._default_max_tokens = default_max_tokens
        self._done = done
        self._short = ThreadPoolExecutor(1, "protoken-encoder")
        self._long = ThreadPoolExecutor(1, "protoken-long-encoder")
        model.encode_text("")  # what a tokenizer makes ready on its first call is there before threads share it

    def take(self, row: ActiveRequest) -> None:
        """Read the prompt of a row as soon as there is a thread for it.

        Raises:
            RuntimeError: it is closed.
        """
        pool = self._short if _characters(row.job) <= SHORT_CHARACTERS else self._long
        pool.submit(self._read, row)

    def close(self) -> None:
        """Read no more; whoever still waits is told nothing."""
        for pool in (self._short, self._long):
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, row: ActiveRequest) -> None:
        if row.ended:
            return
        if row.seconds > ENCODING_PATIENCE_S:
            self._done(row, overload_failure("too many long prompts wait to be read", math.ceil(row.seconds)))
            return
        try:
            prompt_ids = encode(self._model, row.job.prompt)
            sampling = self._sampling(row.job, len(prompt_ids))
            self._batch.check(prompt_ids, sampling)
        except Exception as error:  # noqa: BLE001 - the row's, whatever it is
            self._done(row, failure_of(row.job, error))
            return
        row.prompt_ids, row.sampling = tuple(prompt_ids), sampling
        self._done(row, None)

    def _sampling(self, job: Job, prompt_tokens: int) -> Sampling:
        """How to choose, and how much: what was asked for, else the default, or less where the context leaves less."""
        room = self._model.context_length - prompt_tokens
        limit = job.max_tokens if job.max_tokens is not None else max(1, min(self._default_max_tokens, room))
        return Sampling(
            limit,
            job.temperature,
            job.top_p,
            job.seed,
            job.stop,
            top_k=job.top_k,
            min_p=job.min_p,
            frequency_penalty=job.frequency_penalty,
            presence_penalty=job.presence_penalty,
            logit_bias=job.logit_bias,
            top_logprobs=job.top_logprobs or 0,
            tells_logprobs=job.top_logprobs is not None,
        )


def _characters(job: Job) -> int:
    match job.prompt:
        case PromptIds():
            return 0  # is read already
        case str() as text:
            return len(text)
        case messages:
            return sum(len(message.content) for message in messages)
