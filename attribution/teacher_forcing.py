"""A response that somebody else wrote, read by the model as if it had generated it: for auditing and for tracing.

Where nobody wrote one the model is asked. Does not score.
"""

from collections.abc import Sequence

import torch
from tokenizers.decoders import DecodeStream

from attribution.base.tokenizer import panics_raised
from attribution.decoding.capture import capture
from attribution.decoding.decode import Batch
from attribution.decoding.prompt_limits import require_readable
from attribution.decoding.row import unfinished_character
from attribution.decoding.taps import taps
from attribution.model import FederatedModel
from attribution.records import Generation, Sampling


def generation_of(prompt_ids: Sequence[int], token_ids: Sequence[int], temperature: float = 0.0) -> Generation:
    """A response as ids alone, which is all that `credit` needs of it: no text, no log-probabilities, no captures."""
    nothing = torch.empty(0)
    return Generation(
        prompt_token_ids=tuple(prompt_ids),
        token_ids=tuple(token_ids),
        tokens=(),
        logprobs=(),
        text="",
        finish_reason=None,
        sampling=Sampling(max_new_tokens=len(token_ids), temperature=temperature),
        tail_input=None,
        block_input=nothing,
        o_proj_input=nothing,
        o_proj_output=nothing,
    )


def forced_generation(
    model: FederatedModel, prompt_ids: Sequence[int], token_ids: Sequence[int], temperature: float = 0.0
) -> Generation:
    """What decoding would have returned, had it emitted exactly `token_ids`: one pass over the whole sequence.

    Raises:
        PromptError: prompt or response is empty.
        ContextLengthError: together they exceed the model's context.
    """
    prompt, tokens = list(prompt_ids), list(token_ids)
    require_readable(model, prompt, tokens)
    sampling = Sampling(max_new_tokens=len(tokens), temperature=temperature)
    ids = torch.tensor([[*prompt, *tokens[:-1]]], device=model.device)
    emitting = torch.arange(len(prompt) - 1, ids.shape[1], device=model.device)
    with torch.inference_mode(), capture(taps(model)) as seen:
        logits = model.network(input_ids=ids, use_cache=False, logits_to_keep=emitting).logits[0]
    log_p = torch.log_softmax(logits.float() / sampling.scoring_temperature, -1)
    emitted = torch.tensor(tokens, device=model.device)
    ends = tokens[-1] in model.end_token_ids
    pieces = _pieces(model, tokens)
    return Generation(
        prompt_token_ids=tuple(prompt),
        token_ids=tuple(tokens),
        tokens=tuple(pieces),
        logprobs=tuple(log_p.gather(-1, emitted.unsqueeze(-1)).squeeze(-1).tolist()),
        text="".join(pieces),
        finish_reason="stop" if ends else "length",
        sampling=sampling,
        tail_input=seen["tail_input"][0] if "tail_input" in seen else None,
        block_input=seen["block_input"][0, emitting],
        o_proj_input=seen["o_proj_input"][0, emitting],
        o_proj_output=seen["o_proj_output"][0, emitting],
    )


def response_to(
    model: FederatedModel, prompt_ids: Sequence[int], token_ids: Sequence[int] | None, max_new_tokens: int
) -> Generation:
    """The response to a prompt that somebody gives; where that is None, the model's own, without sampling.

    Raises:
        PromptError: prompt or response is empty.
        ContextLengthError: together they exceed the model's context.
    """
    if token_ids is not None:
        return forced_generation(model, prompt_ids, token_ids)
    batch = Batch(model)
    batch.join("alone", prompt_ids, Sampling(max_new_tokens=max_new_tokens))
    while len(batch):
        batch.step()
    return batch.leave("alone")


def require_response(
    model: FederatedModel, prompt_ids: Sequence[int], token_ids: Sequence[int] | None, max_new_tokens: int
) -> None:
    """Refuse at once what `response_to` would refuse."""
    if token_ids is None:
        Batch(model).check(prompt_ids, Sampling(max_new_tokens=max_new_tokens))
    else:
        require_readable(model, prompt_ids, token_ids)


def _pieces(model: FederatedModel, tokens: Sequence[int]) -> list[str]:
    """Each token's part of the text, as it would have been streamed."""
    stream = DecodeStream(skip_special_tokens=True)
    with panics_raised():
        pieces = [stream.step(model.backend_tokenizer, token) or "" for token in tokens]
    pieces[-1] += unfinished_character(model.backend_tokenizer, tokens, "".join(pieces))
    return pieces
