"""The step loop: prompts join a running batch, tokens come out one step at a time, rows leave when they are done.

Token ids in, tokens and captured activations out. A key–value cache is kept for all rows together, padded on the left;
joining and leaving copy it, which is small beside one step's reading of the weights. Does not know clients or scores.
"""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers.decoders import DecodeStream
from torch import Tensor
from transformers import DynamicCache

from attribution.capture import Tap, capturing
from attribution.errors import PromptError
from attribution.records import FinishReason, Generation, Sampling, Step

__all__ = ["Batch", "taps", "unfinished_character"]


class _Row:
    """One request in the batch: what it asked, what it has been given, and what was captured on the way."""

    def __init__(self, key: str, prompt_ids: Sequence[int], sampling: Sampling, tokenizer: Any, device: Any) -> None:
        self.key = key
        self.prompt_ids = list(prompt_ids)
        self.sampling = sampling
        self.token_ids: list[int] = []
        self.pieces: list[str] = []
        self.logprobs: list[float] = []
        self.finish_reason: FinishReason | None = None
        self.captured: dict[str, list[Tensor]] = {}
        self._sent = 0
        self._tokenizer = tokenizer
        # A stream begun with text that ends torn gives that text out as if it were new.
        torn = tokenizer.decode(self.prompt_ids, skip_special_tokens=True).endswith("\ufffd")
        self._stream = DecodeStream(ids=[] if torn else self.prompt_ids, skip_special_tokens=True)
        self._generator = torch.Generator(device=device)
        if sampling.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(sampling.seed)

    def choose(self, logits: Tensor) -> tuple[int, float]:
        """The next token and its log-probability at the temperature used, from logits (vocabulary,)."""
        log_p = torch.log_softmax(logits.float() / self.sampling.scoring_temperature, -1)
        if self.sampling.temperature == 0:
            token = int(log_p.argmax())
        else:
            p, order = log_p.exp().sort(descending=True)
            p[p.cumsum(0) - p >= self.sampling.top_p] = 0  # the smallest set that reaches top_p
            token = int(order[torch.multinomial(p, 1, generator=self._generator)])
        return token, float(log_p[token])

    def emit(self, token: int, logprob: float, ends: set[int]) -> Step:
        """Take a token and return what can be shown now: text that may begin a stop string is held back."""
        self.token_ids.append(token)
        self.logprobs.append(logprob)
        self.pieces.append(self._stream.step(self._tokenizer, token) or "")
        text = "".join(self.pieces)
        cut = min((at for at in (text.find(stop) for stop in self.sampling.stop) if at >= 0), default=None)
        if token in ends or cut is not None:
            self.finish_reason = "stop"
        elif len(self.token_ids) >= self.sampling.max_new_tokens:
            self.finish_reason = "length"
        if self.finish_reason and cut is None:
            rest = unfinished_character(self._tokenizer, self.token_ids, text)
            self.pieces[-1] += rest
            text += rest
        if cut is not None:
            shown = cut
        elif self.finish_reason:
            shown = len(text)
        else:
            shown = max(self._sent, len(text) - max((len(stop) - 1 for stop in self.sampling.stop), default=0))
        delta, self._sent = text[self._sent : shown], shown
        return Step(self.key, token, logprob, delta, self.finish_reason)

    def generation(self) -> Generation:
        text = "".join(self.pieces)
        emitting = len(self.token_ids)  # the last token was never fed, so the captured rows are one for each token
        tensors = {name: torch.cat(parts) for name, parts in self.captured.items()}
        return Generation(
            prompt_token_ids=tuple(self.prompt_ids),
            token_ids=tuple(self.token_ids),
            tokens=tuple(self.pieces),
            logprobs=tuple(self.logprobs),
            text=text[: self._sent] if self.finish_reason else text,
            finish_reason=self.finish_reason,
            sampling=self.sampling,
            tail_input=tensors["tail_input"][: len(self.prompt_ids) + emitting - 1]
            if "tail_input" in tensors
            else None,
            block_input=tensors["block_input"][:emitting],
            o_proj_input=tensors["o_proj_input"][:emitting],
            o_proj_output=tensors["o_proj_output"][:emitting],
        )


class Batch:
    """Continuous batching at the iteration level over one federated model; one thread owns it.

    `join` runs the prompt through the model, `step` gives every joined row one token, `leave` takes a row out.
    """

    def __init__(self, model: Any) -> None:
        """`model` is a `FederatedModel`."""
        self._model = model
        self._rows: dict[str, _Row] = {}
        self._running: list[_Row] = []  # rows of the cache, in its order
        self._joining: list[tuple[_Row, DynamicCache, Tensor]] = []
        self._cache: DynamicCache | None = None
        self._mask = torch.zeros(0, 0, dtype=torch.long, device=model.device)  # (rows, length), 0 where padded
        self._taps = taps(model)

    def __len__(self) -> int:
        """Rows that still want tokens."""
        return len(self._running) + len(self._joining)

    def join(self, key: str, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Run a prompt through the model; its first token comes with the next step.

        Raises:
            PromptError: the prompt is empty, or prompt and `max_new_tokens` exceed the model's context.
        """
        context = self._model.context_length
        if not prompt_ids:
            raise PromptError("the prompt is empty; at least one token is needed")
        if len(prompt_ids) + sampling.max_new_tokens > context:
            raise PromptError(
                f"the prompt has {len(prompt_ids)} tokens and {sampling.max_new_tokens} more may be generated,"
                f" but the model's context holds {context}"
            )
        assert key not in self._rows, f"row {key!r} has joined already"
        row = _Row(key, prompt_ids, sampling, self._model.backend_tokenizer, self._model.device)
        cache = DynamicCache()
        ids = torch.tensor([row.prompt_ids], device=self._model.device)
        with torch.inference_mode(), capturing(self._taps) as seen:
            logits = self._model.network(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
        for name, tensor in seen.items():
            row.captured[name] = [tensor[0] if name == "tail_input" else tensor[0, -1:]]
        self._rows[key] = row
        self._joining.append((row, cache, logits[0, -1]))

    def step(self) -> list[Step]:
        """One token for every row that has not ended."""
        choices = list(zip(self._running, self._forward(), strict=True)) if self._running else []
        for row, cache, logits in self._joining:
            self._merge(row, cache)
            choices.append((row, logits))
        self._joining.clear()
        steps = [row.emit(*row.choose(logits), self._model.end_token_ids) for row, logits in choices]
        self._drop({row.key for row in self._running if row.finish_reason})
        return steps

    def leave(self, key: str) -> Generation:
        """Take a row out, whether or not it has ended, with all that was generated so far."""
        row = self._rows.pop(key)
        self._joining = [waiting for waiting in self._joining if waiting[0] is not row]
        self._drop({key})
        return row.generation()

    def _forward(self) -> Tensor:
        """Feed each running row its last token: logits (rows, vocabulary) of the next."""
        device = self._model.device
        ids = torch.tensor([[row.token_ids[-1]] for row in self._running], device=device)
        positions = self._mask.sum(1, keepdim=True)
        self._mask = torch.cat([self._mask, torch.ones_like(positions)], dim=1)
        padded = None if bool(self._mask.all()) else self._mask
        with torch.inference_mode(), capturing(self._taps) as seen:
            logits: Tensor = self._model.network(
                input_ids=ids,
                position_ids=positions,
                attention_mask=padded,
                past_key_values=self._cache,
                use_cache=True,
            ).logits
        for name, tensor in seen.items():
            for row, rows_of_tensor in zip(self._running, tensor, strict=True):
                row.captured[name].append(rows_of_tensor)
        return logits[:, -1]

    def _merge(self, row: _Row, cache: DynamicCache) -> None:
        """Append a prefilled row to the running batch, padding the shorter side on the left."""
        length = cache.get_seq_length()
        mask = torch.ones(1, length, dtype=torch.long, device=self._mask.device)
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            total = max(length, self._mask.shape[1])
            self._mask = torch.cat([_left_padded(self._mask, total, 1), _left_padded(mask, total, 1)])
            for running, joining in zip(self._cache.layers, cache.layers, strict=True):
                for side in ("keys", "values"):
                    both = [_left_padded(getattr(layer, side), total, 2) for layer in (running, joining)]
                    setattr(running, side, torch.cat(both))
        self._running.append(row)

    def _drop(self, keys: set[str]) -> None:
        """Forget the cache rows of `keys`, and the columns that no row needs any more."""
        kept = [index for index, row in enumerate(self._running) if row.key not in keys]
        if len(kept) == len(self._running):
            return
        self._running = [self._running[index] for index in kept]
        if not kept:
            self._cache, self._mask = None, self._mask[:0, :0]
            return
        assert self._cache is not None
        index = torch.tensor(kept, device=self._mask.device)
        self._mask = self._mask[index]
        used = int(self._mask.sum(1).max())
        self._mask = self._mask[:, -used:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[index][:, :, -used:]
            layer.values = layer.values[index][:, :, -used:]


def taps(model: Any) -> dict[str, Tap]:
    """Where a `FederatedModel` is tapped while it decodes, by the names of `Generation`'s tensors."""
    layers = model.layers
    taps = {
        "block_input": Tap(layers.last_block, "input"),
        "o_proj_input": Tap(layers.o_proj, "input"),
        "o_proj_output": Tap(layers.o_proj, "output"),
    }
    if model.first_block is not None:
        after_last = model.first_block == len(layers.blocks)
        taps["tail_input"] = Tap(layers.norm if after_last else layers.blocks[model.first_block], "input")
    return taps


def unfinished_character(tokenizer: Any, token_ids: Sequence[int], text: str) -> str:
    """What tokens that end within a character decode to beyond the `text` that was streamed: the last token's."""
    whole: str = tokenizer.decode(list(token_ids), skip_special_tokens=True)
    return whole[len(text) :] if whole.startswith(text) else ""


def _left_padded(tensor: Tensor, length: int, dimension: int) -> Tensor:
    missing = length - tensor.shape[dimension]
    if not missing:
        return tensor
    shape = list(tensor.shape)
    shape[dimension] = missing
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dimension)
