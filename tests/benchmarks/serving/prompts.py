"""What is asked: rows of numbers. A chat's answer ends where the model likes, a row goes on to the last token."""

from collections.abc import Iterator
from itertools import count, islice

TERMS = 12


def rows() -> Iterator[str]:
    """Rows of twelve numbers each, about fifty tokens, no two alike."""
    for start in count(3):
        for step in range(2, 12):
            yield f"{', '.join(str(start + step * term) for term in range(TERMS))},"


def prompts_of_levels(levels: list[int], each: int) -> dict[int, list[str]]:
    """For each number of streams its own prompts, so that no level finds another's in a server's cache."""
    fresh = rows()
    return {streams: list(islice(fresh, responses_at(streams, each))) for streams in levels}


def responses_at(streams: int, each: int) -> int:
    """How many responses are asked for: so many of each stream, and never fewer than four of each."""
    return max(each * streams, 4)
