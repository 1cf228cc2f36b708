"""What leaves this package: a step of decoding, a finished generation, an attributed response. All frozen.

Does not know HTTP, receipts or credit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from attribution.errors import PromptError

FinishReason = Literal["stop", "length"]
Method = Literal["paper", "credit"]


MOST_TOP_LOGPROBS = 20
_MOST_PENALTY = 2.0
_MOST_BIAS = 100.0


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens, in the words of OpenAI's API and of vLLM. `temperature` 0 is greedy, and `top_p` 0 too.

    To the logit of a token, first, its `logit_bias` is added; then `frequency_penalty` is taken off for each time that
    the response holds it already, and `presence_penalty` once if it does (the prompt does not count). The logits are
    then divided by `temperature`, and of the distribution that they make there are kept, in the order of transformers:
    the `top_k` likeliest tokens (0: all); of these, made to sum to 1 again, the smallest set that reaches `top_p`; and
    of these, what has at least `min_p` times the probability of the likeliest. Greedy choice takes the likeliest after
    bias and penalties.

    **Log-probabilities** are those of the model's own distribution, log softmax(logits / `scoring_temperature`): of the
    whole vocabulary, before bias, penalties and truncation. They are what is scored, since clients taught the model and
    not what an application asks of the choice; at `temperature` 0 they are taken at temperature 1.

    Attributes:
        seed: of the random numbers, one for each token; the same request with the same seed says the same. None takes
            a new one.
        stop: strings that end the response before them.
        logit_bias: what is added to logits, by token id.
        top_logprobs: how many of the likeliest tokens a `Step` tells, with their log-probabilities.
        tells_logprobs: whether anybody is told log-probabilities; who decodes elsewhere computes none where not.

    Raises:
        PromptError: naming the setting that is out of range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int = 0
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    top_logprobs: int = 0
    tells_logprobs: bool = True

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise PromptError(f"max_new_tokens is {self.max_new_tokens}; at least 1 is needed", "max_tokens")
        if self.temperature != 0 and not 0.01 <= self.temperature <= 2:  # NaN fails too
            raise PromptError(f"temperature is {self.temperature}; it must be 0 or lie in 0.01 to 2", "temperature")
        for name in ("top_p", "min_p"):
            _require_between(name, getattr(self, name), 0, 1)
        if self.top_k < 0:
            raise PromptError(f"top_k is {self.top_k}; it must be at least 1, or 0 for all tokens", "top_k")
        for name in ("frequency_penalty", "presence_penalty"):
            _require_between(name, getattr(self, name), -_MOST_PENALTY, _MOST_PENALTY)
        for token, bias in self.logit_bias.items():
            if token < 0:
                raise PromptError(f"logit_bias names token {token}; token ids begin at 0", "logit_bias")
            _require_between("logit_bias", bias, -_MOST_BIAS, _MOST_BIAS, f" of token {token}")
        _require_between("top_logprobs", self.top_logprobs, 0, MOST_TOP_LOGPROBS)
        if self.seed is not None and not -(2**63) <= self.seed < 2**63:
            raise PromptError(f"seed is {self.seed}; it must fit 64 bits", "seed")
        if "" in self.stop:
            raise PromptError("stop holds an empty string; it would end every response at once", "stop")

    @property
    def scoring_temperature(self) -> float:
        """The temperature at which log-probabilities are taken and scored."""
        return self.temperature or 1.0


@dataclass(frozen=True)
class Step:
    """One generated token of one row: its id, log-probability, the text it completes, and why the row ended.

    `top_logprobs` holds the likeliest tokens at its place, as many as `Sampling` asks, each with its log-probability,
    likeliest first; both are of the distribution that `Sampling` describes.
    """

    key: str
    token_id: int
    logprob: float
    text: str
    finish_reason: FinishReason | None
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Generation:
    """One decoded response and what attribution needs of it; tensors have one row per position fed to the model.

    `tail_input` (S, width) is the input of the first changed block, None where the embedding itself was changed or
    nobody wanted it; `block_input`, `o_proj_input`, `o_proj_output` (T, …) are the last block's, at the T emitting
    positions, and empty where nobody wanted them.
    """

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    logprobs: tuple[float, ...]
    text: str
    finish_reason: FinishReason | None
    sampling: Sampling
    tail_input: Tensor | None
    block_input: Tensor
    o_proj_input: Tensor
    o_proj_output: Tensor

    @property
    def captured_bytes(self) -> int:
        """Memory of all that was captured."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._tensors if tensor is not None)

    def without_captures(self) -> "Generation":
        """The same response, scored from its token ids alone."""
        nothing = torch.empty(0)
        return replace(self, tail_input=None, block_input=nothing, o_proj_input=nothing, o_proj_output=nothing)

    @property
    def _tensors(self) -> tuple[Tensor | None, ...]:
        return self.tail_input, self.block_input, self.o_proj_input, self.o_proj_output


@dataclass(frozen=True)
class AttributedResponse:
    """A response with its scores and shares.

    `scores` are signed, per client and token (None where only the response was scored); `response_scores` are their
    sums. `shares` are non-negative and sum to 1 with `base_share`; `base_shares` is β_j per token. `gain` is
    log p_global − log p_base of the response in nats and `completeness_error` is |gain − Σ scores|; both are None
    under `paper`, which has no such identity.
    """

    prompt_token_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    text: str
    method: Method
    settings: Mapping[str, Any]
    version: str
    scores: Mapping[str, tuple[float, ...]] | None
    response_scores: Mapping[str, float]
    shares: Mapping[str, float]
    base_share: float
    base_shares: tuple[float, ...]
    gain: float | None
    completeness_error: float | None


def _require_between(name: str, value: float, least: float, most: float, of: str = "") -> None:
    """Refuse a setting out of its range; NaN is out of every range."""
    if not least <= value <= most:
        raise PromptError(f"{name}{of} is {value}; it must lie in {least:g} to {most:g}", name)
