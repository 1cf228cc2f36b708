"""How near shares are to exact Shapley shares: of the delivered updates (E9), of what is trained anew (E10).

All on the consortium of ordinary knowledge (`domains`), on questions that nobody trained on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field

from attribution.attribute import attribute
from attribution.bundle.bundle import Bundle
from attribution.evaluation.experiment import Experiment, ResultRow, ResultRows
from attribution.evaluation.experiments.domains import (
    GAIN,
    NaturalSettings,
    SharesOf,
    natural_bundle,
    natural_participants,
    responses,
    twin_gaps,
)
from attribution.evaluation.ground_truth import (
    Game,
    ReconstructedGame,
    RetrainedGame,
    ScoredResponse,
    Truth,
    exact_shapley,
    leave_one_out,
)
from attribution.evaluation.harness import Harness
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.evaluation.shapley import linear_datamodelling_score
from attribution.evaluation.statistics import compare_shares, mean, positive_shares, rank_correlation, softmax_of
from attribution.model import FederatedModel
from attribution.records import Generation
from attribution.scoring.credit_preset import Effort

_PAID = "credit, as paid"
_DELIVERED = "exact Shapley of the delivered updates"


class ShapleySettings(NaturalSettings):
    """`nodes` are the numbers of Gauss–Legendre nodes compared with what is paid, which takes as many as it needs.

    `compared` responses a domain, of those that gained enough, are held against the ground truth, which is slow.
    """

    nodes: tuple[int, ...] = Field(default=(3, 7), min_length=1)
    compared: int = Field(default=14, ge=1)


def _cases(settings: ShapleySettings, _: Harness) -> list[str]:
    return [f"seed-{seed}" for seed in settings.seeds]


def _seed(case: str) -> int:
    return int(case.rpartition("-")[2])


def _score(model: FederatedModel, generation: Generation, nodes: tuple[int, ...]) -> ResultRow:
    """One response's scores by `credit` as it pays and at each number of nodes, and by `paper`."""
    by_nodes = {str(count): attribute(model, generation, effort=Effort(nodes=count)) for count in nodes}
    paid = attribute(model, generation)
    return {
        "tokens": len(generation.token_ids),
        "gain": paid.gain,
        "base_share": paid.base_share,
        "paid": dict(paid.response_scores),
        "credit": {count: dict(each.response_scores) for count, each in by_nodes.items()},
        "paper": dict(attribute(model, generation, method="paper").response_scores),
    }


def _run_shapley(case: str, settings: ShapleySettings, harness: Harness) -> ResultRows:
    """Scores of each response, and what the reconstructed game says of those compared."""
    return _rows_with_truth(case, settings, harness, lambda bundle: [("shapley", ReconstructedGame(bundle))])


def _rows_with_truth(
    case: str, settings: ShapleySettings, harness: Harness, games_of: Callable[[Bundle], list[tuple[str, Game]]]
) -> ResultRows:
    """Every response's scores, and of those compared its values in each game, by its name; the last is the truth."""
    bundle, held_out = natural_bundle(settings, harness, _seed(case))
    model = FederatedModel.load(bundle.path)
    pairs = list(responses(model, held_out, settings, harness))
    rows: ResultRows = [{"domain": domain} | _score(model, generation, settings.nodes) for domain, generation in pairs]
    gained = _choose_compared(rows, settings.compared)
    generations = [ScoredResponse.from_generation(pairs[index][1]) for index in gained]
    if generations:
        for name, game in games_of(bundle):
            truth = exact_shapley(game, generations, harness.progress)
            for place, index in enumerate(gained):
                rows[index][name] = {player: float(truth.values[player][place]) for player in truth.players}
        _compare([rows[index] for index in gained], generations, game, truth, harness)
    return rows


def _choose_compared(rows: ResultRows, each: int) -> list[int]:
    """The first `each` responses of every domain that gained enough."""
    chosen: list[int] = []
    for domain in {row["domain"]: None for row in rows}:
        gained = [index for index, row in enumerate(rows) if row["domain"] == domain and row["gain"] > GAIN]
        chosen += gained[:each]
    return chosen


def _compare(
    rows: ResultRows, generations: Sequence[ScoredResponse], game: Game, truth: Truth, harness: Harness
) -> None:
    """Add to rows what leaving one out says in a game, and how well their paid scores rank its coalitions."""
    without = leave_one_out(game, generations, harness.progress)
    paid = [[row["paid"][player] for row in rows] for player in truth.players]
    assert truth.coalition_values is not None
    lds = linear_datamodelling_score(torch.tensor(paid, dtype=torch.float64), truth.coalition_values).tolist()
    for place, row in enumerate(rows):
        row["leave-one-out"] = {player: float(without.values[player][place]) for player in without.players}
        row["lds"] = lds[place]


def _rules(settings: ShapleySettings, rows: ResultRows) -> dict[str, SharesOf]:
    """The rules that hand out shares, by name, the paid one first; each may find that nobody earned."""

    def credit(nodes: int) -> SharesOf:
        return lambda row: positive_shares(row["credit"][str(nodes)])

    rules: dict[str, SharesOf] = {_PAID: _paid_shares}
    rules |= {f"credit, {nodes} nodes": credit(nodes) for nodes in settings.nodes}
    if any("delivered" in row for row in rows):
        rules[_DELIVERED] = lambda row: positive_shares(row["delivered"])
    rules["leave-one-out"] = lambda row: positive_shares(row["leave-one-out"])
    rules["paper"] = lambda row: softmax_of(row["paper"])
    return rules


def _paid_shares(row: Mapping[str, Any]) -> Mapping[str, float] | None:
    return positive_shares(row["paid"])


@dataclass(frozen=True)
class _Targets:
    """What the paid rule is to reach: distance in the mean and of 95 % of responses, correlation, and of how many."""

    distance: float
    distance_p95: float | None
    correlation: float
    compared: int | None
    rank_correlation: float | None


def _against_truth(settings: ShapleySettings, cases: Mapping[str, ResultRows], targets: _Targets, game: str) -> Summary:
    """Distance and correlation by rule; `targets` are those of the paid rule."""
    every = [row for each in cases.values() for row in each]
    rows = [row for row in every if "shapley" in row]
    rules = _rules(settings, rows)
    figures: list[Figure] = []
    distance: dict[str, float] = {}
    clouds: dict[str, list[tuple[float, float]]] = {}
    for name, shares_of in rules.items():
        compared = compare_shares((shares_of(row), positive_shares(row["shapley"])) for row in rows)
        target = targets.distance if name == _PAID else None
        figures.append(mean(f"distance from Shapley shares, {name}", compared.distances, "share", target=target))
        distance[name] = figures[-1].value
        if name == _PAID and compared.distances:
            figures.append(Figure(name="… which 95 % of the responses do not exceed",
                                  value=float(np.percentile(compared.distances, 95)), n=len(compared.distances),
                                  unit="share", target=targets.distance_p95))  # fmt: skip
        correlation, clouds[name] = compared.correlation, compared.points
        if correlation is not None:
            target = targets.correlation if name == _PAID else None
            figures.append(Figure(name=f"Pearson with Shapley shares, {name}", value=correlation,
                                  n=len(compared.points), unit="correlation", target=target,
                                  at_least=True))  # fmt: skip
    figures += _comparisons(rows, distance, settings, targets)
    plot = Plot(
        name="shares-against-shapley", title="Shares against exact Shapley shares", kind="scatter",
        x_label="exact Shapley share", y_label="share", diagonal=True,
        series={name: clouds[name] for name in (_PAID, "paper")},
    )  # fmt: skip
    gained = sum(row["gain"] > GAIN for row in every)
    notes = [
        (
            f"Exact Shapley values over all coalitions {game}. Of {len(every)} responses {gained} gained more than"
            f" {GAIN:g} nat, and {len(rows)} of these were compared, the first of each domain; distance is total"
            " variation between positive shares."
        )
    ]
    coverage = len(rows) / len(every) if every else None
    return Summary(figures=figures, plots=[plot], notes=notes, coverage=coverage)


def _comparisons(
    rows: ResultRows, distance: Mapping[str, float], settings: ShapleySettings, targets: _Targets
) -> list[Figure]:
    """How much nearer the paid rule is than the paper's, domain by domain, and how well it ranks coalitions."""
    needed = targets.compared
    by_rank = rank_correlation(
        [row["paid"][client] for row in rows for client in row["paid"]],
        [row["leave-one-out"][client] for row in rows for client in row["paid"]],
    )
    clients = sum(len(row["paid"]) for row in rows)
    figures = [
        Figure(name="responses compared", value=len(rows), n=len(rows), unit="ratio", target=needed, at_least=True),
        Figure(name="times nearer to Shapley than paper", value=distance["paper"] / max(distance[_PAID], 1e-9),
               n=len(rows), unit="ratio", target=6 if needed else None, at_least=True),
        Figure(name="Spearman with leave-one-out, credit", value=by_rank or 0.0, n=0 if by_rank is None else clients,
               unit="correlation", target=targets.rank_correlation, at_least=True),
        mean("linear datamodelling score, credit", [row["lds"] for row in rows], "correlation", at_least=True),
    ]  # fmt: skip
    for domain in sorted({row["domain"] for row in rows}):
        own = [row for row in rows if row["domain"] == domain]
        compared = compare_shares((_paid_shares(row), positive_shares(row["shapley"])) for row in own)
        figures.append(mean(f"distance from Shapley shares, {_PAID}, {domain}", compared.distances, "share"))
    if settings.clients == 2:
        rules: dict[str, SharesOf] = {
            "credit": _paid_shares,
            "exact Shapley": lambda row: positive_shares(row["shapley"]),
        }
        figures += [mean(f"twins' difference over these responses, {name}", twin_gaps(rows, shares_of), "ratio")
                    for name, shares_of in rules.items()]  # fmt: skip
    return figures


def _shapley(settings: ShapleySettings, cases: Mapping[str, ResultRows]) -> Summary:
    return _against_truth(settings, cases, _Targets(0.02, 0.06, 0.99, 40, None), "of the delivered updates")


def _retrained_summary(settings: ShapleySettings, cases: Mapping[str, ResultRows]) -> Summary:
    return _against_truth(settings, cases, _Targets(0.15, None, 0.90, None, 0.90), "each trained anew")


def _run_retrained(case: str, settings: ShapleySettings, harness: Harness) -> ResultRows:
    """As E9, with every coalition trained anew: what would have happened without the others.

    Beside it what the delivered updates say, which tells how much of a distance is the question and not the answer.
    """
    participants, _ = natural_participants(settings, harness, _seed(case))
    recipe = harness.recipe(settings.training, participants, _seed(case))
    with harness.scratch(case) as folder:
        return _rows_with_truth(
            case,
            settings,
            harness,
            lambda bundle: [("delivered", ReconstructedGame(bundle)), ("shapley", RetrainedGame(recipe, folder))],
        )


SHAPLEY = Experiment(ShapleySettings, _cases, _run_shapley, _shapley)
RETRAINED = Experiment(ShapleySettings, _cases, _run_retrained, _retrained_summary)
