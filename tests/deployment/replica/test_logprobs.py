"""What an application is told of single tokens: their true bytes, and none before the text that it begins."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from attribution.records import FinishReason, Step
from deployment.replica.logprobs import LOWEST, LogprobLine, TokenTexts

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
END = len(LETTERS)


def byte_level() -> Any:
    """A tokenizer of one token per byte, with an end."""
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(LETTERS)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<end>", special=True)])
    return tokenizer


def pieces() -> Any:
    """A tokenizer of pieces, with bytes for what has none."""
    vocabulary = {"\u2581cat": 0, "s": 1, "<0xC3>": 2, "<0xBC>": 3}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


BYTES = TokenTexts(byte_level(), {END})


def step(token_id: int, text: str = "", reason: FinishReason | None = None) -> Step:
    """One token of a row."""
    return Step("r", token_id, -1.0, text, reason, ((token_id, -1.0),))


def ids_of(text: str) -> list[int]:
    """Its bytes as tokens."""
    ids: list[int] = byte_level().encode(text).ids
    return ids


def test_every_byte_is_told_as_it_is() -> None:
    """All 256 of them; what is no character by itself is text all the same."""
    assert list(range(256)) == sorted(BYTES.bytes_of(number)[0] for number in range(END))
    (first, _) = ids_of("\u00fc")
    assert ("\ufffd", (0xC3,)) == (BYTES.likely(first, -1.0).token, BYTES.likely(first, -1.0).bytes)


def test_pieces_bytes_and_added_tokens_are_told_by_what_they_stand_for() -> None:
    """A mark for a space is a space, a byte is a byte, an added token its name; what is no token says nothing."""
    texts = TokenTexts(pieces(), set())
    assert [b" cat", b"s", b"\xc3", b"\xbc", b""] == [texts.bytes_of(number) for number in (0, 1, 2, 3, 99)]
    assert b"<end>" == BYTES.bytes_of(END)


def test_what_is_next_to_impossible_is_a_number_of_json() -> None:
    """Minus infinity is told as OpenAI does."""
    assert LOWEST == BYTES.likely(3, float("-inf")).logprob


def told_by(line: LogprobLine, texts: Iterable[str], last: str) -> list[bytes]:
    """The bytes of what is told for these pieces of text, and with the last."""
    told = [each for text in texts for each in line.tell(text)] + list(line.tell_rest(last))
    return [bytes(each.bytes) for each in told]


@given(st.text(max_size=30), st.integers(0, 30), st.booleans())
def test_tokens_of_a_whole_response_join_to_its_text(text: str, shown: int, ends: bool) -> None:
    """Wherever the text is cut into pieces; the token that only ends it is not told."""
    line = LogprobLine(BYTES)
    ids = ids_of(text)
    for place, token_id in enumerate(ids):
        line.add(step(token_id, reason="length" if not ends and place == len(ids) - 1 else None))
    if ends:
        line.add(step(END, reason="stop"))
    assert text.encode() == b"".join(told_by(line, [text[:shown]], text[shown:]))


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=5), st.integers(0, 20))
def test_nothing_of_a_stop_string_is_told(text: str, stop: str, shown: int) -> None:
    """The text before it is, and no more."""
    line = LogprobLine(BYTES)
    ids = ids_of(text + stop)
    for place, token_id in enumerate(ids):
        line.add(step(token_id, reason="stop" if place == len(ids) - 1 else None))
    assert text.encode() == b"".join(told_by(line, [text[:shown]], text[shown:]))


@pytest.mark.parametrize("held", [0, 3])
def test_no_token_is_told_before_the_text_that_it_begins(held: int) -> None:
    """What is held back, in case a stop string begins in it, is held back token by token."""
    line = LogprobLine(BYTES)
    for token_id in ids_of("abcdef"):
        line.add(step(token_id))
    assert 6 - held == len(line.tell("abcdef"[: 6 - held]))
