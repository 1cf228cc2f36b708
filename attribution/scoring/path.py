"""The straight line from the base model to the global model, with one coefficient for each client's update.

θ(c) = global + Σ_i (c_i − 1) D_i, so c = 1 is the global model and c = 0 the base model (and the residual). The
log-probability of a response is a function of c, and the whole of the `credit` preset is that function's derivative:
∂/∂c_i along the diagonal is ⟨D_i, ∇θ⟩, the Aumann–Shapley integrand (design 5, science 2.4 B). Autograd does the
contraction: for a low-rank update it never forms a weight gradient.

Does not know tokens, shares or nodes.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle

from attribution.base.layers import cap_logits
from attribution.bundle.updates import Update
from attribution.scoring.dense_shift import shift_hook


@dataclass(frozen=True)
class _StackedFactors:
    """All clients' factors of one module: A (R, inputs), B (outputs, R), and which client owns each of the R ranks."""

    A: Tensor
    B: Tensor
    owner: Tensor


class UpdatePath:
    """A model whose updated layers follow the coefficients given to `forward`.

    `model` may be the whole causal model or its tail; parameter names are those of the whole.
    """

    def __init__(self, model: Any, updates: Sequence[Update]) -> None:
        self.model = model
        self.clients = len(updates)
        self._stacked = _stack(updates)
        names = sorted(set().union(*(update.dense for update in updates)))
        self._dense = {
            name: [(index, update.dense[name]) for index, update in enumerate(updates) if name in update.dense]
            for name in names
        }
        self._holders = _holders(model, names)

    @property
    def device(self) -> torch.device:
        """Where the model is, and so the coefficients."""
        device: torch.device = self.model.device
        return device

    @property
    def moves(self) -> bool:
        """Whether any client changed anything; where none did, every derivative is 0."""
        return bool(self._stacked or self._dense)

    @property
    def rows_may_differ(self) -> bool:
        """Whether each row of a batch may have coefficients of its own: true where no update is dense."""
        return not self._dense

    def hidden_states(self, coefficients: Tensor, positions: Tensor, **inputs: Tensor) -> Tensor:
        """What enters the head at θ(c), differentiable in `coefficients`, backward and forward.

        Args:
            coefficients: (rows, clients), float64; more than one row only where `rows_may_differ`.
            positions: (T,) indices into the positions of the inputs.
            inputs: what the model takes, with a leading dimension of `rows`.

        Returns:
            (rows, T, width) in the model's dtype.
        """
        rows, clients = coefficients.shape
        assert clients == self.clients
        assert rows == 1 or self.rows_may_differ
        with self._shifted_layers(coefficients - 1):
            moved = self._vectors(coefficients[0] - 1, "model.")
            outputs = functional_call(self.model.model, moved, kwargs={**inputs, "use_cache": False})
        hidden: Tensor = outputs.last_hidden_state[:, positions]
        return hidden

    def logits(self, coefficients: Tensor, hidden: Tensor) -> Tensor:
        """Logits of the head at θ(c): (rows, T, width) to (rows, T, vocabulary), differentiable in both arguments."""
        with self._shifted_layers(coefficients - 1, "lm_head"):
            moved = self._vectors(coefficients[0] - 1, "lm_head.")
            # of strided rows PyTorch would make a batched product, with a copy of the head for each
            logits = functional_call(self.model.lm_head, moved, (hidden.contiguous(),))
            return cap_logits(self.model.config, logits)

    @property
    def vocabulary(self) -> int:
        """How many logits a position has."""
        size: int = self.model.lm_head.out_features
        return size

    @contextmanager
    def _shifted_layers(self, offset: Tensor, within: str = "model") -> Iterator[None]:
        """Hooks on the changed layers of the decoder, or of the head."""
        inside = set(self.model.get_submodule(within).modules())
        handles: list[RemovableHandle] = []
        try:
            for name, stacked in self._stacked.items():
                module = self.model.get_submodule(name)
                if module in inside:
                    handles.append(module.register_forward_hook(_low_rank_hook(stacked, offset)))
            for name, layers in self._holders.items():
                for layer in inside.intersection(layers):
                    hook = shift_hook(layer, self._dense[name], offset[0])
                    handles.append(layer.register_forward_hook(hook))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _vectors(self, offset: Tensor, prefix: str) -> dict[str, Tensor]:
        """Norms and biases at θ(c), by name behind `prefix`: small enough to be built as they are."""
        moved = {}
        for name in self._dense.keys() - self._holders.keys():
            if not name.startswith(prefix):
                continue
            weight = self.model.get_parameter(name)
            for index, difference in self._dense[name]:
                weight = weight + offset[index].to(weight.dtype) * difference.to(weight.device, weight.dtype)
            moved[name.removeprefix(prefix)] = weight
        return moved


def _holders(model: Any, names: Sequence[str]) -> dict[str, list[nn.Module]]:
    """The layers that use each named matrix: two where an embedding is tied to the head."""
    matrices = {name: model.get_parameter(name) for name in names}
    return {
        name: [layer for layer in model.modules() if getattr(layer, "weight", None) is matrix]
        for name, matrix in matrices.items()
        if matrix.ndim > 1
    }


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
