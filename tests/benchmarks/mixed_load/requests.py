"""What callers ask for: good requests of every kind, bad ones with the answer each must get. Pure."""

from dataclasses import dataclass
from random import Random
from typing import Any

COMPLETIONS = "/completions"


@dataclass(frozen=True)
class BadRequest:
    """A request that must be refused, and how.

    Attributes:
        status: the answer.
        body: of the request; a string is sent as it is.
        key: in place of the caller's; None for the caller's own.
    """

    status: int
    body: dict[str, Any] | str
    key: str | None = None


def good_body(model: str, chance: Random) -> dict[str, Any]:
    """A text completion, no two alike: streamed or not, greedy or sampled, with attribution or without."""
    streamed = chance.random() < 0.7
    return {
        "model": model,
        "prompt": f"{chance.randrange(10**9)} bottles stood on the wall, and",
        "max_tokens": chance.randint(2, 40),
        "temperature": chance.choice([0, 0.7, 1.0, 2.0]),
        "attribution": chance.choice(["none", "none", "summary", "tokens"]),
        "stream": streamed,
    } | ({"stream_options": {"include_usage": True}} if streamed else {})


def bad_requests(model: str) -> list[BadRequest]:
    """One of each kind that an application gets wrong."""
    good = {"model": model, "prompt": "Hello", "max_tokens": 2}
    return [
        BadRequest(400, good | {"nonsense": 1}),
        BadRequest(400, good | {"temperature": 9}),
        BadRequest(400, good | {"prompt": ""}),
        BadRequest(400, good | {"max_tokens": 10**6}),
        BadRequest(400, "{"),
        BadRequest(404, good | {"model": "nobody"}),
        BadRequest(401, good, key="pk-nobody"),
    ]
