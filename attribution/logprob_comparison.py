"""Are these log-probabilities the bundle's? Of responses that somebody else generated, and says how likely they were.

Two questions. How far are the log-probabilities from the bundle's own, token by token: half precision errs by a few
hundredths of a nat, other weights by more. And are they nearer to those of the bundle without one client's update: what
a missing update changes is known, token by token, so that it is found where it is smaller than the first question's
noise. Knows no engine, and decides nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.model import FederatedModel
from attribution.scoring.interruptible import Pieces
from attribution.scoring.reading import context_of, log_probabilities_at, read_prefix

_HALF = 0.5  # a part of an update that is nearer to the whole of it than to none
_SURE = 5.0  # standard errors; so few of them reach from none of an update to the half of it


@dataclass(frozen=True)
class Deviation:
    """Of one response of T tokens, in nats, float64.

    Attributes:
        told: (T,), the log-probabilities that were told less the bundle's.
        without: (clients, T), those of the bundle without one client's update less the bundle's.
    """

    told: Tensor
    without: Tensor


@dataclass(frozen=True)
class Comparison:
    """What some responses say of the weights that generated them.

    Attributes:
        tokens: of all of them.
        difference_nats: the mean of the distances, token by token.
        other: clients whose updates are likely not in those weights, or are not in them once.
        unsure: clients of whose updates the responses say too little.
    """

    tokens: int
    difference_nats: float
    other: tuple[str, ...]
    unsure: tuple[str, ...] = ()


def deviation_of(
    model: FederatedModel, prompt_ids: Sequence[int], token_ids: Sequence[int], told: Sequence[float]
) -> Pieces[Deviation]:
    """How log-probabilities that were told, at temperature 1, deviate from those of the bundle; in pieces."""
    path = model.path
    context = yield from read_prefix(path, context_of(prompt_ids, token_ids, 1.0, model.device))
    whole = torch.ones(1, path.clients, dtype=torch.float64, device=path.device)
    ours = (yield from log_probabilities_at(path, whole, context))[0]
    without = []
    for client in range(path.clients):
        lacking = whole.clone()
        lacking[0, client] = 0
        without.append((yield from log_probabilities_at(path, lacking, context))[0] - ours)
    return Deviation(torch.tensor(told, dtype=torch.float64) - ours.cpu(), torch.stack(without).cpu())


def compare(clients: Sequence[str], deviations: Sequence[Deviation]) -> Comparison:
    """What all responses together say."""
    told = torch.cat([each.told for each in deviations])
    without = torch.cat([each.without for each in deviations], dim=1)
    lacks = {client: _lack(told, direction) for client, direction in zip(clients, without, strict=True)}
    return Comparison(
        tokens=len(told),
        difference_nats=float(told.abs().mean()),
        other=tuple(client for client, (part, error) in lacks.items() if abs(part) > max(_HALF, _SURE * error)),
        unsure=tuple(client for client, (_, error) in lacks.items() if _SURE * error > _HALF),
    )


def _lack(told: Tensor, direction: Tensor) -> tuple[float, float]:
    """Which part of an update is lacking in what was told, and its standard error.

    By least squares of the one upon the other; the error is White's, as rare tokens err more than others.
    """
    square = float(direction.square().sum())
    if square == 0:  # an update that changes nothing is missed by nobody
        return 0.0, 0.0
    part = float((direction * told).sum()) / square
    return part, float((direction * (told - part * direction)).square().sum()) ** 0.5 / square
