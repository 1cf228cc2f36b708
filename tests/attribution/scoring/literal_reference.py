"""The two attribution presets and exact Shapley values, written out as slowly as their formulas read.

This is the oracle that fast code is compared with. It knows whole models, dense updates and token ids; it
knows nothing of bundles, adapters or caches, and must never import the `attribution` package.

Numbers in brackets are the equations of the ProToken paper. Models must be in evaluation mode and come back
as they were: for the length of a call stand-ins replace their parameters, so no value, gradient or flag is
touched. Models run in their own dtype; softmaxes and inner products are taken in float64.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

Ids = Sequence[int]
Stops = int | Collection[int] | None  # the end-of-sequence token or tokens
Models = Mapping[str, nn.Module]  # each client's whole last-round model
Updates = Mapping[str, Mapping[str, Tensor]]  # D_i, each client's changed parameters by name

PLAYERS_MAX = 6  # 64 coalitions


# --- the `paper` preset ---


def literal_greedy(global_model: nn.Module, prompt_ids: Ids, n: int, eos: Stops = None) -> list[int]:
    """Greedy decoding without a cache (2): at most n tokens, an end-of-sequence token included."""
    response: list[int] = []
    with torch.no_grad():
        while len(response) < n and not _ended(response, eos):
            response.append(int(_logits(global_model, {}, [*prompt_ids, *response])[-1].argmax()))
    return response


def literal_paper(
    global_model: nn.Module, client_models: Models, prompt_ids: Ids, response_ids: Ids
) -> dict[str, list[float]]:
    """P_ij of a given response (8): one whole forward and one whole backward per token, no softmax yet."""
    steps = [
        _paper_step(global_model, client_models, [*prompt_ids, *response_ids[:j]], token)[1]
        for j, token in enumerate(response_ids)
    ]
    return {client: [scores[client] for scores in steps] for client in client_models}


def literal_paper_generate(
    global_model: nn.Module, client_models: Models, prompt_ids: Ids, n: int, eos: Stops = None
) -> tuple[list[int], dict[str, list[float]]]:
    """Decode and attribute in one loop as the paper does; equal to `literal_greedy`, then `literal_paper`."""
    response, steps = [], []
    while len(response) < n and not _ended(response, eos):
        token, scores = _paper_step(global_model, client_models, [*prompt_ids, *response], emitted=None)
        response.append(token)
        steps.append(scores)
    return response, {client: [scores[client] for scores in steps] for client in client_models}


@torch.enable_grad()
def _paper_step(
    global_model: nn.Module, client_models: Models, ids: list[int], emitted: int | None
) -> tuple[int, dict[str, float]]:
    """The token after `ids` (the likeliest one if none is given) and every client's score for it.

    g^l = d logit[token] / d out_l at the last position (6), of the raw logit;
    P_i = sum over l of <f_l(x_l; W_i), g^l> (7, 8), x_l the global model's input to layer l.
    """
    calls: list[tuple[Tensor, Tensor]] = []  # (x_l, out_l), in the order the layers run
    stand_ins = {name: weight.detach().requires_grad_() for name, weight in global_model.named_parameters()}
    hooks = [
        layer.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
        for layer in _paper_layers(global_model)
    ]
    try:
        logits = _logits(global_model, stand_ins, ids)[-1]  # [vocabulary]
    finally:
        for hook in hooks:
            hook.remove()
    token = int(logits.argmax()) if emitted is None else emitted

    # Asking for every weight's gradient too makes this the whole backward pass that `.backward()` would be.
    outputs = [output for _, output in calls]
    wanted = [*outputs, *stand_ins.values()]
    gradients = torch.autograd.grad(logits[token], wanted, allow_unused=True)[: len(outputs)]

    scores = {}
    with torch.no_grad():
        for client, model in client_models.items():
            layers = _paper_layers(model)
            terms = zip(layers, calls, gradients, strict=True)
            scores[client] = sum(_inner(layer(x), gradient) for layer, (x, _), gradient in terms)
    return token, scores


def _paper_layers(model: nn.Module) -> list[nn.Module]:
    """L: the last block's attention output projection, the last block's whole MLP, the head; as they run."""
    block = model.model.layers[-1]
    return [block.self_attn.o_proj, block.mlp, model.lm_head]


def _ended(response: list[int], eos: Stops) -> bool:
    """Whether the last token emitted is an end-of-sequence token."""
    stops = {eos} if isinstance(eos, int) else set(eos or ())
    return bool(response) and response[-1] in stops


# --- the `credit` preset ---


@dataclass(frozen=True)
class LiteralCredit:
    """Signed scores of every client and token, with the log-probabilities they have to explain."""

    scores: dict[str, list[float]]
    log_p_global: list[float]  # f_j(theta_0 + sum of D_i)
    log_p_base: list[float]  # f_j(theta_0)

    @property
    def gain(self) -> float:
        """v(N) = log p_global(response) - log p_base(response)."""
        return math.fsum(self.log_p_global) - math.fsum(self.log_p_base)

    @property
    def base_shares(self) -> list[float]:
        """beta_j = min(1, p_base / p_global), token by token."""
        pairs = zip(self.log_p_base, self.log_p_global, strict=True)
        return [math.exp(min(0.0, base - final)) for base, final in pairs]


@torch.enable_grad()
def literal_credit(
    base_model: nn.Module,
    client_updates: Updates,
    prompt_ids: Ids,
    response_ids: Ids,
    nodes: int = 2,
    temperature: float = 1.0,
) -> LiteralCredit:
    """Aumann-Shapley on the line from base to global, one backward per node and token.

    phi_ij = sum over m of w_m <D_i, grad f_j(theta_0 + a_m * sum of D_i)>, with f_j the log-probability of
    the emitted token at the temperature used and (a_m, w_m) the Gauss-Legendre rule on [0, 1].
    """
    updates = list(client_updates.values())
    scores = {client: [0.0] * len(response_ids) for client in client_updates}
    points, weights = np.polynomial.legendre.leggauss(nodes)  # on [-1, 1]
    for a, w in zip((points + 1) / 2, weights / 2, strict=True):
        theta = _moved(base_model, updates, float(a))
        leaves = [weight.requires_grad_() for weight in theta.values()]
        log_p = _log_p(base_model, theta, prompt_ids, response_ids, temperature)
        for j in range(len(response_ids) if theta else 0):
            # The gradient of a tied weight, which has one name, is the sum over both its ends.
            gradients = torch.autograd.grad(log_p[j], leaves, retain_graph=True)
            gradient = dict(zip(theta, gradients, strict=True))
            for client, update in client_updates.items():
                scores[client][j] += float(w) * sum(_inner(D, gradient[name]) for name, D in update.items())

    with torch.no_grad():
        log_p_global, log_p_base = (
            _log_p(base_model, _moved(base_model, updates, a), prompt_ids, response_ids, temperature).tolist()
            for a in (1.0, 0.0)
        )
    return LiteralCredit(scores, log_p_global, log_p_base)


def exact_shapley(
    base_model: nn.Module, client_updates: Updates, prompt_ids: Ids, response_ids: Ids, temperature: float = 1.0
) -> dict[str, float]:
    """Shapley values of v(S) = log p(response | theta_0 + sum over S of D_i), through every coalition S."""
    n = len(client_updates)
    assert n <= PLAYERS_MAX, f"{n} clients make {2**n} coalitions"
    value: dict[frozenset[str], float] = {}
    for S in (frozenset(members) for size in range(n + 1) for members in combinations(client_updates, size)):
        theta = _moved(base_model, [client_updates[client] for client in client_updates if client in S], 1.0)
        with torch.no_grad():
            value[S] = float(_log_p(base_model, theta, prompt_ids, response_ids, temperature).sum())

    values = dict.fromkeys(client_updates, 0.0)
    for client in client_updates:
        for S in (S for S in value if client not in S):
            values[client] += (value[S | {client}] - value[S]) / (n * math.comb(n - 1, len(S)))
    return values


def _moved(base_model: nn.Module, updates: Iterable[Mapping[str, Tensor]], a: float) -> dict[str, Tensor]:
    """theta_0 + a * (sum of the updates), for the parameters that some update changes."""
    base, totals = dict(base_model.named_parameters()), {}
    for update in updates:
        for name, D in update.items():
            assert D.shape == base[name].shape, f"{name}: {D.shape} is not {base[name].shape}"
            totals[name] = totals.get(name, 0) + D
    return {name: (base[name] + a * total).to(base[name].dtype).detach() for name, total in totals.items()}


# --- what both need ---


def _log_p(
    model: nn.Module, theta: Mapping[str, Tensor], prompt_ids: Ids, response_ids: Ids, temperature: float
) -> Tensor:
    """f_j = log softmax(logits / temperature)[x_j] of every response token: [response]."""
    logits = _logits(model, theta, [*prompt_ids, *response_ids])
    before = logits[len(prompt_ids) - 1 : -1]  # [response, vocabulary]: position t foretells token t + 1
    emitted = torch.tensor(response_ids, dtype=torch.long, device=logits.device)
    return (before.double() / temperature).log_softmax(-1).gather(-1, emitted[:, None])[:, 0]


def _logits(model: nn.Module, theta: Mapping[str, Tensor], ids: list[int]) -> Tensor:
    """Raw logits after every position, theta standing in for the weights it names: [ids, vocabulary]."""
    assert not model.training, "dropout would make the oracle random: call .eval() first"
    inputs = {"input_ids": torch.tensor([ids], device=model.device), "use_cache": False}
    return functional_call(model, dict(theta), (), inputs).logits[0]


def _inner(left: Tensor, right: Tensor) -> float:
    """<left, right> over all entries, in float64."""
    return float(torch.dot(left.flatten().double(), right.flatten().double()))
