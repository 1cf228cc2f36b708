"""The step loop: prompts join a running batch, tokens come out one step at a time, rows leave when they are done.

Token ids in, tokens and captured activations out. A prompt is run through the model in parts, between the steps of the
others; a failure ends the row that it belongs to. Does not know clients or scores.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from attribution.base.layers import Layers
from attribution.decoding.capture import Tap, capture
from attribution.decoding.row import Row
from attribution.decoding.rows_cache import Column, RowsCache, last_column
from attribution.decoding.sampling import Choice, choose_tokens
from attribution.errors import ContextLengthError, PromptError
from attribution.records import Generation, Sampling, Step

_Ready = list[tuple[list[Row], Tensor]]
"""Rows that may have a token, and the logits (rows, vocabulary) to choose them by."""

PROMPT_TOKENS_A_STEP = 128
"""Prompt tokens that are run between two steps of rows that run: on a CPU, a few steps' time."""
PROMPT_TOKENS_A_STEP_ON_GPU = 2048
_ALONE = 4  # while nobody runs, so many times as much: larger parts are faster, and nobody waits but for its own token


class DecodedModel(Protocol):
    """What decoding needs of a `FederatedModel`."""

    network: Any
    layers: Layers
    first_block: int | None

    @property
    def device(self) -> torch.device:
        """Where the network is."""

    @property
    def context_length(self) -> int:
        """Tokens that prompt and response may have together."""

    @property
    def backend_tokenizer(self) -> Any:
        """The fast tokenizer of the `tokenizers` library."""

    @property
    def end_token_ids(self) -> set[int]:
        """Tokens that end a response."""


class Batch:
    """Continuous batching at the iteration level over one federated model; one thread owns it.

    `join` takes a prompt, `step` gives every row whose prompt has been run one token, `leave` takes a row out.
    Whatever fails within a row ends that row: `take_failures` tells of it, or `leave` raises it. A forward pass that
    fails for all is repeated for each row apart.
    """

    def __init__(self, model: DecodedModel, prompt_tokens_a_step: int | None = None) -> None:
        """`prompt_tokens_a_step` None chooses by the model's device."""
        self._model = model
        on_cpu = model.device.type == "cpu"
        self._part = prompt_tokens_a_step or (PROMPT_TOKENS_A_STEP if on_cpu else PROMPT_TOKENS_A_STEP_ON_GPU)
        self._rows: dict[str, Row] = {}
        self._running: list[Row] = []  # rows of the cache, in its order
        self._joining: list[Row] = []  # whose prompts are not run to their end, oldest first
        self._failures: dict[str, Exception] = {}
        self._cache = RowsCache(model.device)
        self._taps = taps(model)

    def __len__(self) -> int:
        """Rows that still want tokens."""
        return sum(not row.gone for row in (*self._running, *self._joining))

    def check(self, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Refuse what could not join; may be called from any thread.

        Raises:
            PromptError: the prompt is empty, or `logit_bias` names a token that the model does not have.
            ContextLengthError: prompt and `max_new_tokens` exceed the model's context.
        """
        context = self._model.context_length
        if not prompt_ids:
            raise PromptError("the prompt is empty; at least one token is needed")
        if len(prompt_ids) + sampling.max_new_tokens > context:
            raise ContextLengthError(
                f"the prompt has {len(prompt_ids)} tokens and {sampling.max_new_tokens} more may be generated,"
                f" but the model's context holds {context}"
            )
        vocabulary = self._model.layers.lm_head.out_features
        for token in sampling.logit_bias:
            if token >= vocabulary:
                raise PromptError(
                    f"logit_bias names token {token}, but the model's last token is {vocabulary - 1}", "logit_bias"
                )

    def join(self, key: str, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Take a prompt; its first token comes with the step that runs the last part of it.

        Raises:
            PromptError: it could not join, as `check` says.
        """
        self.check(prompt_ids, sampling)
        assert key not in self._rows, f"row {key!r} has joined already"
        row = Row(key, prompt_ids, sampling, self._model.backend_tokenizer)
        self._rows[key] = row
        self._joining.append(row)

    def step(self) -> list[Step]:
        """One token for every row that has not ended and whose prompt has been run; then a part of other prompts."""
        ready = [*self._forward(), *self._run_prompts()]
        steps = []
        for row, choice in self._choose(ready):
            try:
                steps.append(row.emit(choice, self._model.end_token_ids))
            except Exception as error:  # noqa: BLE001 - whatever it is, it is this row's
                self._fail(row, error)
        self._drop()
        return steps

    def take_failures(self) -> dict[str, Exception]:
        """Why rows failed that had not left, by key, each told once; what they had can be had by `leave`."""
        failures, self._failures = self._failures, {}
        return failures

    def leave(self, key: str) -> Generation:
        """Take a row out, whether or not it has ended, with all that was generated so far.

        Raises:
            Exception: what the row failed of, where `take_failures` has not told it.
        """
        row = self._rows.pop(key)
        row.gone = True
        self._joining = [waiting for waiting in self._joining if waiting is not row]
        self._drop()
        if key in self._failures:
            raise self._failures.pop(key)
        return row.generation()

    def _choose(self, ready: _Ready) -> list[tuple[Row, Choice]]:
        """A token for each row, for all together; where that fails, for each apart."""
        rows = [row for group, _ in ready for row in group]
        if not rows:
            return []
        try:
            logits = ready[0][1] if len(ready) == 1 else torch.cat([logits for _, logits in ready])
            return list(zip(rows, choose_tokens(logits, [row.draw for row in rows]), strict=True))
        except Exception:  # noqa: BLE001 - whose it is shows when each is chosen for apart
            return self._choose_apart(ready)

    def _choose_apart(self, ready: _Ready) -> list[tuple[Row, Choice]]:
        chosen = []
        for group, logits in ready:
            for index, row in enumerate(group):
                try:
                    chosen += [(row, choice) for choice in choose_tokens(logits[index : index + 1], [row.draw])]
                except Exception as error:  # noqa: BLE001 - this row's, as it was alone
                    self._fail(row, error)
        return chosen

    def _forward(self) -> _Ready:
        """Feed each running row its last token: the logits of its next."""
        if not self._running:
            return []
        assert self._cache.cache is not None
        try:
            logits = self._feed(self._running, self._cache.cache, self._cache.mask)
        except Exception:  # noqa: BLE001 - whose it is shows when each is fed apart
            self._cache.rewind()
            return self._forward_apart()
        self._cache.grow()
        return [(list(self._running), logits)]

    def _forward_apart(self) -> _Ready:
        """The same for each row by itself, so that it is the failing row that fails."""
        chosen: dict[str, Tensor] = {}
        columns: dict[str, Column] = {}
        for index, row in enumerate(self._running):
            try:
                alone = self._cache.copy_row(index)
                used = alone.get_seq_length()
                logits = self._feed([row], alone, self._cache.mask[index : index + 1, -used:])
                chosen[row.key], columns[row.key] = logits, last_column(alone)
            except Exception as error:  # noqa: BLE001 - this row's, as it was alone
                self._fail(row, error)
        self._drop()
        while self._running:
            try:
                self._cache.append([columns[row.key] for row in self._running])
                break
            except Exception as error:  # noqa: BLE001 - there is no room for all: the last to come makes some
                self._fail(self._running[-1], error)
                self._drop()
        return [([row], chosen[row.key]) for row in self._running]

    def _feed(self, rows: Sequence[Row], cache: DynamicCache, mask: Tensor) -> Tensor:
        """One pass of the last tokens of rows, whose cache grows by it: logits (rows, vocabulary)."""
        ids = torch.tensor([[row.token_ids[-1]] for row in rows], device=self._model.device)
        positions = mask.sum(1, keepdim=True)
        mask = torch.cat([mask, torch.ones_like(positions)], dim=1)
        padded = None if bool(mask.all()) else mask
        with torch.inference_mode(), capture(self._taps) as seen:
            logits: Tensor = self._model.network(
                input_ids=ids,
                position_ids=positions,
                attention_mask=padded,
                past_key_values=cache,
                use_cache=True,
            ).logits
        for name, tensor in seen.items():
            for row, rows_of_tensor in zip(rows, tensor, strict=True):
                row.captured[name].append(rows_of_tensor)
        return logits[:, -1]

    def _run_prompts(self) -> _Ready:
        """Run a part of the prompts; whose prompt ends joins the running rows, with the logits of its first token."""
        ready = []
        for row, part in self._parts():
            try:
                logits = self._feed_prompt(row, part)
                if not row.unfed:
                    self._cache.add(row.cache)
                    row.cache = DynamicCache()
                    self._running.append(row)
                    ready.append(([row], logits))
            except Exception as error:  # noqa: BLE001 - this row's
                self._fail(row, error)
        self._joining = [row for row in self._joining if row.unfed and not row.gone]
        return ready

    def _parts(self) -> list[tuple[Row, int]]:
        """Whose prompts are run in this step, and how much of them.

        Half of it is the oldest's, so that it comes to its end; the rest goes to the shortest, so that a short prompt
        does not wait for long ones.
        """
        left = self._part if self._running else self._part * _ALONE
        oldest, others = self._joining[:1], sorted(self._joining[1:], key=lambda row: row.unfed)
        parts = []
        for row in (*oldest, *others):
            most = left // 2 if others and row in oldest else left
            part = min(row.unfed, max(most, 1))
            parts.append((row, part))
            left -= part
            if left <= 0:
                break
        return parts

    def _feed_prompt(self, row: Row, part: int) -> Tensor:
        """Run the next tokens of a prompt: the logits (1, vocabulary) after them."""
        start = len(row.prompt_ids) - row.unfed
        ids = torch.tensor([row.prompt_ids[start : start + part]], device=self._model.device)
        with torch.inference_mode(), capture(self._taps) as seen:
            logits: Tensor = self._model.network(
                input_ids=ids, past_key_values=row.cache, use_cache=True, logits_to_keep=1
            ).logits
        for name, tensor in seen.items():
            if name == "tail_input":
                row.captured.setdefault(name, []).append(tensor[0])
            else:
                row.captured[name] = [tensor[0, -1:]]
        row.unfed -= part
        return logits[:, -1]

    def _fail(self, row: Row, error: Exception) -> None:
        """End a row for what happened in it; a device that is lost for everybody is no row's failure."""
        if isinstance(error, torch.AcceleratorError):
            raise error
        row.gone = True
        self._failures[row.key] = error

    def _drop(self) -> None:
        """Take rows that are gone out of the cache."""
        gone = [index for index, row in enumerate(self._running) if row.gone]
        for index in reversed(gone):
            self._cache.remove(index)
            self._running[index] = self._running[-1]
            self._running.pop()
        if gone:
            self._cache.trim()


def taps(model: DecodedModel) -> dict[str, Tap]:
    """Where a model is tapped while it decodes, by the names of `Generation`'s tensors."""
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
