"""Which token comes next, for all rows of a step at once; what was chosen comes to the host in one piece.

In the order that `Sampling` tells. A row's token depends on its own logits and its own number alone, whoever else is
there. Knows no text and no model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from attribution.records import Sampling

CANDIDATES = 1024
"""So many of the likeliest tokens are looked at before a row's whole vocabulary is sorted."""


@dataclass(frozen=True)
class Draw:
    """What one row brings to the choice of its next token.

    `uniform`, in 0 to 1 without 1, decides where chance does; `adjustments` are added to the logits of tokens.
    """

    sampling: Sampling
    uniform: float
    adjustments: Mapping[int, float]

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is taken."""
        return self.sampling.temperature == 0 or self.sampling.top_p == 0

    @property
    def is_cut(self) -> bool:
        """Whether only some of the tokens may be drawn."""
        return self.sampling.top_k > 0 or self.sampling.top_p < 1 or self.sampling.min_p > 0


@dataclass(frozen=True)
class Choice:
    """A token, its log-probability (NaN where the logits are no numbers), and the likeliest tokens at its place."""

    token: int
    logprob: float
    top_logprobs: tuple[tuple[int, float], ...] = ()


@torch.inference_mode()
def choose_tokens(logits: Tensor, draws: Sequence[Draw]) -> list[Choice]:
    """The next token of each row, from logits (rows, vocabulary).

    The host waits for the device once, and once more where a row keeps a part of its vocabulary by probability.
    """
    log_p = _log_p(logits, draws)
    adjusted = [row for row, draw in enumerate(draws) if draw.adjustments]
    drawn_from = log_p if not adjusted else log_p.index_copy(0, _numbers(adjusted, logits), _adjust(logits, draws))
    tokens = torch.empty(len(draws), dtype=torch.long, device=logits.device)
    greedy = [row for row, draw in enumerate(draws) if draw.is_greedy]
    cut = [row for row, draw in enumerate(draws) if draw.is_cut and not draw.is_greedy]
    whole = [row for row, draw in enumerate(draws) if not draw.is_cut and not draw.is_greedy]
    if greedy:
        tokens[greedy] = _rows_of(drawn_from, greedy).argmax(-1)
    if whole:
        uniforms = [draws[row].uniform for row in whole]
        tokens[whole] = _draw(_rows_of(drawn_from, whole).exp(), uniforms)
    if cut:
        tokens[cut] = _drawn_from_some(_rows_of(drawn_from, cut), [draws[row] for row in cut])
    return _choices(log_p, tokens, draws)


def _log_p(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """The model's own distribution at the temperatures of the rows."""
    temperatures = [draw.sampling.scoring_temperature for draw in draws]
    logits = logits.float()
    if any(temperature != 1 for temperature in temperatures):
        logits = logits / torch.tensor(temperatures, device=logits.device).unsqueeze(-1)
    return torch.log_softmax(logits, -1)


def _adjust(logits: Tensor, draws: Sequence[Draw]) -> Tensor:
    """The distributions of the rows that have adjustments, with these."""
    rows = [row for row, draw in enumerate(draws) if draw.adjustments]
    places = [(at, token) for at, row in enumerate(rows) for token in draws[row].adjustments]
    added = [value for row in rows for value in draws[row].adjustments.values()]
    adjusted = logits[rows].float()
    index = _numbers(places, logits).t()
    adjusted.index_put_((index[0], index[1]), torch.tensor(added, device=logits.device), accumulate=True)
    return _log_p(adjusted, [draws[row] for row in rows])


def _draw(weights: Tensor, uniforms: Sequence[float]) -> Tensor:
    """Where the sums of weights (rows, n) pass the uniform numbers: each index as often as its weight says."""
    sums = weights.cumsum(-1, dtype=torch.float64)
    targets = torch.tensor(uniforms, dtype=torch.float64, device=weights.device).unsqueeze(-1) * sums[:, -1:]
    return torch.searchsorted(sums, targets, right=True).squeeze(-1).clamp_(max=weights.shape[-1] - 1)


def _drawn_from_some(log_p: Tensor, draws: Sequence[Draw]) -> Tensor:
    """A token of each row whose top_k, top_p or min_p keeps some only.

    Seldom does a row keep more than the candidates; only then is the whole vocabulary of that row sorted.
    """
    vocabulary = log_p.shape[-1]
    looked_at = min(max(draw.sampling.top_k or CANDIDATES for draw in draws), vocabulary)
    values, order = log_p.topk(looked_at)
    kept = _keep(values, draws)
    tokens = _token_of(kept, order, draws)
    if looked_at < vocabulary and not all(draw.sampling.top_k for draw in draws):
        open_ended = kept[:, -1].gt(0).tolist()
        more = [row for row, draw in enumerate(draws) if open_ended[row] and not draw.sampling.top_k]
        if more:
            values, order = log_p[more].sort(descending=True)
            some = [draws[row] for row in more]
            tokens[more] = _token_of(_keep(values, some), order, some)
    return tokens


def _keep(log_p: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Probabilities (rows, n) from log-probabilities that fall along a row, 0 where a token may not be drawn."""
    settings = torch.tensor(
        [
            (each.top_k, each.top_p if each.top_p < 1 else torch.inf, each.min_p)
            for each in (draw.sampling for draw in draws)
        ],
        dtype=torch.float64,
        device=log_p.device,
    )
    top_k, top_p, min_p = settings.unsqueeze(-1).unbind(1)  # each (rows, 1)
    p = log_p.double().exp()
    p = torch.where((torch.arange(p.shape[-1], device=p.device) < top_k) | (top_k == 0), p, 0)
    of_which = torch.where(top_k > 0, p.sum(-1, keepdim=True), 1.0)
    before = (p.cumsum(-1) - p) / of_which
    keeps = (before < top_p) & (p >= min_p * p[:, :1])
    keeps[:, 0] = True  # a top_p too small for the arithmetic still leaves the likeliest token
    return torch.where(keeps, p, 0)


def _token_of(kept: Tensor, order: Tensor, draws: Sequence[Draw]) -> Tensor:
    ranks = _draw(kept, [draw.uniform for draw in draws])
    return order.gather(-1, ranks.unsqueeze(-1)).squeeze(-1)


def _choices(log_p: Tensor, tokens: Tensor, draws: Sequence[Draw]) -> list[Choice]:
    """All that was chosen, brought to the host together; token ids are exact in float64."""
    columns = [tokens.unsqueeze(-1).double(), log_p.gather(-1, tokens.unsqueeze(-1)).double()]
    most = max(draw.sampling.top_logprobs for draw in draws)
    if most:
        values, order = log_p.topk(min(most, log_p.shape[-1]))
        columns += [order.double(), values.double()]
    choices = []
    for draw, (token, logprob, *rest) in zip(draws, torch.cat(columns, -1).tolist(), strict=True):
        likeliest = zip(map(int, rest[: len(rest) // 2]), rest[len(rest) // 2 :], strict=True)
        choices.append(Choice(int(token), logprob, tuple(likeliest)[: draw.sampling.top_logprobs]))
    return choices


def _rows_of(tensor: Tensor, rows: list[int]) -> Tensor:
    return tensor if len(rows) == len(tensor) else tensor[rows]


def _numbers(numbers: Sequence[int] | Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    return torch.tensor(numbers, device=like.device)
