"""The step loop: prompts join a running batch, tokens come out one step at a time, rows leave when they are done.

Token ids in, tokens and captured activations out. Prompts are run through the model in parts, each with a step of the
others; a failure ends the row that it belongs to. Does not know clients or scores.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attribution.decoding.forward import Forward
from attribution.decoding.prompt_limits import require_fit
from attribution.decoding.row import Row
from attribution.decoding.rows_cache import RowsCache
from attribution.decoding.sampling import Choice, choose_tokens
from attribution.decoding.taps import Captures, DecodedModel
from attribution.records import Generation, Sampling, Step

_Parts = list[tuple[Row, int]]
_Ready = list[tuple[list[Row], Tensor]]
"""Rows that may have a token, and the logits (rows, vocabulary) to choose them by."""

PROMPT_TOKENS_A_STEP = 64
"""Prompt tokens that are run with a step of rows that run: on a CPU, less than the time of 32 rows again."""
PROMPT_TOKENS_A_STEP_ON_GPU = 1024
"""The same elsewhere, where a token costs less; it was not measured on a GPU."""
_ALONE = 8  # while nobody runs, so many times as much: larger parts are faster, and nobody waits but for its own token


class Batch:
    """Continuous batching at the iteration level over one federated model; one thread owns it.

    `join` takes a prompt, `step` gives every row whose prompt has been run one token, `leave` takes a row out.
    Whatever fails within a row ends that row: `take_failures` tells of it, or `leave` raises it. A forward pass that
    fails for all is repeated for each row apart. `captures` says what a `Generation` holds besides tokens.

    Rows that run have the first slots of the cache, then come those whose prompts are begun.
    """

    def __init__(
        self, model: DecodedModel, prompt_tokens_a_step: int | None = None, captures: Captures = Captures.ALL
    ) -> None:
        """`prompt_tokens_a_step` None chooses by the model's device."""
        self._model = model
        on_cpu = model.device.type == "cpu"
        self._part = prompt_tokens_a_step or (PROMPT_TOKENS_A_STEP if on_cpu else PROMPT_TOKENS_A_STEP_ON_GPU)
        self._rows: dict[str, Row] = {}
        self._slots: list[Row] = []  # whose keys and values each slot of the cache holds
        self._running = 0  # so many of the slots, the first, are of rows that run
        self._joining: list[Row] = []  # whose prompts are not run to their end, oldest first
        self._failures: dict[str, Exception] = {}
        self._cache = RowsCache(model.device)
        self._forward = Forward(model, self._cache, captures)

    def __len__(self) -> int:
        """Rows that still want tokens."""
        return sum(not row.gone for row in (*self._slots[: self._running], *self._joining))

    @property
    def is_reading(self) -> bool:
        """Whether the next step runs a part of a prompt too, and so takes longer."""
        return bool(self._joining)

    def check(self, prompt_ids: Sequence[int], sampling: Sampling) -> None:
        """Refuse what could not join; may be called from any thread.

        Raises:
            PromptError: the prompt is empty, or it or `logit_bias` names a token that the model does not have.
            ContextLengthError: prompt and `max_new_tokens` exceed the model's context.
        """
        require_fit(self._model, prompt_ids, sampling)

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
        """One token for every row that has not ended and whose prompt has been run; and a part of other prompts."""
        steps = []
        for row, choice in self._choose(self._run()):
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

    def _run(self) -> _Ready:
        """Feed each running row its last token, others a part of their prompts; who may have a token, and its logits.

        Whose prompt ends runs from now on.
        """
        running = self._slots[: self._running]
        ready = []
        for rows, logits in self._feed_or_apart([*((row, 1) for row in running), *self._place_all(self._parts())]):
            ends = [index for index, row in enumerate(rows) if not row.unfed and (row in running or self._let_run(row))]
            if ends:
                ready.append(([rows[index] for index in ends], logits if len(ends) == len(rows) else logits[ends]))
        self._joining = [row for row in self._joining if row.unfed and not row.gone]
        return ready

    def _feed_or_apart(self, parts: _Parts) -> _Ready:
        """Run rows in one pass, and where it fails, each apart, so that it is the failing row that fails."""
        if not parts:
            return []
        try:
            return [([row for row, _ in parts], self._feed(parts))]
        except Exception as error:  # noqa: BLE001 - whose it is shows when each is fed apart
            _raise_if_lost(error)
        ready: _Ready = []
        for row, part in parts:
            try:
                ready.append(([row], self._feed([(row, part)])))
            except Exception as error:  # noqa: BLE001 - this row's, as it was alone
                self._fail(row, error)
        return ready

    def _feed(self, parts: _Parts) -> Tensor:
        """One pass of the next tokens of rows in neighbouring slots: the logits (rows, vocabulary) after them."""
        return self._forward.run(self._slots.index(parts[0][0]), parts)

    def _parts(self) -> _Parts:
        """Whose prompts are run in this step, and how much of them.

        Half of it is the oldest's, so that it comes to its end; the rest goes to the shortest, so that a short prompt
        does not wait for long ones.
        """
        left = self._part if self._running else self._part * _ALONE
        oldest, others = self._joining[:1], sorted(self._joining[1:], key=lambda row: row.unfed)
        parts: _Parts = []
        for row in (*oldest, *others):
            most = left // 2 if others and row in oldest else left
            part = min(row.unfed, max(most, 1))
            parts.append((row, part))
            left -= part
            if left <= 0:
                break
        return parts

    def _place_all(self, parts: _Parts) -> _Parts:
        """Those that could be given slots, which are the first behind the running rows' now."""
        placed: _Parts = []
        for row, part in parts:
            try:
                self._place(row, self._running + len(placed))
                placed.append((row, part))
            except Exception as error:  # noqa: BLE001 - this row's: there is no room for it
                self._fail(row, error)
        return placed

    def _place(self, row: Row, slot: int) -> None:
        """Let a row whose prompt is to be run have a slot."""
        if row not in self._slots:
            self._cache.add()
            self._slots.append(row)
        self._exchange(self._slots.index(row), slot)

    def _let_run(self, row: Row) -> bool:
        """Let a row whose prompt was run be the last of those that run, where there is memory to move it."""
        try:
            self._exchange(self._slots.index(row), self._running)
        except Exception as error:  # noqa: BLE001 - this row's
            self._fail(row, error)
            return False
        self._running += 1
        return True

    def _exchange(self, one: int, other: int) -> None:
        if one != other:
            self._cache.swap(one, other)
            self._slots[one], self._slots[other] = self._slots[other], self._slots[one]

    def _fail(self, row: Row, error: Exception) -> None:
        """End a row for what happened in it; a device that is lost for everybody is no row's failure."""
        _raise_if_lost(error)
        row.gone = True
        self._failures[row.key] = error

    def _drop(self) -> None:
        """Take rows that are gone out of the cache: the last that runs, and the last of all, fill what is free."""
        for slot in reversed(range(len(self._slots))):
            if self._slots[slot].gone:
                last = len(self._slots) - 1
                free = slot
                for source in (self._running - 1, last) if slot < self._running else (last,):
                    if source != free:
                        self._cache.fill(free, source)
                        self._slots[free] = self._slots[source]
                    free = source
                self._cache.pop()
                self._slots.pop()
                self._running -= slot < self._running


def _raise_if_lost(error: Exception) -> None:
    if isinstance(error, torch.AcceleratorError):
        raise error
