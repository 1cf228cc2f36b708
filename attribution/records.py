"""What leaves this package: a step of decoding, a finished generation, an attributed response. All frozen.

Does not know HTTP, receipts or credit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from attribution.errors import PromptError

FinishReason = Literal["stop", "length"]
Method = Literal["paper", "credit"]


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens. `temperature` 0 is greedy, and `top_p` 0 too.

    At `temperature` 0 log-probabilities are taken at temperature 1.

    Raises:
        PromptError: naming the setting that is out of range.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise PromptError(f"max_new_tokens is {self.max_new_tokens}; at least 1 is needed", "max_tokens")
        if self.temperature != 0 and not 0.01 <= self.temperature <= 2:  # NaN fails too
            raise PromptError(f"temperature is {self.temperature}; it must be 0 or lie in 0.01 to 2", "temperature")
        if not 0 <= self.top_p <= 1:
            raise PromptError(f"top_p is {self.top_p}; it must lie in 0 to 1", "top_p")
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
    """One generated token of one row: its id, log-probability, the text it completes, and why the row ended."""

    key: str
    token_id: int
    logprob: float
    text: str
    finish_reason: FinishReason | None


@dataclass(frozen=True)
class Generation:
    """One decoded response and what attribution needs of it; tensors have one row per position fed to the model.

    `tail_input` (S, width) is the input of the first changed block, None where the embedding itself was changed;
    `block_input`, `o_proj_input`, `o_proj_output` (T, …) are the last block's, at the T emitting positions.
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
