"""Preset `paper`: ProToken's scores, position-local and exact (arXiv 2601.19672, eq. 6–9).

    P_ij = Σ_{l ∈ L} ⟨ f_l(x_l ; W_i), ∂ logit_j / ∂ out_l ⟩,   L = last o_proj, last MLP block, lm_head

After the last attention nothing mixes positions, so one backward of Σ_j logit_j from the output of the last o_proj
gives every token's own gradient. That last stretch is replayed once over all tokens from what decoding captured, with
the attention replaced by its captured output as a leaf: any architecture's block runs as it is. No client is run as a
whole model. Does not know decoding or shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribution.base.layers import Layers, cap_logits, with_children
from attribution.bundle.updates import Update


@dataclass(frozen=True)
class BlockCapture:
    """What the last block saw while `tokens` (T,) were decoded: one row for each position that emitted a token.

    `block_input` (T, width), `o_proj_input` (T, heads · head width), `o_proj_output` (T, width).
    """

    block_input: Tensor
    o_proj_input: Tensor
    o_proj_output: Tensor
    tokens: Tensor


class LastRound:
    """The clients' last-round weights W_i = G + Δ_i − Σ_k ρ_k Δ_k at single layers, without building any of them.

    Args:
        updates: Δ_i = C_i^R − G^{R−1} for the clients of the last round.
        weights: ρ_i of the last round, by the same ids, summing to 1.
        tied_head: the name under which updates know the head's weight.
    """

    def __init__(self, updates: Mapping[str, Update], weights: Mapping[str, float], tied_head: str) -> None:
        self._updates = updates
        self._weights = weights
        self._head = tied_head

    @property
    def clients(self) -> tuple[str, ...]:
        """Ids of the clients that took part in the last round."""
        return tuple(self._updates)

    def output_shifts(self, module: str, x: Tensor) -> list[Tensor]:
        """For each client, (W_i − G) x + (b_i − b) of a linear layer: (T, outputs) each."""
        return self._from_mean([_output_change(update, module, x) for update in self._updates.values()])

    def transposed_shifts(self, module: str, gradient: Tensor) -> list[Tensor]:
        """For each client, (W_i − G)ᵀ g of a linear layer: (T, inputs) each."""
        return self._from_mean([_transposed_change(update, module, gradient) for update in self._updates.values()])

    def bias_shifts(self, module: str, like: Tensor) -> list[Tensor]:
        """For each client, b_i − b of a linear layer, as a scalar zero where it has no trained bias."""
        none = torch.zeros((), dtype=like.dtype, device=like.device)
        changes = [update.dense.get(f"{module}.bias", none).to(like) for update in self._updates.values()]
        return self._from_mean(changes)

    def head_shifts(self, tokens: Tensor, hidden: Tensor) -> list[Tensor]:
        """For each client, (W_i − G)[x_j] · h_j of the head: (T,) each, from the emitted tokens' rows alone."""
        changes = []
        for update in self._updates.values():
            change = torch.zeros(len(tokens), dtype=hidden.dtype, device=hidden.device)
            whole = update.dense.get(self._head)
            if whole is not None:
                change = change + (whole[tokens.cpu()].to(hidden) * hidden).sum(-1)
            factors = update.low_rank.get(self._head.removesuffix(".weight"))
            if factors is not None:
                change = change + ((hidden @ factors.A.to(hidden).T) * factors.B.to(hidden)[tokens]).sum(-1)
            changes.append(change)
        return self._from_mean(changes)

    def _from_mean(self, changes: Sequence[Tensor]) -> list[Tensor]:
        mean = sum(weight * change for weight, change in zip(self._weights.values(), changes, strict=True))
        return [change - mean for change in changes]


def position_local(model: Any, layers: Layers, captured: BlockCapture, last_round: LastRound) -> Tensor:
    """Score of each client of the last round for each token: (clients, T) float64.

    The non-linear MLP block is evaluated with each client's weights on the global model's input, as the paper's
    experiments do; the gradient is carried back through its down projection once.
    """
    tail = _replay(model, layers, captured)
    rows = layers.lm_head.weight[captured.tokens]
    attention = (captured.o_proj_output * tail.o_proj_gradient).sum(-1)
    head = (tail.hidden * rows).sum(-1) + (_bias_of(layers.lm_head, captured.tokens))
    o_proj_shifts = last_round.output_shifts(layers.o_proj_name, captured.o_proj_input)
    head_shifts = last_round.head_shifts(captured.tokens, tail.hidden)
    mlp_scores = _mlp_scores(layers, tail, last_round)
    scores = [
        attention.double()
        + (o_proj_shift * tail.o_proj_gradient).sum(-1).double()
        + mlp_score
        + ((head + head_shift) * tail.logit_slope).double()
        for o_proj_shift, mlp_score, head_shift in zip(o_proj_shifts, mlp_scores, head_shifts, strict=True)
    ]
    return torch.stack(scores)


@dataclass(frozen=True)
class _Tail:
    """The replayed stretch: inputs and output gradients of the scored layers, (T, width) each; `logit_slope` (T,)."""

    mlp_input: Tensor
    hidden: Tensor
    o_proj_gradient: Tensor
    mlp_gradient: Tensor
    logit_slope: Tensor


def _replay(model: Any, layers: Layers, captured: BlockCapture) -> _Tail:
    seen: dict[str, Tensor] = {}

    def remember(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
        seen["input"], seen["output"] = arguments[0], output

    handle = layers.mlp.register_forward_hook(remember)
    try:
        with torch.enable_grad():
            leaf = captured.o_proj_output.detach().requires_grad_()
            block = with_children(layers.last_block, self_attn=_FixedAttention(leaf.unsqueeze(0)))
            hidden = layers.norm(block(captured.block_input.unsqueeze(0), position_embeddings=None))[0]  # (T, width)
            raw = (hidden * layers.lm_head.weight[captured.tokens]).sum(-1) + _bias_of(layers.lm_head, captured.tokens)
            logits = cap_logits(model.config, raw)
            gradients = torch.autograd.grad(logits.sum(), (leaf, seen["output"], raw))
    finally:
        handle.remove()
    return _Tail(seen["input"][0].detach(), hidden.detach(), gradients[0], gradients[1][0], gradients[2])


class _FixedAttention(nn.Module):
    """Stands in for the last attention: returns what it returned while decoding."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self._output = output

    def forward(self, *_: object, **__: object) -> tuple[Tensor, None]:
        return self._output, None


def _mlp_scores(layers: Layers, tail: _Tail, last_round: LastRound) -> list[Tensor]:
    mlp: Any = layers.mlp
    x, gradient = tail.mlp_input, tail.mlp_gradient
    with torch.no_grad():
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)  # (T, intermediate)
        carried = gradient @ mlp.down_proj.weight  # (T, intermediate)
        bias = mlp.down_proj.bias
        constant = 0.0 if bias is None else (gradient @ bias).double()
    name = layers.mlp_name
    shifts = zip(
        last_round.output_shifts(f"{name}.gate_proj", x),
        last_round.output_shifts(f"{name}.up_proj", x),
        last_round.transposed_shifts(f"{name}.down_proj", gradient),
        last_round.bias_shifts(f"{name}.down_proj", gradient),
        strict=True,
    )
    scores = []
    for gate_shift, up_shift, carried_shift, bias_shift in shifts:
        activated = mlp.act_fn(gate + gate_shift) * (up + up_shift)
        inner = (activated * (carried + carried_shift)).sum(-1).double()
        scores.append(inner + constant + (gradient * bias_shift).sum(-1).double())
    return scores


def _output_change(update: Update, module: str, x: Tensor) -> Tensor:
    factors = update.low_rank.get(module)
    change = torch.zeros((), dtype=x.dtype, device=x.device)
    if factors is not None:
        change = (x @ factors.A.to(x).T) @ factors.B.to(x).T
    if f"{module}.weight" in update.dense:
        change = change + x @ update.dense[f"{module}.weight"].to(x).T
    if f"{module}.bias" in update.dense:
        change = change + update.dense[f"{module}.bias"].to(x)
    return change


def _transposed_change(update: Update, module: str, gradient: Tensor) -> Tensor:
    factors = update.low_rank.get(module)
    change = torch.zeros((), dtype=gradient.dtype, device=gradient.device)
    if factors is not None:
        change = (gradient @ factors.B.to(gradient)) @ factors.A.to(gradient)
    if f"{module}.weight" in update.dense:
        change = change + gradient @ update.dense[f"{module}.weight"].to(gradient)
    return change


def _bias_of(linear: nn.Linear, rows: Tensor) -> Tensor | float:
    return 0.0 if linear.bias is None else linear.bias[rows]
