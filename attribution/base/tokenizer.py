"""What a tokenizer does not tell by itself: how much text a token can stand for, and its panics as errors.

So texts too long for a model are told without tokenising. Does not know a model's context.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers.pre_tokenizers import ByteLevel


def longest_token_bytes(tokenizer: Any) -> int | None:
    """The most bytes of UTF-8 that one token of a tokenizer of the `tokenizers` library stands for; None if unbounded.

    Bounded is byte-level BPE which takes the text as it is: each byte is a letter of its alphabet, and each letter is
    in exactly one token. A normaliser, a token for the unknown, or an added token that swallows the space around it
    may stand for any number of bytes.
    """
    document = json.loads(tokenizer.to_str())
    model, added = document["model"], document["added_tokens"]
    lossless = (
        model["type"] == "BPE"
        and document["normalizer"] is None
        and _keeps_every_byte(document["pre_tokenizer"])
        and model["vocab"].keys() >= set(ByteLevel.alphabet())
        and not model.get("continuing_subword_prefix")
        and not model.get("end_of_word_suffix")
        and not any(token["lstrip"] or token["rstrip"] for token in added)
    )
    if not lossless:
        return None
    letters = max(map(len, model["vocab"]))  # a letter of the alphabet is a byte
    return max([letters, *(len(token["content"].encode()) for token in added)])


def _keeps_every_byte(step: Any) -> bool:
    """Whether a pre-tokenizer turns bytes into letters one by one, and drops none."""
    if step is None:
        return False
    steps = step["pretokenizers"] if step["type"] == "Sequence" else [step]
    *before, last = steps
    splits = all(
        each["type"] == "Digits" or (each["type"] == "Split" and each["behavior"] != "Removed") for each in before
    )
    return splits and last["type"] == "ByteLevel"


@contextmanager
def panics_raised() -> Iterator[None]:
    """Within, a panic of the tokenizer's Rust code, which is no `Exception`, is a RuntimeError like any other."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"the tokenizer panicked: {error}") from error
