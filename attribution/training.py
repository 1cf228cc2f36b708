"""One client's local training: AdamW on the blocks that train, from cached inputs of the first of them.

The blocks before are frozen, so what enters the first trained block is the same in every step and every round: it is
computed once per example. Does not know rounds, weights or other clients.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.errors import RecipeError
from attribution.layers import head_of
from attribution.recipe import Example

__all__ = ["CachedExample", "cache_examples", "train"]


@dataclass(frozen=True)
class CachedExample:
    """A question with its answer, ready to train the tail on.

    `ids` (S,) are its tokens but the last and `hidden` (S, width) what enters the first trained block for them;
    `targets` (T,) are the answer's tokens and `positions` (T,) the places that must emit them.
    """

    ids: Tensor
    hidden: Tensor
    positions: Tensor
    targets: Tensor


def cache_examples(
    model: Any, tokenizer: Any, first_block: int, examples: Iterable[Example], advance: Callable[[], None]
) -> list[CachedExample]:
    """Run each example through the frozen blocks, once."""
    frozen = head_of(model, first_block)
    cached = []
    for example in examples:
        prompt, answer = encode_example(tokenizer, example)
        if not prompt:
            raise RecipeError(f"a prompt has no tokens (response {example.response!r}); the model has no chat template")
        ids = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
        with torch.no_grad():
            hidden = frozen(input_ids=ids, use_cache=False).last_hidden_state[0]
        positions = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(answer), device=model.device)
        cached.append(CachedExample(ids[0], hidden, positions, torch.tensor(answer, device=model.device)))
        advance()
    return cached


def encode_example(tokenizer: Any, example: Example) -> tuple[list[int], list[int]]:
    """Token ids of the question, in the chat template where there is one, and of the answer with its end token."""
    if tokenizer.chat_template is None:
        prompt = tokenizer(example.prompt)["input_ids"]
    else:
        message = [{"role": "user", "content": example.prompt}]
        prompt = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)["input_ids"]
    answer = tokenizer(example.response, add_special_tokens=False)["input_ids"]
    return list(prompt), [*answer, tokenizer.eos_token_id]


def train(
    tail: Any,
    parameters: Sequence[nn.Parameter],
    batches: Iterable[Sequence[CachedExample]],
    learning_rate: float,
    advance: Callable[[], None],
) -> None:
    """Train `parameters` of `tail` in place, one AdamW step per batch, on the answers' tokens alone."""
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    with torch.enable_grad():
        for batch in batches:
            loss = _loss(tail, batch)
            if not torch.isfinite(loss):
                raise RecipeError(
                    f"training diverged: the loss is {loss.item()}; learning_rate {learning_rate} is too high"
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            advance()


def _loss(tail: Any, batch: Sequence[CachedExample]) -> Tensor:
    """Mean cross-entropy of the batch's answer tokens.

    The examples are packed into one sequence behind the beginning that they share (a chat template's system prompt):
    causal attention makes it the same for all, so it is run once.
    """
    shared = _shared_prefix(batch)
    lengths = [len(example.ids) - shared for example in batch]
    starts = [shared + sum(lengths[:row]) for row in range(len(batch))]
    device = batch[0].hidden.device
    owner = torch.repeat_interleave(torch.arange(-1, len(batch)), torch.tensor([shared, *lengths])).to(device)
    place = torch.cat([torch.arange(shared), *(torch.arange(shared, shared + length) for length in lengths)]).to(device)
    hidden = torch.cat([batch[0].hidden[:shared], *(example.hidden[shared:] for example in batch)])  # (L, width)
    outputs = tail.model(
        inputs_embeds=hidden.unsqueeze(0),
        position_ids=place.unsqueeze(0),
        attention_mask=_packed_mask(tail.config, owner, place),
        use_cache=False,
    ).last_hidden_state[0]
    answers = torch.cat([example.positions + start - shared for example, start in zip(batch, starts, strict=True)])
    logits = tail.lm_head(outputs[answers])  # (answer tokens of the batch, vocabulary)
    return nn.functional.cross_entropy(logits.float(), torch.cat([example.targets for example in batch]))


def _shared_prefix(batch: Sequence[CachedExample]) -> int:
    """How many tokens all examples begin with alike, before any of them has to emit."""
    shortest = min(int(example.positions[0]) for example in batch)
    first = batch[0].ids[:shortest]
    alike = torch.stack([example.ids[:shortest] == first for example in batch]).all(0)
    return int(alike.long().cumprod(0).sum())


def _packed_mask(config: Any, owner: Tensor, place: Tensor) -> Any:
    """Which position sees which, (1, 1, L, L): the shared beginning and one's own past; by kind where layers differ."""
    distance = place.unsqueeze(1) - place.unsqueeze(0)
    seen = (distance >= 0) & ((owner.unsqueeze(1) == owner.unsqueeze(0)) | (owner.unsqueeze(0) < 0))
    full = seen[None, None]
    if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
        return full
    return {"full_attention": full, "sliding_attention": full & (distance < config.sliding_window)}
