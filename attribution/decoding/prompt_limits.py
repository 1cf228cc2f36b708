"""How long prompts may be, and which tokens there are: what a model could not read or answer is refused before it is.

A text that no tokenizer could make fit is refused before it is taken apart, by `FederatedModel`.
"""

from collections.abc import Sequence

from attribution.decoding.taps import DecodedModel
from attribution.errors import ContextLengthError, PromptError
from attribution.records import Sampling


def require_fit(model: DecodedModel, prompt_ids: Sequence[int], sampling: Sampling) -> None:
    """Refuse a request that the model could not answer whoever decodes; raises as `Batch.check` does."""
    if not prompt_ids:
        raise PromptError("the prompt is empty; at least one token is needed")
    if len(prompt_ids) + sampling.max_new_tokens > model.context_length:
        raise ContextLengthError(
            f"the prompt has {len(prompt_ids)} tokens and {sampling.max_new_tokens} more may be generated,"
            f" but the model's context holds {model.context_length}"
        )
    last = model.layers.lm_head.out_features - 1
    for name, tokens in (("prompt", prompt_ids), ("logit_bias", sampling.logit_bias)):
        if tokens and max(tokens) > last:
            raise PromptError(f"{name} names token {max(tokens)}, but the model's last token is {last}", name)


def require_readable(model: DecodedModel, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> None:
    """Refuse a response that somebody else wrote and the model could not read behind its prompt.

    Raises:
        PromptError: one of the two is empty.
        ContextLengthError: together they exceed the model's context.
    """
    if not prompt_ids or not token_ids:
        raise PromptError(f"the {'response' if prompt_ids else 'prompt'} is empty; at least one token is needed")
    if len(prompt_ids) + len(token_ids) > model.context_length:
        raise ContextLengthError(
            f"prompt and response have {len(prompt_ids) + len(token_ids)} tokens, but the model's context holds"
            f" {model.context_length}"
        )
