"""Who taught this response: a finished generation in, scores and shares by client out.

Does not decode and does not know what a share is worth.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attribution.errors import ScoreError
from attribution.model import FederatedModel
from attribution.records import AttributedResponse, Generation, Method
from attribution.scoring.credit_preset import Context, base_log_probabilities, response_level, token_level
from attribution.scoring.nodes import DEFAULT_NODES
from attribution.scoring.paper_preset import BlockCapture, position_local
from attribution.scoring.shares import Shares, netted_shares, softmax_shares

# Named in every receipt, so that history can be recomputed: raise it whenever the same response would score otherwise.
VERSION = "1"


def attribute(
    model: FederatedModel,
    generation: Generation,
    *,
    method: Method = "credit",
    token_level: bool = False,
    nodes: int = DEFAULT_NODES,
) -> AttributedResponse:
    """Score a response under one of the two presets (design 5).

    `credit` scores the response as a whole, and each token too where `token_level` asks, at `nodes` points between base
    and global model; `paper` always scores tokens.

    Raises:
        ScoreError: a score is NaN or infinite; nothing may be booked.
        BundleError: `paper` is asked of a bundle without last-round weights.
    """
    assert generation.token_ids, "a response of no tokens has nothing to attribute"
    if method == "paper":
        return _paper(model, generation)
    return _credit(model, generation, nodes, by_token=token_level)


def _paper(model: FederatedModel, generation: Generation) -> AttributedResponse:
    assert len(generation.block_input), "`paper` scores what was decoded with Captures.PAPER"
    tokens = torch.tensor(generation.token_ids, device=model.device)
    captured = BlockCapture(generation.block_input, generation.o_proj_input, generation.o_proj_output, tokens)
    by_token = position_local(model.network, model.layers, captured, model.last_round)  # (clients, T)
    scores = _by_client(model.last_round.clients, by_token)
    response_scores = {client: sum(values) for client, values in scores.items()}
    shares = softmax_shares(response_scores, len(tokens))
    absent = dict.fromkeys(model.client_ids, 0.0)
    shares = Shares(absent | dict(shares.clients), shares.base_share, shares.base_shares)
    settings = {"layers": [model.layers.o_proj_name, model.layers.mlp_name, "lm_head"]}
    return _response(generation, "paper", settings, scores, response_scores, shares, None, None)


def _credit(model: FederatedModel, generation: Generation, nodes: int, *, by_token: bool) -> AttributedResponse:
    context = _context(model, generation)
    log_p_base = base_log_probabilities(model.path, context)
    gain = sum(generation.logprobs) - float(log_p_base.sum())
    if by_token:
        per_token = token_level(model.path, context, nodes)
        scores = _by_client(model.client_ids, per_token)
        totals = per_token.sum(1)
    else:
        scores = None
        totals = response_level(model.path, context, nodes)
    _require_finite(totals, log_p_base, torch.tensor(generation.logprobs))
    response_scores = dict(zip(model.client_ids, totals.tolist(), strict=True))
    shares = netted_shares(response_scores, generation.logprobs, log_p_base.tolist())
    settings = {"nodes": nodes, "temperature": generation.sampling.scoring_temperature}
    error = abs(gain - float(totals.sum()))
    return _response(generation, "credit", settings, scores, response_scores, shares, gain, error)


def _context(model: FederatedModel, generation: Generation) -> Context:
    prompt, tokens = generation.prompt_token_ids, generation.token_ids
    if generation.tail_input is None:
        assert model.first_block is None, "a part of the network is scored by what Captures.CREDIT keeps"
        inputs = {"input_ids": torch.tensor([[*prompt, *tokens[:-1]]], device=model.device)}
    else:
        inputs = {"inputs_embeds": generation.tail_input.unsqueeze(0)}
    positions = torch.arange(len(prompt) - 1, len(prompt) - 1 + len(tokens), device=model.device)
    emitted = torch.tensor(tokens, device=model.device)
    return Context(inputs, positions, emitted, generation.sampling.scoring_temperature)


def _by_client(clients: tuple[str, ...], scores: Tensor) -> dict[str, tuple[float, ...]]:
    _require_finite(scores)
    return {client: tuple(row) for client, row in zip(clients, scores.tolist(), strict=True)}


def _require_finite(*tensors: Tensor) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise ScoreError("a score is NaN or infinite; this response cannot be attributed and books nothing")


def _response(
    generation: Generation,
    method: Method,
    settings: Mapping[str, Any],
    scores: dict[str, tuple[float, ...]] | None,
    response_scores: dict[str, float],
    shares: Shares,
    gain: float | None,
    completeness_error: float | None,
) -> AttributedResponse:
    return AttributedResponse(
        prompt_token_ids=generation.prompt_token_ids,
        token_ids=generation.token_ids,
        tokens=generation.tokens,
        text=generation.text,
        method=method,
        settings=settings,
        version=VERSION,
        scores=scores,
        response_scores=response_scores,
        shares=shares.clients,
        base_share=shares.base_share,
        base_shares=shares.base_shares,
        gain=gain,
        completeness_error=completeness_error,
    )
