"""Preset `credit`: scores from derivatives of the log-probability along the line base → global.

    φ_ij = Σ_m w_m ∂ log p(x_j | θ(a_m · 1)) / ∂ c_i        (design 5; science 2.4 B; Aumann and Shapley 1974)

with a_m, w_m a rule on [0, 1]. With enough nodes Σ_i φ_ij = log p_global(x_j) − log p_base(x_j), so the gap between the
two tells whether they were enough. Does not know how tokens were decoded, nor what is paid.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.scoring.interruptible import Pieces
from attribution.scoring.path import UpdatePath
from attribution.scoring.quadrature import NESTED_RULES, Rule, gauss_legendre
from attribution.scoring.reading import Context, coefficients_of, log_probabilities, read_prefix
from attribution.scoring.slopes import MEMORY_BYTES, slopes
from attribution.scoring.tangents import tangents

DEFAULT_TOLERANCE = 0.02
"""Where nobody says; a service says the setting `tolerance`, whose default is held to this one by a test."""
_SMALL_GAIN = 0.01  # nats a token; where the gain is less, the base earns 99 % and more of the response


@dataclass(frozen=True)
class Effort:
    """How exactly a response is scored.

    Attributes:
        nodes: how many points of the Gauss–Legendre rule; None takes 3, then 7, then 15, until the gap is small enough.
        tolerance: the gap that is small enough, as a part of the gain, or of 0.01 nats a token where that is more.
        memory_bytes: what a backward pass may keep of its forward pass, beyond which blocks are run again.
        nested: whether `nodes` is of the rules that None takes, as whoever repeats a score needs it.
    """

    nodes: int | None = None
    tolerance: float = DEFAULT_TOLERANCE
    memory_bytes: int = MEMORY_BYTES
    nested: bool = False

    @property
    def rules(self) -> Sequence[Rule]:
        """What is tried, one after the other."""
        if self.nested:
            return [rule for rule in NESTED_RULES if self.nodes in (None, len(rule.points))]
        return NESTED_RULES if self.nodes is None else (gauss_legendre(self.nodes),)


def repeated_efforts(nodes: int) -> tuple[Effort, ...]:
    """How a score of so many nodes may have come about, likeliest first: as many as it took, or as many as were set.

    Three are the same three either way; of a model that nobody changed there are none.
    """
    known = {len(rule.points) for rule in NESTED_RULES}
    as_set = (Effort(nodes),) if nodes and nodes != min(known) else ()
    return (*([Effort(nodes, nested=True)] if nodes in known else []), *as_set) or (USUAL_EFFORT,)


USUAL_EFFORT = Effort()


@dataclass(frozen=True)
class CreditScores:
    """What a response scores.

    Attributes:
        scores: (clients,), or (clients, T) where tokens are told apart; signed, in nats, float64.
        log_p_global: (T,) float64, of each token under the global model.
        log_p_base: the same under the base model.
        nodes: at how many points slopes were taken.
    """

    scores: Tensor
    log_p_global: Tensor
    log_p_base: Tensor
    nodes: int

    @property
    def gain(self) -> float:
        """Log p_global − log p_base of the response, in nats."""
        return float((self.log_p_global - self.log_p_base).sum())

    @property
    def completeness_error(self) -> float:
        """What the scores leave of the gain, in nats."""
        return abs(self.gain - float(self.scores.sum()))


def credit_scores(
    path: UpdatePath, context: Context, effort: Effort = USUAL_EFFORT, *, by_token: bool = False
) -> Pieces[CreditScores]:
    """Signed scores of a response, with as much effort as it needs."""
    context = yield from read_prefix(path, context)
    log_p_global, log_p_base = yield from log_probabilities(path, (1.0, 0.0), context)

    def at(point: float) -> Pieces[Tensor]:
        if by_token:
            return tangents(path, point, context)
        return _response_slopes(path, point, context, effort.memory_bytes)

    known: dict[float, Tensor] = {}
    shape = (path.clients, len(context.tokens)) if by_token else (path.clients,)
    zeros = torch.zeros(shape, dtype=torch.float64, device=path.device)
    if not path.moves:
        return CreditScores(zeros, log_p_global, log_p_base, 0)
    for rule in effort.rules:
        yield from _take(at, rule, known)
        pairs = zip(rule.points, rule.weights, strict=True)
        total = torch.stack([weight * known[point] for point, weight in pairs]).sum(0)
        made = CreditScores(total, log_p_global, log_p_base, len(rule.points))
        if made.completeness_error <= effort.tolerance * max(abs(made.gain), _SMALL_GAIN * len(context.tokens)):
            break
    return made


def _take(at: Callable[[float], Pieces[Tensor]], rule: Rule, known: dict[float, Tensor]) -> Pieces[None]:
    """Take the slopes at the points of a rule where they are not known."""
    for point in rule.points:
        if point not in known:
            known[point] = yield from at(point)


def _response_slopes(path: UpdatePath, point: float, context: Context, memory_bytes: int) -> Pieces[Tensor]:
    rows = yield from slopes(path, coefficients_of(path, [point]), context, memory_bytes)
    return rows[0]
