"""The straight line from the base model to the global model, with one coefficient for each client's update.

θ(c) = global + Σ_i (c_i − 1) D_i, so c = 1 is the global model and c = 0 the base model (and the residual). The
log-probability of a response is a function of c, and the whole of the `credit` preset is that function's derivative:
∂/∂c_i along the diagonal is ⟨D_i, ∇θ⟩, the Aumann–Shapley integrand (design 5, science 2.4 B). Autograd does the
contraction: for a low-rank update it never forms a weight gradient.

The model is run a stage at a time (the embedding, each block, the norm, the head). A stage moves its own layers and
puts them back, so that between two of them the same layers may serve somebody else. Does not know tokens, shares or
nodes.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from attribution.base.layers import cap_logits, with_children
from attribution.bundle.updates import Update
from attribution.scoring.dense_shift import shift_hook

_STAGE = re.compile(r"^(model\.layers\.\d+|model\.\w+|\w+)(\.|$)")
_Hook = Any


@dataclass(frozen=True)
class _StackedFactors:
    """All clients' factors of one module: A (R, inputs), B (outputs, R), and which client owns each of the R ranks."""

    A: Tensor
    B: Tensor
    owner: Tensor


@dataclass(frozen=True)
class Entry:
    """Where a pass begins: `hidden` (rows, S, width) enters the first block; `calls` are the blocks' other arguments.

    `calls` name masks and positions, so that an entry serves every pass over as many rows, or over one.
    """

    hidden: Tensor
    calls: tuple[Mapping[str, Any], ...]


class UpdatePath:
    """A causal model whose updated layers follow the coefficients given to each stage.

    Attributes:
        clients: how many coefficients there are.
        first_block: the first block that depends on them; 0 where the embedding does.
        moves_embedding: whether the embedding does.
    """

    def __init__(self, model: Any, updates: Sequence[Update], first_block: int | None = None) -> None:
        """`first_block` None says that the embedding is changed."""
        self.model = model
        self.clients = len(updates)
        self.first_block = first_block or 0
        self.moves_embedding = first_block is None
        stacked = _stack(updates)
        dense = {
            name: [(index, update.dense[name]) for index, update in enumerate(updates) if name in update.dense]
            for name in sorted(set().union(*(update.dense for update in updates)))
        }
        self.moves = bool(stacked or dense)
        self.rows_may_differ = not dense
        self._low_rank: dict[str, list[tuple[nn.Module, _StackedFactors]]] = defaultdict(list)
        for name, factors in stacked.items():
            self._low_rank[_stage_of(name)].append((model.get_submodule(name), factors))
        self._matrices: dict[str, list[tuple[nn.Module, list[tuple[int, Tensor]]]]] = defaultdict(list)
        self._vectors: dict[str, dict[str, list[tuple[int, Tensor]]]] = defaultdict(dict)
        for name, differences in dense.items():
            weight = model.get_parameter(name)
            if weight.ndim == 1:
                self._vectors[_stage_of(name)][name] = differences
            for stage, layer in _holders(model, weight) if weight.ndim > 1 else ():
                self._matrices[stage].append((layer, differences))

    @property
    def device(self) -> torch.device:
        """Where the model is, and so the coefficients."""
        device: torch.device = self.model.device
        return device

    @property
    def blocks(self) -> int:
        """How many blocks the model has."""
        return len(self.model.model.layers)

    @property
    def vocabulary(self) -> int:
        """How many logits a position has."""
        size: int = self.model.lm_head.out_features
        return size

    def enter(self, coefficients: Tensor, token_ids: Tensor) -> Entry:
        """What the blocks would be called with: the model is run without them.

        Args:
            coefficients: (rows, clients), float64; more than one row only where `rows_may_differ`.
            token_ids: (1, S), the same for each row.
        """
        rows, clients = coefficients.shape
        assert clients == self.clients
        assert rows == 1 or self.rows_may_differ
        calls: list[Mapping[str, Any]] = []
        recorders = nn.ModuleList(_Recorder(calls) for _ in range(self.blocks))
        blockless = with_children(self.model.model, layers=recorders, norm=nn.Identity())
        with self._shift("model.embed_tokens", coefficients - 1):
            outputs = blockless(input_ids=token_ids.expand(rows, -1), use_cache=False)
        return Entry(outputs.last_hidden_state, tuple(calls))

    def block(self, index: int, coefficients: Tensor, hidden: Tensor, call: Mapping[str, Any]) -> Tensor:
        """A block at θ(c): (rows, S, width) to the same, differentiable in both tensors, backward and forward."""
        output = self._call(f"model.layers.{index}", coefficients, hidden, call)
        moved: Tensor = output[0] if isinstance(output, tuple) else output
        return moved

    def norm(self, coefficients: Tensor, hidden: Tensor) -> Tensor:
        """What enters the head at θ(c), from what leaves the last block, position by position."""
        normed: Tensor = self._call("model.norm", coefficients, hidden, {})
        return normed

    def logits(self, coefficients: Tensor, hidden: Tensor) -> Tensor:
        """Logits of the head at θ(c): (rows, T, width) to (rows, T, vocabulary), differentiable in both arguments."""
        # of strided rows PyTorch would make a batched product, with a copy of the head for each
        logits: Tensor = self._call("lm_head", coefficients, hidden.contiguous(), {})
        return cap_logits(self.model.config, logits)

    def _call(self, stage: str, coefficients: Tensor, hidden: Tensor, keywords: Mapping[str, Any]) -> Any:
        module, offset = self.model.get_submodule(stage), coefficients - 1
        with self._shift(stage, offset):
            vectors = self._moved_vectors(stage, offset[0])
            if not vectors:
                return module(hidden, **keywords)
            return functional_call(module, vectors, (hidden,), dict(keywords))

    @contextmanager
    def _shift(self, stage: str, offset: Tensor) -> Iterator[None]:
        """Hooks on the changed layers of a stage."""
        hooks: list[tuple[nn.Module, _Hook]] = [
            *((module, _low_rank_hook(factors, offset)) for module, factors in self._low_rank.get(stage, ())),
            *((layer, shift_hook(layer, those, offset[0])) for layer, those in self._matrices.get(stage, ())),
        ]
        handles = [module.register_forward_hook(hook) for module, hook in hooks]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _moved_vectors(self, stage: str, offset: Tensor) -> dict[str, Tensor]:
        """Norms and biases at θ(c), by name within the stage: small enough to be built as they are."""
        moved = {}
        for name, differences in self._vectors.get(stage, {}).items():
            weight = self.model.get_parameter(name)
            for index, difference in differences:
                weight = weight + offset[index].to(weight.dtype) * difference.to(weight.device, weight.dtype)
            moved[name.removeprefix(f"{stage}.")] = weight
        return moved


class _Recorder(nn.Module):
    """Stands in for a block that is not run now, and notes what it is called with beside its input."""

    def __init__(self, calls: list[Mapping[str, Any]]) -> None:
        super().__init__()
        self._calls = calls

    def forward(self, hidden_states: Tensor, **keywords: Any) -> Tensor:
        self._calls.append(keywords)
        return hidden_states


def _stage_of(name: str) -> str:
    """The stage in which a module or parameter is used, as `model.embed_tokens`, `model.layers.7` or `lm_head`."""
    stage = _STAGE.match(name)
    assert stage is not None, f"no stage has {name!r}"
    return stage[1]


def _holders(model: Any, matrix: Tensor) -> list[tuple[str, nn.Module]]:
    """The layers that use a matrix, with their stages: two where an embedding is tied to the head."""
    return [
        (_stage_of(name), layer) for name, layer in model.named_modules() if getattr(layer, "weight", None) is matrix
    ]


@contextmanager
def forward_mode(model: Any) -> Iterator[None]:
    """Within, attention is the eager one: PyTorch has no forward-mode derivative of its fused attention on CPU."""
    usual = model.config._attn_implementation  # noqa: SLF001 - transformers has no public getter
    model.config._attn_implementation = "eager"  # noqa: SLF001
    try:
        with torch.autograd.forward_ad.dual_level():
            yield
    finally:
        model.config._attn_implementation = usual  # noqa: SLF001


def _stack(updates: Sequence[Update]) -> dict[str, _StackedFactors]:
    stacked = {}
    for name in sorted(set().union(*(update.low_rank for update in updates))):
        # B = 0 is how a client that changed nothing looks; its derivative is exactly 0 without any arithmetic
        parts = [
            (index, update.low_rank[name])
            for index, update in enumerate(updates)
            if name in update.low_rank and bool(update.low_rank[name].B.any())
        ]
        if not parts:
            continue
        owner = torch.cat([torch.full((part.A.shape[0],), index) for index, part in parts])
        A = torch.cat([part.A for _, part in parts], dim=0)
        B = torch.cat([part.B for _, part in parts], dim=1)
        stacked[name] = _StackedFactors(A, B, owner.to(A.device))
    return stacked


def _low_rank_hook(stacked: _StackedFactors, offset: Tensor) -> Any:
    # gathered once per client and cast per layer, so that the derivatives of all layers are summed in float64
    def add_update(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = arguments[0]  # (rows, positions, inputs)
        gate = offset.to(x.dtype)[:, stacked.owner].unsqueeze(1)  # (rows, 1, R)
        ranks = nn.functional.linear(x, stacked.A.to(x.dtype)) * gate  # (rows, positions, R)
        return output + nn.functional.linear(ranks, stacked.B.to(x.dtype))

    return add_update
