"""Parameters of OpenAI and of vLLM that are no fields of our requests: which are accepted all the same.

One that we do not support is refused by name when it would change the result, and accepted when it asks for what we do
anyway (`best_of: 1`) or changes nothing in the text (`user`).
"""

from collections.abc import Mapping
from typing import Any

from pydantic_core import PydanticCustomError

HARMLESS = frozenset(
    {
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)
"""Parameters of OpenAI that change nothing in the text: accepted and left unread."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),  # vLLM's, which takes a model's own where none is given
    "response_format": ({"type": "text"},),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),  # of text completions: `logprobs` says there how many
    "verbosity": (),
    "web_search_options": (),
}
"""Parameters that would change the result, each with the values that ask for what we do anyway."""


def refusal(kind: str, param: str, message: str) -> PydanticCustomError:
    """A refusal that names the parameter at fault."""
    return PydanticCustomError(kind, "{message}", {"param": param, "message": message})


def require_supported(given: Mapping[str, Any]) -> None:
    """Refuse what is unknown, or would change the result in a way that we do not support.

    Raises:
        PydanticCustomError: names the first such parameter.
    """
    for name, value in given.items():
        if name in HARMLESS:
            continue
        if name not in NEUTRAL:
            raise refusal("unknown_parameter", name, f"unknown parameter {name!r}")
        if not _is_neutral(name, value):
            raise refusal("unsupported_parameter", name, f"parameter {name!r} is not supported by this service")


def _is_neutral(name: str, value: Any) -> bool:
    # `True == 1` in Python, but `n: true` is no number: the type must agree, save that 0 and 0.0 are one number.
    return value is None or any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in NEUTRAL[name]
    )
