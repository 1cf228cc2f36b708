"""ProToken's scores at any layer of the model, with and without gradients, for choosing layers and for the ablation.

    P_ij^l = Σ_positions ⟨ f_l(x_l ; W_i), ∂ logit_j / ∂ out_l ⟩        (arXiv 2601.19672, eq. 6–8)

Slower than the preset `paper`, whose three layers need only the emitting position: before the last attention a
gradient reaches every earlier position. Does not sum over layers and does not know shares.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from attribution.model import FederatedModel
from attribution.records import Generation
from attribution.scoring.paper_preset import LastRound


def layer_scores(model: FederatedModel, generation: Generation, *, gradients: bool = True) -> dict[str, Tensor]:
    """Scores of each client of the last round for each token, by layer: (clients, T) float64.

    The layers are every block's attention output projection and whole MLP, and `lm_head`. Without `gradients` (the
    paper's ablation, as we read it) the gradient is one everywhere at the emitting position and nothing elsewhere.
    """
    network, last_round = model.network, model.last_round
    names = [f"model.layers.{block}.{part}" for block in range(len(model.layers.blocks))
             for part in ("self_attn.o_proj", "mlp")]  # fmt: skip
    prompt, tokens = generation.prompt_token_ids, generation.token_ids
    ids = torch.tensor([[*prompt, *tokens[:-1]]], device=model.device)
    emitting = torch.arange(len(prompt) - 1, ids.shape[1], device=model.device)
    emitted = torch.tensor(tokens, device=model.device)
    embedded = network.get_input_embeddings()(ids).detach().requires_grad_()
    with torch.enable_grad(), _watch_layers(network, [*names, "lm_head"]) as seen:
        logits = network(inputs_embeds=embedded, use_cache=False, logits_to_keep=emitting).logits[0]
        emitted_logits = logits.gather(-1, emitted.unsqueeze(-1)).squeeze(-1)  # (T,)
    with torch.no_grad():
        outputs = {name: _client_outputs(network, last_round, name, seen[name][0].detach()[0]) for name in names}
    scores = {name: torch.zeros(len(last_round.clients), len(tokens), dtype=torch.float64) for name in names}
    for place in range(len(tokens)):
        if gradients:
            slopes = torch.autograd.grad(emitted_logits[place], [seen[name][1] for name in names], retain_graph=True)
        for index, name in enumerate(names):
            if gradients:
                scores[name][:, place] = (outputs[name] * slopes[index]).double().sum((1, 2))
            else:
                scores[name][:, place] = outputs[name][:, emitting[place]].double().sum(1)
    hidden = seen["lm_head"][0].detach()[0]  # (T, width)
    own = emitted_logits.detach().double()
    scores["lm_head"] = torch.stack([own + shift.double() for shift in last_round.head_shifts(emitted, hidden)])
    return scores


def _client_outputs(network: Any, last_round: LastRound, name: str, x: Tensor) -> Tensor:
    """f_l(x ; W_i) of every client on the global model's input x (S, inputs): (clients, S, width)."""
    layer = network.get_submodule(name)
    if isinstance(layer, nn.Linear):
        return torch.stack([layer(x) + shift for shift in last_round.output_shifts(name, x)])
    gate, up = layer.gate_proj(x), layer.up_proj(x)
    shifts = zip(
        last_round.output_shifts(f"{name}.gate_proj", x), last_round.output_shifts(f"{name}.up_proj", x), strict=True
    )
    outputs = []
    for client, (gate_shift, up_shift) in enumerate(shifts):
        inner = layer.act_fn(gate + gate_shift) * (up + up_shift)  # (S, intermediate)
        outputs.append(layer.down_proj(inner) + last_round.output_shifts(f"{name}.down_proj", inner)[client])
    return torch.stack(outputs)


@contextmanager
def _watch_layers(network: Any, names: list[str]) -> Iterator[dict[str, tuple[Tensor, Tensor]]]:
    """Within, a forward pass leaves each named layer's input and output, in the graph."""
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def remember(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            seen[name] = arguments[0], output

        return hook

    handles = [network.get_submodule(name).register_forward_hook(remember(name)) for name in names]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
