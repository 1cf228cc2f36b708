"""Log-probabilities of tokens in OpenAI's two shapes: that of chat, and the older one of text completions.

They are the model's own at the temperature asked for, before bias, penalties and truncation. Knows no envelope.
"""

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

from deployment.replica.messages import LikelyToken, TokenLogprob

Body = dict[str, Any]


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> Body:
    """`choices[].logprobs` of chat completions."""
    content = [{**_likely(token), "top_logprobs": [_likely(each) for each in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def text_logprobs(tokens: Sequence[TokenLogprob], offset: int) -> Body:
    """`choices[].logprobs` of text completions.

    Places are counted in characters of the answer, of which `offset` came before. What is told of a place has the
    chosen token too, likely or not.
    """
    lengths = (len(token.token) for token in tokens)
    return {
        "tokens": [token.token for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [dict(_with_chosen(token)) for token in tokens] if any(token.top for token in tokens) else None,
        "text_offset": list(accumulate(lengths, initial=offset))[: len(tokens)],
    }


def _likely(token: LikelyToken) -> Body:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.bytes)}


def _with_chosen(token: TokenLogprob) -> Iterator[tuple[str, float]]:
    for each in (*token.top, token):
        yield each.token, each.logprob
