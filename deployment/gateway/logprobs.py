"""Log-probabilities of tokens in OpenAI's two shapes: that of chat, and the older one of text completions.

They are the model's own at the temperature asked for, before bias, penalties and truncation. Knows no envelope.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from deployment.replica.messages import LikelyToken, TokenLogprob

Body = dict[str, Any]


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> Body:
    """`choices[].logprobs` of chat completions."""
    content = [{**_likely(token), "top_logprobs": [_likely(each) for each in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def text_logprobs(tokens: Sequence[TokenLogprob], offset: int, *, by_id: bool = False) -> Body:
    """`choices[].logprobs` of text completions.

    Places are counted in characters of the answer, of which `offset` came before. What is told of a place has the
    chosen token too, likely or not. `by_id` names each token by its id, as vLLM's `return_tokens_as_token_ids` does:
    two of a text may say the same.
    """
    lengths = (len(token.token) for token in tokens)
    return {
        "tokens": [_name(token, by_id=by_id) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{_name(each, by_id=by_id): each.logprob for each in (*token.top, token)} for token in tokens]
        if any(token.top for token in tokens)
        else None,
        "text_offset": list(accumulate(lengths, initial=offset))[: len(tokens)],
    }


def _likely(token: LikelyToken) -> Body:
    return {"token": token.token, "logprob": token.logprob, "bytes": list(token.bytes)}


def _name(token: LikelyToken, *, by_id: bool) -> str:
    return f"token_id:{token.token_id}" if by_id else token.token
