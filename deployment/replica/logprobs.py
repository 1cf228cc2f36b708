"""Log-probabilities of a response as its application is told them: token by token, once its text is.

A token is told when the text that it begins is shown, so that nothing of a stop string, or of the end that waits for
its receipt, is told before its time. Knows no batch and no HTTP.
"""

import re
from codecs import getincrementaldecoder
from collections import deque
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any

from attribution.records import Step
from deployment.replica.messages import LikelyToken, TokenLogprob

LOWEST = -9999.0
"""What OpenAI tells of a token that is next to impossible; JSON has no infinity."""
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class TokenTexts:
    """What the tokens of a model say: bytes, which may be a part of a character, and text. Remembered.

    Args:
        tokenizer: of the `tokenizers` library.
        end_token_ids: tokens that say nothing but that the response is over.
    """

    def __init__(self, tokenizer: Any, end_token_ids: AbstractSet[int]) -> None:
        self.end_token_ids = end_token_ids
        self._tokenizer = tokenizer
        self._added: dict[int, str] = {
            number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()
        }
        self._is_byte_level = "ByteLevel" in repr(tokenizer.decoder)
        self.bytes_of = cache(self._bytes_of)

    def likely(self, token_id: int, logprob: float) -> LikelyToken:
        """A token that might have come."""
        octets = self.bytes_of(token_id)
        return LikelyToken(octets.decode(errors="replace"), tuple(octets), max(LOWEST, logprob), token_id)

    def _bytes_of(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        piece: str = self._tokenizer.id_to_token(token_id) or ""  # a model may have more ids than its tokenizer
        if self._is_byte_level:
            return bytes(_BYTE_OF_LETTER[letter] for letter in piece if letter in _BYTE_OF_LETTER)
        if (byte := _BYTE.fullmatch(piece)) is not None:
            return bytes([int(byte[1], 16)])
        return piece.replace("\u2581", " ").encode()


class LogprobLine:
    """The log-probabilities of one response that are still to be told, each with the character that it begins in.

    Args:
        texts: of the model's tokens.
        by_token: whether they are told with their tokens' ids, of each that came, whatever is shown of its text.
    """

    def __init__(self, texts: TokenTexts, *, by_token: bool = False) -> None:
        self._texts = texts
        self._by_token = by_token
        self._line: deque[tuple[int, TokenLogprob]] = deque()
        self._decoder = getincrementaldecoder("utf-8")(errors="replace")
        self._length = self._shown = 0  # characters
        self._is_whole = False  # it ended by no stop string: all of it is text

    def add(self, step: Step) -> None:
        """A token came."""
        is_end = step.token_id in self._texts.end_token_ids
        self._is_whole = step.finish_reason == "length" or is_end
        if is_end and step.finish_reason == "stop" and not self._by_token:
            return
        chosen = self._texts.likely(step.token_id, step.logprob)
        top = tuple(self._texts.likely(*likely) for likely in step.top_logprobs)
        token = TokenLogprob(chosen.token, chosen.bytes, chosen.logprob, chosen.token_id, top)
        self._line.append((self._length, token))
        self._length += len(self._decoder.decode(bytes(chosen.bytes)))

    def tell(self, text: str) -> tuple[TokenLogprob, ...]:
        """Those whose text begins in what is shown now."""
        self._shown += len(text)
        told = []
        while self._line and (self._by_token or self._line[0][0] < self._shown):
            told.append(self._line.popleft()[1])
        return tuple(told)

    def tell_rest(self, text: str) -> tuple[TokenLogprob, ...]:
        """Those that are left, now that the last text is shown; of a stop string none."""
        told = self.tell(text)
        rest = tuple(each for _, each in self._line) if self._is_whole else ()
        self._line.clear()
        return told + rest


def _byte_letters() -> dict[str, int]:
    """The letters for which byte-level BPE takes the bytes: printable ones stand for themselves (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF_LETTER = _byte_letters()
