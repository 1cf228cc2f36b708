"""How right the shares are that `credit` pays on one bundle: held against Shapley values of that bundle's own updates.

The game is v(S) = log p(response | base + Σ_{i ∈ S} D_i); what is compared of it, and how, is as in E9
(`experiments.fairness`). Takes responses that somebody else asked for. Knows no file of prompts, and no ledger.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

import numpy as np

from attribution.attribute import VERSION, attribute
from attribution.bundle.bundle import manifest_sha256
from attribution.evaluation.calibration_report import CalibrationFigures, CalibrationReport, Measured
from attribution.evaluation.experiments.domains import GAIN, commons_of_small_gains
from attribution.evaluation.ground_truth import (
    ReconstructedGame,
    ScoredResponse,
    Truth,
    coalitions_asked,
    exact_shapley,
    sampled_shapley,
)
from attribution.evaluation.results import Figure
from attribution.evaluation.shapley import PLAYERS_MAX
from attribution.evaluation.statistics import ShareComparison, compare_shares, mean, positive_shares, total_variation
from attribution.model import FederatedModel
from attribution.progress import Progress
from attribution.records import AttributedResponse, Generation
from attribution.scoring.credit_preset import USUAL_EFFORT

DEFAULT_PAIRS = 50
_SCORING_PASSES = 10  # about what three nodes take, forwards and backwards, with base and global model


@dataclass(frozen=True)
class Prompts:
    """Where the responses came from: the hash of the file, and the most tokens that the model was asked for."""

    sha256: str
    max_new_tokens: int


@dataclass(frozen=True)
class _Row:
    """One response as `credit` pays it, and each client's true value with the error that sampling leaves in it."""

    paid: AttributedResponse
    values: Mapping[str, float]
    errors: Mapping[str, float] | None

    @property
    def gain(self) -> float:
        assert self.paid.gain is not None, "`credit` tells the gain"
        return self.paid.gain


def passes_needed(clients: int, responses: int, pairs: int) -> int:
    """About how many passes of a model a calibration takes, to be told before it begins."""
    return responses * (coalitions_asked(clients, pairs) + _SCORING_PASSES)


def calibrate(
    model: FederatedModel, generations: Sequence[Generation], prompts: Prompts, pairs: int, progress: Progress
) -> CalibrationReport:
    """Score the responses as a service does by default, and hold their shares against the truth.

    The truth is exact up to `PLAYERS_MAX` clients; of more it is sampled from `pairs` orders and their reverses, drawn
    by the hash of the model, so that nobody can choose them and everybody finds the same.

    Raises:
        ScoreError: a score is NaN or infinite.
        ModelError: the base model cannot be found.
    """
    assert generations, "without a response nothing can be compared"
    rows = _rows(model, generations, pairs, progress)
    is_exact = len(model.client_ids) <= PLAYERS_MAX
    gained = [row for row in rows if row.gain > GAIN]
    compared = _comparison(gained)
    return CalibrationReport(
        consortium=model.name,
        model_sha256=model.global_sha256,
        manifest_sha256=manifest_sha256(model.bundle.path),
        method="credit",
        attribution_version=VERSION,
        tolerance=USUAL_EFFORT.tolerance,
        dtype=str(model.scored.dtype).removeprefix("torch."),
        clients=len(model.client_ids),
        truth="exact" if is_exact else "permutations",
        permutations=None if is_exact else 2 * pairs,
        prompts_sha256=prompts.sha256,
        max_new_tokens=prompts.max_new_tokens,
        responses=len(rows),
        least_gain=GAIN,
        small_gains=len(rows) - len(gained),
        without_shares=len(gained) - len(compared.distances),
        figures=_figures(rows, gained, compared),
        version=version("protoken"),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _rows(model: FederatedModel, generations: Sequence[Generation], pairs: int, progress: Progress) -> list[_Row]:
    progress.start("scoring", len(generations))
    paid = []
    for generation in generations:
        paid.append(attribute(model, generation, effort=USUAL_EFFORT))
        progress.advance()
    truth = _truth(model, [ScoredResponse.from_generation(each) for each in generations], pairs, progress)
    errors = truth.standard_errors
    return [
        _Row(
            response,
            {client: float(values[place]) for client, values in truth.values.items()},
            None if errors is None else {client: float(of_client[place]) for client, of_client in errors.items()},
        )
        for place, response in enumerate(paid)
    ]


def _truth(model: FederatedModel, responses: Sequence[ScoredResponse], pairs: int, progress: Progress) -> Truth:
    game = ReconstructedGame(model.bundle)
    if len(game.players) <= PLAYERS_MAX:
        return exact_shapley(game, responses, progress)
    return sampled_shapley(game, responses, pairs, model.global_sha256, progress)


def _comparison(rows: Sequence[_Row]) -> ShareComparison:
    return compare_shares((positive_shares(row.paid.response_scores), positive_shares(row.values)) for row in rows)


def _figures(rows: Sequence[_Row], gained: Sequence[_Row], compared: ShareComparison) -> CalibrationFigures:
    distances, points = compared.distances, compared.points
    unexplained = [_completeness_error(row) for row in gained]
    largest = max((abs(true - given) for true, given in points), default=None)
    p95 = float(np.percentile(distances, 95)) if distances else None
    errors = [error for row in gained if (error := _sampling_distance(row)) is not None]
    return CalibrationFigures(
        distance=_figure(mean("distance", distances, "share")),
        distance_p95=Measured(value=p95, n=len(distances)),
        correlation=Measured(value=compared.correlation, n=len(points)),
        completeness_error=_figure(mean("completeness error", unexplained, "relative error")),
        largest_difference=Measured(value=largest, n=len(points)),
        settled_distance=Measured(value=_settled_distance(rows), n=len(rows)),
        small_gains_commons=_figure(commons_of_small_gains([_as_experiments_have_it(row) for row in rows])),
        truth_error=_figure(mean("truth error", errors, "share")),
    )


def _figure(figure: Figure) -> Measured:
    """A figure of an experiment, which says 0 or 1 where there was nothing to measure, without what that may not be."""
    return Measured(value=figure.value if figure.n else None, n=figure.n, low=figure.low, high=figure.high)


def _completeness_error(row: _Row) -> float:
    assert row.paid.completeness_error is not None, "`credit` tells what its scores leave"
    return row.paid.completeness_error / abs(row.gain)


def _sampling_distance(row: _Row) -> float | None:
    """The distance from the truth that its sampling alone is to be expected to make; None where it is exact.

    A normal error of standard deviation σ is √(2/π) σ in the mean; a response's values sum to its gain in any sample.
    """
    earned = sum(max(value, 0.0) for value in row.values.values())
    if row.errors is None or earned <= 0:
        return None
    return math.sqrt(2 / math.pi) * sum(row.errors.values()) / earned / 2


def _settled_distance(rows: Sequence[_Row]) -> float | None:
    """How far what all responses together pay to clients is from what they would pay by true values.

    A response pays for each token what the base model leaves of it, by either; one of little gain so pays little. None
    where nobody is paid anything.
    """
    given, true = (dict.fromkeys(rows[0].values, 0.0) for _ in range(2))
    for row in rows:
        payable = len(row.paid.token_ids) - sum(row.paid.base_shares)  # in tokens
        for total, scores in ((given, row.paid.response_scores), (true, row.values)):
            for client, share in (positive_shares(scores) or {}).items():
                total[client] += payable * share
    shares = positive_shares(given), positive_shares(true)
    return None if shares[0] is None or shares[1] is None else total_variation(shares[0], shares[1])


def _as_experiments_have_it(row: _Row) -> dict[str, float]:
    return {"gain": row.gain, "tokens": len(row.paid.token_ids), "base_share": row.paid.base_share}
