"""One client's local training: AdamW on the blocks that train, from cached inputs of the first of them.

The blocks before are frozen, so what enters the first trained block is the same in every step and every round: it is
computed once per example. Does not know rounds, weights or other clients.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from attribution.layers import head_of
from attribution.recipe import Example

__all__ = ["CachedExample", "cache_examples", "train"]


@dataclass(frozen=True)
class CachedExample:
    """What enters the first trained block (S, width), and the answer's tokens with the positions that must emit them."""

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
        ids = torch.tensor([[*prompt, *answer[:-1]]], device=model.device)
        with torch.no_grad():
            hidden = frozen(input_ids=ids, use_cache=False).last_hidden_state[0]
        positions = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(answer), device=model.device)
        cached.append(CachedExample(hidden, positions, torch.tensor(answer, device=model.device)))
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
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            advance()


def _loss(tail: Any, batch: Sequence[CachedExample]) -> Tensor:
    # padded on the right, behind everything that the causal mask lets an answer see: no mask is needed
    hidden = pad_sequence([example.hidden for example in batch], batch_first=True)
    rows = torch.cat([torch.full_like(example.positions, row) for row, example in enumerate(batch)])
    positions = torch.cat([example.positions for example in batch])
    targets = torch.cat([example.targets for example in batch])
    outputs = tail.model(inputs_embeds=hidden, use_cache=False).last_hidden_state
    logits = tail.lm_head(outputs[rows, positions])  # (answer tokens of the batch, vocabulary)
    return nn.functional.cross_entropy(logits.float(), targets)
