"""How near shares are to exact Shapley shares, and what the rule promises: E8, E9, E10, E17.

All on the consortium of ordinary knowledge (`domains`), on questions that nobody trained on.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from pydantic import Field

from attribution.attribute import attribute
from attribution.bundle.bundle import Bundle
from attribution.evaluation.experiment import Experiment, ResultRow, ResultRows, Settings
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
    exact_shapley,
    leave_one_out,
)
from attribution.evaluation.harness import Harness
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.evaluation.shapley import linear_datamodelling_score
from attribution.evaluation.statistics import compare_shares, mean, positive_shares, softmax_of
from attribution.model import FederatedModel
from attribution.records import Generation, Method
from attribution.scoring.credit_preset import Effort
from attribution.teacher_forcing import forced_generation

_METHODS: tuple[Method, ...] = ("credit", "paper")
_SAME_NODES = Effort(nodes=3)  # for a response and its pieces, which by tolerance would take some each


class ShapleySettings(NaturalSettings):
    """`nodes` are the numbers of Gauss–Legendre nodes compared; the first is the one whose shares are paid.

    `compared` responses a domain, of those that gained enough, are held against the ground truth, which is slow.
    """

    nodes: tuple[int, ...] = Field(default=(2, 4, 8), min_length=1)
    compared: int = Field(default=14, ge=1)


def _cases(settings: Settings, _: Harness) -> list[str]:
    return [f"seed-{seed}" for seed in settings.seeds]


def _seed(case: str) -> int:
    return int(case.rpartition("-")[2])


def _score(model: FederatedModel, generation: Generation, nodes: tuple[int, ...]) -> ResultRow:
    """One response's scores by `credit` at each number of nodes, and by `paper`."""
    by_nodes = {str(count): attribute(model, generation, effort=Effort(nodes=count)) for count in nodes}
    paid = by_nodes[str(nodes[0])]
    return {
        "tokens": len(generation.token_ids),
        "gain": paid.gain,
        "base_share": paid.base_share,
        "credit": {count: dict(each.response_scores) for count, each in by_nodes.items()},
        "paper": dict(attribute(model, generation, method="paper").response_scores),
    }


def _run_completeness(case: str, settings: ShapleySettings, harness: Harness) -> ResultRows:
    bundle, held_out = natural_bundle(settings, harness, _seed(case))
    model = FederatedModel.load(bundle.path)
    pairs = responses(model, held_out, settings, harness)
    return [{"domain": domain} | _score(model, generation, settings.nodes) for domain, generation in pairs]


def _completeness(settings: ShapleySettings, cases: Mapping[str, ResultRows]) -> Summary:
    rows = [row for each in cases.values() for row in each if abs(row["gain"]) > GAIN]
    targets = {4: 0.01, 8: 0.001}
    figures, points = [], []
    for nodes in settings.nodes:
        errors = [abs(sum(row["credit"][str(nodes)].values()) - row["gain"]) / abs(row["gain"]) for row in rows]
        figure = mean(f"completeness error, {nodes} nodes", errors, "relative error", target=targets.get(nodes))
        figures.append(figure)
        points.append((float(nodes), figure.value))
    plot = Plot(
        name="completeness",
        title="What the scores leave unexplained of the gain",
        kind="lines",
        x_label="Gauss–Legendre nodes",
        y_label="|Σ scores − gain| / |gain|, mean",
        series={"credit": points},
        log_y=True,
    )
    note = f"Responses whose gain is above {GAIN} nat either way; relative to a smaller gain the error says nothing."
    return Summary(figures=figures, plots=[plot], notes=[note])


def _run_shapley(case: str, settings: ShapleySettings, harness: Harness) -> ResultRows:
    """Scores, exact Shapley values of the reconstructed game and leave-one-out, of each response above 1 nat."""
    return _rows_with_truth(case, settings, harness, ReconstructedGame)


def _rows_with_truth(
    case: str, settings: ShapleySettings, harness: Harness, game_of: Callable[[Bundle], Game]
) -> ResultRows:
    bundle, held_out = natural_bundle(settings, harness, _seed(case))
    model = FederatedModel.load(bundle.path)
    pairs = list(responses(model, held_out, settings, harness))
    rows = [{"domain": domain} | _score(model, generation, settings.nodes) for domain, generation in pairs]
    gained = _choose_compared(rows, settings.compared)
    generations = [ScoredResponse.from_generation(pairs[index][1]) for index in gained]
    if generations:
        _compare(rows, gained, generations, game_of(bundle), settings, harness)
    return rows


def _choose_compared(rows: ResultRows, each: int) -> list[int]:
    """The first `each` responses of every domain that gained enough."""
    chosen: list[int] = []
    for domain in {row["domain"]: None for row in rows}:
        gained = [index for index, row in enumerate(rows) if row["domain"] == domain and row["gain"] > GAIN]
        chosen += gained[:each]
    return chosen


def _compare(
    rows: ResultRows,
    gained: Sequence[int],
    generations: Sequence[ScoredResponse],
    game: Game,
    settings: ShapleySettings,
    harness: Harness,
) -> None:
    """Add to the rows that gained what the game says about them."""
    shapley = exact_shapley(game, generations, harness.progress)
    without = leave_one_out(game, generations, harness.progress)
    paid = [[rows[index]["credit"][str(settings.nodes[0])][player] for index in gained] for player in shapley.players]
    assert shapley.coalition_values is not None
    lds = linear_datamodelling_score(torch.tensor(paid, dtype=torch.float64), shapley.coalition_values).tolist()
    for place, index in enumerate(gained):
        rows[index] |= {
            "shapley": {player: float(shapley.values[player][place]) for player in shapley.players},
            "leave-one-out": {player: float(without.values[player][place]) for player in without.players},
            "lds": lds[place],
        }


def _rules(settings: ShapleySettings) -> dict[str, SharesOf]:
    """The rules that hand out shares, by name; each may find that nobody earned."""

    def credit(nodes: int) -> SharesOf:
        return lambda row: positive_shares(row["credit"][str(nodes)])

    rules = {f"credit, {nodes} nodes": credit(nodes) for nodes in settings.nodes}
    rules["leave-one-out"] = lambda row: positive_shares(row["leave-one-out"])
    rules["paper"] = lambda row: softmax_of(row["paper"])
    return rules


def _against_truth(
    settings: ShapleySettings, cases: Mapping[str, ResultRows], targets: tuple[float, float, int | None], game: str
) -> Summary:
    """Distance and correlation by rule; `targets` are those of the paid rule, and how many responses are needed."""
    every = [row for each in cases.values() for row in each]
    rows = [row for row in every if "shapley" in row]
    rules = _rules(settings)
    paid = next(iter(rules))
    figures: list[Figure] = []
    distance: dict[str, float] = {}
    clouds: dict[str, list[tuple[float, float]]] = {}
    for name, shares_of in rules.items():
        compared = compare_shares((shares_of(row), positive_shares(row["shapley"])) for row in rows)
        target = targets[0] if name == paid else None
        figures.append(mean(f"distance from Shapley shares, {name}", compared.distances, "share", target=target))
        correlation, clouds[name] = compared.correlation, compared.points
        if correlation is not None:
            target = targets[1] if name == paid else None
            figures.append(Figure(name=f"Pearson with Shapley shares, {name}", value=correlation,
                                  n=len(compared.points), unit="correlation", target=target,
                                  at_least=True))  # fmt: skip
        distance[name] = figures[-1].value if correlation is None else figures[-2].value
    figures += _comparisons(rows, distance, paid, settings, targets[2])
    plot = Plot(
        name="shares-against-shapley", title="Shares against exact Shapley shares", kind="scatter",
        x_label="exact Shapley share", y_label="share", diagonal=True,
        series={name: clouds[name] for name in (paid, "paper")},
    )  # fmt: skip
    notes = [
        (
            f"Exact Shapley values over all coalitions {game}, for the {len(rows)} of {len(every)} responses that"
            f" gained more than {GAIN} nat; distance is total variation between positive shares."
        )
    ]
    coverage = sum(row["gain"] > GAIN for row in every) / len(every) if every else None
    return Summary(figures=figures, plots=[plot], notes=notes, coverage=coverage)


def _comparisons(
    rows: ResultRows, distance: Mapping[str, float], paid: str, settings: ShapleySettings, needed: int | None
) -> list[Figure]:
    """How much nearer the paid rule is than the paper's, domain by domain, and the linear datamodelling score."""
    figures = [
        Figure(name="responses compared", value=len(rows), n=len(rows), unit="ratio", target=needed, at_least=True),
        Figure(name="times nearer to Shapley than paper", value=distance["paper"] / max(distance[paid], 1e-9),
               n=len(rows), unit="ratio", target=6 if needed else None, at_least=True),
        mean("linear datamodelling score, credit", [row["lds"] for row in rows], "correlation", at_least=True),
    ]  # fmt: skip
    for domain in sorted({row["domain"] for row in rows}):
        own = [row for row in rows if row["domain"] == domain]
        compared = compare_shares(
            (positive_shares(row["credit"][str(settings.nodes[0])]), positive_shares(row["shapley"])) for row in own
        )
        figures.append(mean(f"distance from Shapley shares, {paid}, {domain}", compared.distances, "share"))
    if settings.clients == 2:
        rules: dict[str, SharesOf] = {
            "credit": lambda row: positive_shares(row["credit"][str(settings.nodes[0])]),
            "exact Shapley": lambda row: positive_shares(row["shapley"]),
        }
        figures += [mean(f"twins' difference over these responses, {name}", twin_gaps(rows, shares_of), "ratio")
                    for name, shares_of in rules.items()]  # fmt: skip
    return figures


def _shapley(settings: ShapleySettings, cases: Mapping[str, ResultRows]) -> Summary:
    return _against_truth(settings, cases, (0.05, 0.95, 40), "of the delivered updates")


def _retrained_summary(settings: ShapleySettings, cases: Mapping[str, ResultRows]) -> Summary:
    return _against_truth(settings, cases, (0.15, 0.90, None), "each trained anew")


def _run_retrained(case: str, settings: ShapleySettings, harness: Harness) -> ResultRows:
    """As E9, with every coalition trained anew: what would have happened without the others."""
    participants, _ = natural_participants(settings, harness, _seed(case))
    recipe = harness.recipe(settings.training, participants, _seed(case))
    with harness.scratch(case) as folder:
        return _rows_with_truth(case, settings, harness, lambda _: RetrainedGame(recipe, folder))


def _run_chunks(case: str, settings: NaturalSettings, harness: Harness) -> ResultRows:
    """Shares of a response as one, and from the summed scores of its pieces, each given what came before it."""
    bundle, held_out = natural_bundle(settings, harness, _seed(case))
    model = FederatedModel.load(bundle.path)
    model.network.double()  # the rule is at test here, not float32
    rows: ResultRows = []
    for domain, whole in responses(model, held_out, settings, harness):
        row: ResultRow = {"domain": domain, "tokens": len(whole.token_ids)}
        for method in _METHODS:
            forced = forced_generation(model, whole.prompt_token_ids, whole.token_ids)
            once = attribute(model, forced, method=method, effort=_SAME_NODES)
            row[method] = dict(once.response_scores)
            row[f"{method} in pieces"] = _in_pieces(model, whole, method)
        rows.append(row)
    return rows


def _in_pieces(model: FederatedModel, whole: Generation, method: Method) -> list[dict[str, float]]:
    cut = max(1, len(whole.token_ids) // 3)
    tokens = whole.token_ids
    pieces = [tokens[start : start + cut] for start in range(0, len(tokens), cut)]
    scores, context = [], list(whole.prompt_token_ids)
    for piece in pieces:
        forced = forced_generation(model, context, piece)
        scores.append(dict(attribute(model, forced, method=method, effort=_SAME_NODES).response_scores))
        context += piece
    return scores


def _chunks(_: Settings, cases: Mapping[str, ResultRows]) -> Summary:
    rows = [row for each in cases.values() for row in each]
    figures = []
    for method, shares_of in (("credit", positive_shares), ("paper", softmax_of)):
        summed, single = [], []
        for row in rows:
            pieces = row[f"{method} in pieces"]
            total = {client: sum(piece[client] for piece in pieces) for client in pieces[0]}
            once = shares_of(row[method]) or {}
            summed.append(_largest_gap(once, shares_of(total) or {}))
            alone = [shares_of(piece) or {} for piece in pieces]
            paid = {client: sum(each.get(client, 0.0) for each in alone) / len(alone) for client in total}
            single.append(_largest_gap(once, paid))
        target = 1e-6 if method == "credit" else None
        figures.append(
            Figure(name=f"largest change of a share, pieces summed, {method}", value=max(summed, default=0.0),
                   n=len(rows), unit="relative error", target=target)
        )  # fmt: skip
        figures.append(mean(f"change of a share when each piece is billed on its own, {method}", single, "share"))
    notes = ["A response in one, and cut into three pieces of which each is scored after the ones before. In float64."]
    return Summary(figures=figures, notes=notes)


def _largest_gap(first: Mapping[str, float], second: Mapping[str, float]) -> float:
    return max((abs(first.get(client, 0.0) - second.get(client, 0.0)) for client in {*first, *second}), default=0.0)


COMPLETENESS = Experiment(ShapleySettings, _cases, _run_completeness, _completeness)
SHAPLEY = Experiment(ShapleySettings, _cases, _run_shapley, _shapley)
RETRAINED = Experiment(ShapleySettings, _cases, _run_retrained, _retrained_summary)
CHUNKS = Experiment(NaturalSettings, _cases, _run_chunks, _chunks)
