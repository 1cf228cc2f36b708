"""What is sent to an engine, and what a chunk of its answer says: OpenAI's text completions with vLLM's token ids.

Knows shapes only: no connection, and nothing of whether an answer is the right one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attribution.records import Sampling

DONE = b"[DONE]"
_BY_ID = "token_id:"
_LONGEST_MESSAGE = 300
_SECRET = re.compile(r"(?i)bearer\s+\S+|\b(?:sk|ptk)[-_]\S+")


def completion_request(model: str, prompt_ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
    """The body of a request.

    Whatever an engine would otherwise take from the model's own `generation_config` is given. Stop strings are not:
    where they are is our business, as the text is ours.
    """
    is_greedy = sampling.temperature == 0 or sampling.top_p == 0
    body: dict[str, Any] = {
        "model": model,
        "prompt": list(prompt_ids),
        "max_tokens": sampling.max_new_tokens,
        "temperature": 0.0 if is_greedy else sampling.temperature,
        "top_p": 1.0 if is_greedy else sampling.top_p,
        "top_k": sampling.top_k,
        "min_p": sampling.min_p,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "repetition_penalty": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias.items()}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.tells_logprobs:
        body |= {"logprobs": sampling.top_logprobs, "return_tokens_as_token_ids": True}
    return body


@dataclass(frozen=True)
class ToldToken:
    """A token that an engine generated; its log-probability, and the likeliest at its place, where it tells them."""

    token_id: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Chunk:
    """A piece of an engine's answer.

    Attributes:
        tokens: in their order.
        prompt_ids: the prompt as the engine had it; told once.
        has_text: whether there is text in it.
        finish_reason: why the answer ends with it.
        completion_tokens: how many tokens the engine counts; told at the end.
    """

    tokens: tuple[ToldToken, ...] = ()
    prompt_ids: tuple[int, ...] | None = None
    has_text: bool = False
    finish_reason: str | None = None
    completion_tokens: int | None = None


def read_chunk(data: bytes) -> Chunk | str:
    """What the data of an event says: a piece of the answer, or in a text why there is none.

    Raises:
        ValueError: it is neither; says what is wrong.
    """
    body = json.loads(data)
    if not isinstance(body, dict):
        raise ValueError("a chunk is no object")  # noqa: TRY004 - one kind of failure: what was told is wrong
    if body.get("error") is not None:
        return message_of(body)
    choices, usage = body.get("choices") or [{}], body.get("usage") or {}
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise ValueError("a chunk has several choices, or none that can be read")
    (choice,) = choices
    prompt_ids = choice.get("prompt_token_ids") or body.get("prompt_token_ids")
    return Chunk(
        tokens=_tokens(choice.get("token_ids") or (), choice.get("logprobs")),
        prompt_ids=None if prompt_ids is None else _ids(prompt_ids),
        has_text=bool(choice.get("text")),
        finish_reason=choice.get("finish_reason"),
        completion_tokens=usage.get("completion_tokens"),
    )


def message_of(body: Mapping[str, Any]) -> str:
    """What an engine says of an error, as it may be passed on: one line of some length, and no key in it."""
    error = body.get("error")
    told = error.get("message") if isinstance(error, dict) else error or body.get("message")
    if not isinstance(told, str):
        return "no reason is told"
    text = _SECRET.sub("…", "".join(letter if letter.isprintable() else " " for letter in told))
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[:_LONGEST_MESSAGE]}…"


def _tokens(ids: Any, logprobs: Any) -> tuple[ToldToken, ...]:
    numbers = _ids(ids)
    if not isinstance(logprobs, dict):
        return tuple(map(ToldToken, numbers))
    chosen, top = logprobs.get("token_logprobs"), logprobs.get("top_logprobs") or [{}] * len(numbers)
    if not isinstance(chosen, list) or not len(chosen) == len(top) == len(numbers):
        raise ValueError("log-probabilities are told of other tokens than came")
    return tuple(ToldToken(*told) for told in zip(numbers, map(_number, chosen), map(_likeliest, top), strict=True))


def _ids(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, list | tuple) or not all(type(number) is int for number in numbers):
        raise ValueError("token ids are no list of integers")
    return tuple(numbers)


def _number(value: Any) -> float:
    if not isinstance(value, int | float):
        raise ValueError("a log-probability is no number")  # noqa: TRY004 - likewise
    return float(value)


def _likeliest(place: Any) -> tuple[tuple[int, float], ...]:
    """The tokens told of at one place, likeliest first; those that are named by text and not by id are left out."""
    likely = [(int(name[len(_BY_ID) :]), _number(value)) for name, value in place.items() if name.startswith(_BY_ID)]
    return tuple(sorted(likely, key=lambda each: -each[1]))
