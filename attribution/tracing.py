"""Who is behind these responses: clients ranked by responsibility, with a confidence; for debugging and for culprits.

Does not decide what happens to a culprit.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attribution.attribute import attribute
from attribution.errors import RecipeError
from attribution.model import FederatedModel
from attribution.progress import Progress
from attribution.records import AttributedResponse
from attribution.teacher_forcing import response_to

_RESAMPLES = 2000
_SURE = 0.95
_FEW = 5  # responses
_LITTLE = 1.0  # nats per response


@dataclass(frozen=True)
class FlaggedResponse:
    """A response that somebody objects to; where it is None, the model is asked and its answer taken."""

    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Suspect:
    """One client's part in the flagged responses.

    `responsibility` is its share of what clients contributed, by `credit` scores summed over the responses, those below
    0 counted as 0; `score` is their mean in nats a response. `confidence` is the part of bootstrap resamples of the
    responses in which its responsibility exceeds an even share, 1 / clients. `top_in` counts the responses in which
    it scores highest. `paper_share` is its mean share under the preset `paper`, None without last-round weights.
    """

    client: str
    responsibility: float
    confidence: float
    score: float
    top_in: int
    paper_share: float | None


@dataclass(frozen=True)
class Trace:
    """Suspects in falling responsibility; `gain` is the mean over the base model in nats, `verdict` a sentence."""

    suspects: tuple[Suspect, ...]
    responses: int
    gain: float
    base_share: float
    verdict: str


def trace(
    model: FederatedModel, flagged: Sequence[FlaggedResponse], *, max_new_tokens: int, progress: Progress
) -> Trace:
    """Rank the clients by their responsibility for the flagged responses.

    Raises:
        RecipeError: nothing is flagged.
        PromptError: a prompt or response is empty or too long.
        ScoreError: a score is NaN or infinite.
    """
    if not flagged:
        raise RecipeError("no response is flagged; at least one is needed")
    progress.start("tracing", len(flagged))
    credit, paper = [], []
    for each in flagged:
        generation = response_to(model, each.prompt_ids, each.token_ids, max_new_tokens)
        credit.append(attribute(model, generation))
        if model.bundle.last_round:
            paper.append(attribute(model, generation, method="paper"))
        progress.advance()
    scores = [response.response_scores for response in credit]
    clients = model.client_ids
    whole, confidence = _responsibility(clients, scores), _confidence(clients, scores)
    suspects = [
        Suspect(
            client=client,
            responsibility=whole[client],
            confidence=confidence[client],
            score=sum(each[client] for each in scores) / len(scores),
            top_in=sum(max(each, key=each.__getitem__) == client for each in scores),
            paper_share=sum(each.shares[client] for each in paper) / len(paper) if paper else None,
        )
        for client in clients
    ]
    suspects.sort(key=lambda suspect: (-suspect.responsibility, -suspect.score, suspect.client))
    gain = sum(response.gain or 0.0 for response in credit) / len(credit)
    base_share = _base_share(credit)
    return Trace(tuple(suspects), len(flagged), gain, base_share, _verdict(suspects, len(flagged), gain))


def _responsibility(clients: Sequence[str], scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Positive parts of the summed scores, to sum 1; all 0 where no client contributed."""
    totals = {client: max(0.0, sum(each[client] for each in scores)) for client in clients}
    whole = sum(totals.values())
    return {client: total / whole if whole > 0 else 0.0 for client, total in totals.items()}


def _confidence(clients: Sequence[str], scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    chance: Any = random.Random(0)  # noqa: S311 - statistics, not secrets
    above = dict.fromkeys(clients, 0)
    for _ in range(_RESAMPLES):
        shares = _responsibility(clients, chance.choices(scores, k=len(scores)))
        for client, share in shares.items():
            above[client] += share > 1 / len(clients)
    return {client: count / _RESAMPLES for client, count in above.items()}


def _base_share(responses: Sequence[AttributedResponse]) -> float:
    tokens = [len(response.token_ids) for response in responses]
    return sum(count * each.base_share for count, each in zip(tokens, responses, strict=True)) / sum(tokens)


def _verdict(suspects: Sequence[Suspect], responses: int, gain: float) -> str:
    if gain < _LITTLE:
        return f"Nobody: the base model says this nearly as well itself (gain {gain:.2f} nats a response)."
    sure = [suspect for suspect in suspects if suspect.confidence >= _SURE]
    if not any(suspect.top_in for suspect in sure):
        return f"Not settled: no client stands out with a confidence of {_SURE:g}; flag more responses."
    few = f", from {responses} responses only: flag more" if responses < _FEW else ""
    named = [suspect for suspect in sure if suspect.top_in]
    part = sum(each.responsibility for each in named)
    aside = [suspect for suspect in sure if not suspect.top_in]
    rest = f" {_names(aside)} had more than an even share, but most of none: accuse nobody by that." if aside else ""
    return f"Look at {_names(named)}: {part:.0%} of what clients contributed{few}.{rest}"


def _names(suspects: Sequence[Suspect]) -> str:
    return " and ".join(repr(suspect.client) for suspect in suspects)
