"""One client's local training: AdamW on the blocks that train, from cached inputs of the first of them.

The blocks before are frozen, so what enters the first trained block is the same in every step and every round: it is
computed once per example. Does not know rounds, weights or other clients.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.base.layers import head_of
from attribution.errors import RecipeError
from attribution.files.untrusted import in_one_line
from attribution.training.recipe import Example

_CACHED_AT_ONCE = 8


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
    model: Any,
    tokenizer: Any,
    first_block: int,
    examples: Sequence[Example],
    advance: Callable[[], None],
    max_tokens: int | None = None,
) -> list[CachedExample]:
    """Run each example, cut to `max_tokens`, through the frozen blocks, once.

    Raises:
        RecipeError: a prompt has no tokens, or leaves no room for an answer.
    """
    frozen = head_of(model, first_block)
    encoded = [encode_example(tokenizer, example, max_tokens) for example in examples]
    cached = []
    for start in range(0, len(encoded), _CACHED_AT_ONCE):
        part = encoded[start : start + _CACHED_AT_ONCE]
        ids = [torch.tensor([*prompt, *answer[:-1]], device=model.device) for prompt, answer in part]
        packing = _pack(ids, [len(prompt) - 1 for prompt, _ in part])
        with torch.no_grad():
            packed = packing.run(frozen, input_ids=packing.join(ids).unsqueeze(0))
        for (prompt, answer), own, hidden in zip(part, ids, packing.split(packed), strict=True):
            positions = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(answer), device=model.device)
            cached.append(CachedExample(own, hidden, positions, torch.tensor(answer, device=model.device)))
            advance()
    return cached


def encode_example(tokenizer: Any, example: Example, max_tokens: int | None = None) -> tuple[list[int], list[int]]:
    """Token ids of the question, in the chat template where there is one, and of the answer with its end token."""
    if tokenizer.chat_template is None:
        prompt = tokenizer(example.prompt)["input_ids"]
    else:
        prompt = _in_template(tokenizer, example.prompt)
    if not prompt:
        raise RecipeError(f"a prompt has no tokens (response {example.response!r}); the model has no chat template")
    if max_tokens is not None and len(prompt) >= max_tokens:
        raise RecipeError(
            f"a prompt of {len(prompt)} tokens leaves no room for its answer under max_tokens {max_tokens}:"
            f" {example.prompt[:60]!r}"
        )
    if tokenizer.eos_token_id is None:
        raise RecipeError("the base model's tokenizer names no end token (eos_token), so that no answer could end")
    answer = tokenizer(example.response, add_special_tokens=False)["input_ids"]
    room = None if max_tokens is None else max_tokens - len(prompt)
    return list(prompt), [*answer, tokenizer.eos_token_id][:room]


def _in_template(tokenizer: Any, prompt: str) -> list[int]:
    """The question as the base model's chat template puts it, which is a program of whoever made the model."""
    message = [{"role": "user", "content": prompt}]
    try:
        encoded = tokenizer.apply_chat_template(message, add_generation_prompt=True, return_dict=True)
    except Exception as error:
        raise RecipeError(f"the base model's chat template refuses {prompt[:60]!r}: {in_one_line(error)}") from error
    return list(encoded["input_ids"])


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
    """Mean cross-entropy of the batch's answer tokens."""
    packing = _pack([example.ids for example in batch], [int(example.positions[0]) for example in batch])
    hidden = packing.join([example.hidden for example in batch])  # (L, width)
    outputs = packing.run(tail.model, inputs_embeds=hidden.unsqueeze(0))
    answers = [example.positions + start - packing.shared for example, start in zip(batch, packing.starts, strict=True)]
    logits = tail.lm_head(outputs[torch.cat(answers)])  # (answer tokens of the batch, vocabulary)
    return nn.functional.cross_entropy(logits.float(), torch.cat([example.targets for example in batch]))


@dataclass(frozen=True)
class _Packing:
    """Several examples in one sequence, behind the beginning that they share (a chat template's system prompt).

    Causal attention makes the `shared` first positions the same for all, so they are run once. `starts` is where each
    example goes on; `owner` (L,) is whose each position is, −1 where shared; `place` (L,) its position in the example.
    """

    shared: int
    starts: tuple[int, ...]
    owner: Tensor
    place: Tensor

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """One tensor (L, …) of the examples' own (S, …)."""
        return torch.cat([parts[0][: self.shared], *(part[self.shared :] for part in parts)])

    def split(self, packed: Tensor) -> list[Tensor]:
        """The examples' own tensors (S, …) of a packed one (L, …)."""
        ends = [*self.starts[1:], len(packed)]
        return [
            torch.cat([packed[: self.shared], packed[start:end]]) for start, end in zip(self.starts, ends, strict=True)
        ]

    def run(self, decoder: Any, **inputs: Tensor) -> Tensor:
        """The decoder's last hidden state (L, width), each example seeing the shared beginning and its own past."""
        outputs = decoder(
            **inputs, position_ids=self.place.unsqueeze(0), attention_mask=self._mask(decoder.config), use_cache=False
        )
        hidden: Tensor = outputs.last_hidden_state[0]
        return hidden

    def _mask(self, config: Any) -> Any:
        """Which position sees which, (1, 1, L, L); by kind of layer where some have a sliding window."""
        distance = self.place.unsqueeze(1) - self.place.unsqueeze(0)
        same = self.owner.unsqueeze(1) == self.owner.unsqueeze(0)
        full = ((distance >= 0) & (same | (self.owner.unsqueeze(0) < 0)))[None, None]
        if "sliding_attention" not in (getattr(config, "layer_types", None) or ()):
            return full
        return {"full_attention": full, "sliding_attention": full & (distance < config.sliding_window)}


def _pack(ids: Sequence[Tensor], first_emitting: Sequence[int]) -> _Packing:
    """Pack examples of token ids (S,) each; nothing is shared from the first position that has to emit."""
    shortest = min(first_emitting)
    alike = torch.stack([own[:shortest] == ids[0][:shortest] for own in ids]).all(0)
    shared = int(alike.long().cumprod(0).sum())
    lengths = [len(own) - shared for own in ids]
    owner = torch.repeat_interleave(torch.arange(-1, len(ids)), torch.tensor([shared, *lengths]))
    place = torch.cat([torch.arange(shared), *(torch.arange(shared, shared + length) for length in lengths)])
    starts = tuple(shared + sum(lengths[:row]) for row in range(len(ids)))
    return _Packing(shared, starts, owner.to(ids[0].device), place.to(ids[0].device))
