"""What the rule promises: E8 (scores sum to the gain) and E17 (a response is paid as its pieces are).

On the consortium of ordinary knowledge (`domains`), on questions that nobody trained on. Knows no ground truth.
"""

from collections.abc import Mapping

from pydantic import Field

from attribution.attribute import attribute
from attribution.evaluation.experiment import Experiment, ResultRow, ResultRows, Settings
from attribution.evaluation.experiments.domains import GAIN, NaturalSettings, natural_bundle, responses
from attribution.evaluation.harness import Harness
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.evaluation.statistics import mean, positive_shares, softmax_of
from attribution.model import FederatedModel
from attribution.records import Generation, Method
from attribution.scoring.credit_preset import Effort
from attribution.teacher_forcing import forced_generation

_METHODS: tuple[Method, ...] = ("credit", "paper")
_SAME_NODES = Effort(nodes=3)  # for a response and its pieces, which by tolerance would take some each


class NodesSettings(NaturalSettings):
    """`nodes` are the numbers of Gauss–Legendre nodes compared, and `tolerances` what may be left of the gain."""

    nodes: tuple[int, ...] = Field(default=(1, 2, 4, 8), min_length=1)
    tolerances: tuple[float, ...] = (0.1, 0.02)


def _cases(settings: Settings, _: Harness) -> list[str]:
    return [f"seed-{seed}" for seed in settings.seeds]


def _seed(case: str) -> int:
    return int(case.rpartition("-")[2])


def _run_completeness(case: str, settings: NodesSettings, harness: Harness) -> ResultRows:
    """What is left of each response's gain, by each number of nodes and by each tolerance, with the nodes it took."""
    bundle, held_out = natural_bundle(settings, harness, _seed(case))
    model = FederatedModel.load(bundle.path)
    efforts = {str(nodes): Effort(nodes=nodes) for nodes in settings.nodes}
    efforts |= {f"{tolerance:.0%}": Effort(tolerance=tolerance) for tolerance in settings.tolerances}
    rows: ResultRows = []
    for domain, generation in responses(model, held_out, settings, harness):
        row: ResultRow = {"domain": domain, "left": {}, "nodes": {}}
        for name, effort in efforts.items():
            scored = attribute(model, generation, effort=effort)
            row["gain"] = scored.gain
            row["left"][name] = scored.completeness_error
            row["nodes"][name] = scored.settings["nodes"]
        rows.append(row)
    return rows


def _completeness(settings: NodesSettings, cases: Mapping[str, ResultRows]) -> Summary:
    rows = [row for each in cases.values() for row in each if abs(row["gain"]) > GAIN]
    targets = {4: 0.01, 8: 0.001}
    figures, points = [], []
    for nodes in settings.nodes:
        errors = [abs(row["left"][str(nodes)] / row["gain"]) for row in rows]
        figure = mean(f"completeness error, {nodes} nodes", errors, "relative error", target=targets.get(nodes))
        figures.append(figure)
        points.append((float(nodes), figure.value))
    for tolerance in (f"{each:.0%}" for each in settings.tolerances):
        errors = [abs(row["left"][tolerance] / row["gain"]) for row in rows]
        figures.append(mean(f"completeness error, tolerance {tolerance}", errors, "relative error"))
        figures.append(mean(f"nodes, tolerance {tolerance}", [row["nodes"][tolerance] for row in rows], "ratio"))
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


COMPLETENESS = Experiment(NodesSettings, _cases, _run_completeness, _completeness)
CHUNKS = Experiment(NaturalSettings, _cases, _run_chunks, _chunks)
