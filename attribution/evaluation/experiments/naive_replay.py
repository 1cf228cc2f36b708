"""Both presets replayed naively on whole models, as slowly as the formulas read: what parity is measured against.

Uses nothing of the fast path: models are put together from a bundle's files weight by weight, and every derivative is
a whole backward pass.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribution.base.references import load_model
from attribution.bundle.bundle import Bundle
from attribution.bundle.updates import Update
from attribution.records import Generation


def literal_paper(bundle: Bundle, generation: Generation) -> dict[str, list[float]]:
    """P_ij of ProToken (arXiv 2601.19672, eq. 6–8) by client: one forward and one backward pass a token, no cache.

    Each client of the last round is run as whole layers: C_i = G − Σ_k ρ_k Δ_k + Δ_i.
    """
    network = load_model(bundle.global_path)
    weights = {client.id: client.weight for client in bundle.manifest.clients}
    layers = [network.model.layers[-1].self_attn.o_proj, network.model.layers[-1].mlp, network.lm_head]
    scores: dict[str, list[float]] = {client: [] for client in bundle.last_round}
    calls: list[tuple[Tensor, Tensor]] = []
    for place, token in enumerate(generation.token_ids):
        ids = torch.tensor([[*generation.prompt_token_ids, *generation.token_ids[:place]]])
        embedded = network.get_input_embeddings()(ids).detach().requires_grad_()
        calls.clear()
        hooks = [layer.register_forward_hook(lambda _, x, out: calls.append((x[0], out))) for layer in layers]
        with torch.enable_grad():
            logit = network(inputs_embeds=embedded, use_cache=False).logits[0, -1, token]
        for hook in hooks:
            hook.remove()
        slopes = torch.autograd.grad(logit, [out for _, out in calls])
        for client, by_token in scores.items():
            with torch.no_grad(), _ShiftedWeights(network, _client_change(bundle, weights, client)):
                terms = [(layer(x) * slope).double().sum()
                         for layer, (x, _), slope in zip(layers, calls, slopes, strict=True)]  # fmt: skip
            by_token.append(float(sum(terms)))
    return scores


def literal_credit(bundle: Bundle, generation: Generation, nodes: int) -> dict[str, float]:
    """Σ_m w_m ⟨D_i, ∇ log p(response | θ_0 + a_m Σ D_i)⟩ by client, with the gradient of whole weights.

    The line starts at global − Σ D_i, as in the fast form, so the bundle's residual is part of both ends.
    """
    network = load_model(bundle.global_path)
    points, weights = np.polynomial.legendre.leggauss(nodes)
    scores = dict.fromkeys(bundle.client_ids, 0.0)
    ids = torch.tensor([[*generation.prompt_token_ids, *generation.token_ids[:-1]]])
    emitting = torch.arange(len(generation.prompt_token_ids) - 1, ids.shape[1])
    emitted = torch.tensor(generation.token_ids).unsqueeze(-1)
    for point, weight in zip((points + 1) / 2, weights / 2, strict=True):
        back = [(float(point) - 1.0, update) for update in bundle.updates.values()]
        parameters = _changed_parameters(network, bundle.updates)
        with _ShiftedWeights(network, back), torch.enable_grad():
            for parameter in parameters.values():
                parameter.requires_grad_()
            logits = network(input_ids=ids, use_cache=False, logits_to_keep=emitting).logits[0]
            log_p = torch.log_softmax(logits.float() / generation.sampling.scoring_temperature, -1)
            slopes = dict(
                zip(parameters, torch.autograd.grad(log_p.gather(-1, emitted).sum(), list(parameters.values())),
                    strict=True)
            )  # fmt: skip
        for parameter in parameters.values():
            parameter.requires_grad_(False)
        for client, update in bundle.updates.items():
            for name, slope in slopes.items():
                difference = update.difference(name)
                if difference is not None:
                    scores[client] += weight * float((difference.double() * slope.double()).sum())
    return scores


class _ShiftedWeights:
    """Within, the model's weights are moved by Σ w · update; afterwards they are what they were, bit for bit."""

    def __init__(self, network: Any, change: list[tuple[float, Update]]) -> None:
        self._parameters = _changed_parameters(
            network, {str(place): update for place, (_, update) in enumerate(change)}
        )
        self._change = change
        self._kept: dict[str, Tensor] = {}

    def __enter__(self) -> None:
        for name, parameter in self._parameters.items():
            self._kept[name] = parameter.data
            moved = parameter.data.clone()
            for weight, update in self._change:
                difference = update.difference(name)
                if difference is not None:
                    moved += weight * difference
            parameter.data = moved

    def __exit__(self, *_: object) -> None:
        for name, parameter in self._parameters.items():
            parameter.data = self._kept[name]


def _client_change(bundle: Bundle, weights: Mapping[str, float], client: str) -> list[tuple[float, Update]]:
    """From the global model to the client's own of the last round."""
    others = [(-weights[other], update) for other, update in bundle.last_round.items()]
    return [*others, (1.0, bundle.last_round[client])]


def _changed_parameters(network: Any, updates: Mapping[str, Update]) -> dict[str, torch.nn.Parameter]:
    parameters = dict(network.named_parameters(remove_duplicate=False))
    names = sorted(set().union(*(update.parameters() for update in updates.values())))
    return {name: parameters[name] for name in names}
