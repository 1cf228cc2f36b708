"""Who taught this response: a finished generation in, scores and shares by client out.

Does not decode and does not know what a share is worth.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from attribution.errors import ScoreError
from attribution.model import FederatedModel
from attribution.records import AttributedResponse, Generation, Method
from attribution.scoring.credit_preset import USUAL_EFFORT, Effort, credit_scores
from attribution.scoring.interruptible import Pieces, run
from attribution.scoring.paper_preset import BlockCapture, position_local
from attribution.scoring.reading import context_of
from attribution.scoring.shares import Shares, netted_shares, softmax_shares
from attribution.teacher_forcing import forced_generation

# Named in every receipt, so that history can be recomputed: raise it whenever the same response would score otherwise.
VERSION = "2"


def attribute(
    model: FederatedModel,
    generation: Generation,
    *,
    method: Method = "credit",
    token_level: bool = False,
    effort: Effort = USUAL_EFFORT,
) -> AttributedResponse:
    """Score a response under one of the two presets (design 5).

    `credit` scores the response as a whole, and each token too where `token_level` asks, from its token ids and with
    as much `effort` as it takes; `paper` always scores tokens, from what decoding captured, else from the ids too.

    Raises:
        ScoreError: a score is NaN or infinite; nothing may be booked.
        BundleError: `paper` is asked of a bundle without last-round weights.
    """
    assert generation.token_ids, "a response of no tokens has nothing to attribute"
    in_pieces = paper_in_pieces if method == "paper" else credit_in_pieces
    return run(in_pieces(model, generation, token_level=token_level, effort=effort))


def credit_in_pieces(
    model: FederatedModel, generation: Generation, *, token_level: bool = False, effort: Effort = USUAL_EFFORT
) -> Pieces[AttributedResponse]:
    """What `attribute` does under `credit`, in pieces between which the model may decode; raises as it does."""
    temperature = generation.sampling.scoring_temperature
    ids = generation.prompt_token_ids, generation.token_ids
    captured = generation.tail_input
    prefix = captured if captured is not None and captured.dtype == model.scored.dtype else None
    context = context_of(*ids, temperature, model.device, prefix)
    made = yield from credit_scores(model.path, context, effort, by_token=token_level)
    _require_finite(made.scores, made.log_p_global, made.log_p_base)
    totals = made.scores.sum(1) if token_level else made.scores
    response_scores = dict(zip(model.client_ids, totals.tolist(), strict=True))
    return _response(
        generation,
        "credit",
        {
            "nodes": made.nodes,
            "tolerance": effort.tolerance,
            "temperature": temperature,
            "dtype": str(model.scored.dtype).removeprefix("torch."),
            "served_dtype": model.dtype,
        },
        _by_client(model.client_ids, made.scores) if token_level else None,
        response_scores,
        netted_shares(response_scores, made.log_p_global.tolist(), made.log_p_base.tolist()),
        made.gain,
        made.completeness_error,
    )


def paper_in_pieces(
    model: FederatedModel,
    generation: Generation,
    *,
    token_level: bool = True,  # noqa: ARG001 - as of `credit_in_pieces`: it always scores tokens
    effort: Effort = USUAL_EFFORT,  # noqa: ARG001 - and is exact
) -> Pieces[AttributedResponse]:
    """What `attribute` does under `paper`, in one piece, and one before it where its captures were not kept."""
    if not len(generation.block_input):
        ids = generation.prompt_token_ids, generation.token_ids
        forced = forced_generation(model, *ids, generation.sampling.temperature)
        generation = replace(
            generation,
            block_input=forced.block_input,
            o_proj_input=forced.o_proj_input,
            o_proj_output=forced.o_proj_output,
        )
        yield
    return _paper(model, generation)


def _paper(model: FederatedModel, generation: Generation) -> AttributedResponse:
    tokens = torch.tensor(generation.token_ids, device=model.device)
    captured = BlockCapture(generation.block_input, generation.o_proj_input, generation.o_proj_output, tokens)
    by_token = position_local(model.network, model.layers, captured, model.last_round)  # (clients, T)
    scores = _by_client(model.last_round.clients, by_token)
    response_scores = {client: sum(values) for client, values in scores.items()}
    shares = softmax_shares(response_scores, len(tokens))
    absent = dict.fromkeys(model.client_ids, 0.0)
    shares = Shares(absent | dict(shares.clients), shares.base_share, shares.base_shares)
    settings = {
        "layers": [model.layers.o_proj_name, model.layers.mlp_name, "lm_head"],
        "dtype": model.dtype,
        "served_dtype": model.dtype,
    }
    return _response(generation, "paper", settings, scores, response_scores, shares, None, None)


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
