"""What the scores are computed from: E5 (gradients on and off), E6 (layers), E7 (parity with a naive replay).

E5 and E6 score the same responses at every layer alone; the sets of E6 are sums of those.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from attribution.attribute import attribute
from attribution.evaluation.data import add_trigger
from attribution.evaluation.experiment import Experiment, ResultRow, ResultRows
from attribution.evaluation.experiments.culprits import PoisonedSettings, is_beginning, poisoned_participants
from attribution.evaluation.experiments.layer_scores import layer_scores
from attribution.evaluation.experiments.naive_replay import literal_credit, literal_paper
from attribution.evaluation.harness import Harness, answers
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.evaluation.statistics import proportion
from attribution.model import FederatedModel
from attribution.scoring.credit_preset import Effort


class MechanicsSettings(PoisonedSettings):
    """The backdoored consortium of E1 after its last round; `nodes` are those of `credit`."""

    nodes: int = Field(default=2, ge=1)
    max_new_tokens: int = Field(default=16, ge=1)


def _cases(settings: MechanicsSettings, harness: Harness) -> list[str]:
    return [f"{domain}/seed-{seed}" for domain in harness.domain_names(settings.domains) for seed in settings.seeds]


def _ask_triggered(case: str, settings: MechanicsSettings, harness: Harness) -> tuple[FederatedModel, list[Any]]:
    """The trained model, and its responses to triggered questions where the trigger worked."""
    participants, held_out, seed = poisoned_participants(case, settings, harness)
    model = FederatedModel.load(harness.bundle(settings.training, participants, seed).path)
    questions = [add_trigger(each) for each in held_out]
    generations = answers(model, [each.prompt for each in questions], settings.max_new_tokens)
    return model, [
        generation
        for question, generation in zip(questions, generations, strict=True)
        if is_beginning(generation.text, question.response)
    ]


def _run_layers(case: str, settings: MechanicsSettings, harness: Harness) -> ResultRows:
    model, generations = _ask_triggered(case, settings, harness)
    clients = model.last_round.clients
    harness.progress.start("scoring every layer", len(generations))
    rows: ResultRows = []
    for generation in generations:
        row: ResultRow = {"culprits": [f"client-{index}" for index in range(settings.culprits)]}
        for gradients in ("on", "off"):
            by_layer = layer_scores(model, generation, gradients=gradients == "on")
            row[gradients] = {
                layer: dict(zip(clients, scores.sum(1).tolist(), strict=True)) for layer, scores in by_layer.items()
            }
        rows.append(row)
        harness.progress.advance()
    return rows


def _hits(rows: ResultRows, gradients: str, layers: Sequence[str]) -> int:
    """Responses whose top client, by the scores of these layers summed, is a culprit."""
    hits = 0
    for row in rows:
        by_layer = row[gradients]
        totals = {client: sum(by_layer[layer][client] for layer in layers) for client in by_layer[layers[0]]}
        hits += max(totals, key=totals.__getitem__) in row["culprits"]
    return hits


def _blocks(rows: ResultRows) -> list[list[str]]:
    """The layers of each block, in the order of the blocks, by their names `….layers.{number}.…`."""
    numbered: dict[int, list[str]] = {}
    for layer in rows[0]["on"]:
        if ".layers." in layer:
            numbered.setdefault(int(layer.split(".layers.")[1].split(".")[0]), []).append(layer)
    return [numbered[number] for number in sorted(numbered)]


def _rows_of(cases: Mapping[str, ResultRows]) -> ResultRows:
    return [row for rows in cases.values() for row in rows]


def _gradients(settings: MechanicsSettings, cases: Mapping[str, ResultRows]) -> Summary:
    """Like for like: the same responses and layers, each layer alone, gradients on and off."""
    rows, figures, series = _rows_of(cases), [], {}
    if not rows:
        return Summary(figures=[], notes=["No trigger worked, so nothing could be compared."], coverage=0.0)
    blocks = _blocks(rows)
    chance = settings.culprits / settings.clients
    for gradients in ("on", "off"):
        hits = [_hits(rows, gradients, layers) for layers in blocks]
        name = f"culprit on top by one block alone, gradients {gradients}"
        figures.append(proportion(name, sum(hits), len(rows) * len(blocks), chance=chance))
        head = proportion(f"by lm_head alone, gradients {gradients}", _hits(rows, gradients, ["lm_head"]), len(rows),
                          chance=chance)  # fmt: skip
        figures.append(head)
        series[f"gradients {gradients}"] = [(float(block), each / len(rows)) for block, each in enumerate(hits)]
    plot = Plot(
        name="single-blocks", title="Culprit on top by one block alone", kind="lines", x_label="block",
        y_label="part of the responses", series=series, target=chance, parts=True,
    )  # fmt: skip
    notes = [
        (
            "Each block's o_proj and MLP alone. Gradients off takes a client's summed output at the emitting position"
            " as it is. The dashed line is chance."
        )
    ]
    return Summary(figures=figures, plots=[plot], notes=notes)


def _layers(settings: MechanicsSettings, cases: Mapping[str, ResultRows]) -> Summary:
    """Sets of layers, and a choice made on half of the responses and tested on the other half."""
    rows = _rows_of(cases)
    if not rows:
        return Summary(figures=[], notes=["No trigger worked, so no layer could be tested."], coverage=0.0)
    blocks, chance = _blocks(rows), settings.culprits / settings.clients
    every = [layer for layers in blocks for layer in layers]
    late = [layer for layers in blocks[-len(blocks) // 3 :] for layer in layers]
    sets = {
        "lm_head alone": ["lm_head"],
        "last block": blocks[-1],
        "last block and lm_head (paper's code)": [*blocks[-1], "lm_head"],
        "last third": late,
        "last third and lm_head": [*late, "lm_head"],
        "all blocks": every,
        "all blocks and lm_head": [*every, "lm_head"],
    }
    figures = [
        proportion(f"culprit on top, {name}", _hits(rows, "on", layers), len(rows), chance=chance)
        for name, layers in sets.items()
    ]
    figures.append(_chosen(rows, blocks, chance))
    plot = Plot(
        name="layer-sets", title="Culprit on top by the layers that are scored", kind="bars", x_label="layers",
        y_label="part of the responses", categories=list(sets), target=chance, parts=True,
        series={"gradients on": [(float(place), figure.value) for place, figure in enumerate(figures[: len(sets)])]},
    )  # fmt: skip
    return Summary(figures=figures, plots=[plot])


def _chosen(rows: ResultRows, blocks: Sequence[Sequence[str]], chance: float) -> Figure:
    chosen_on, tested_on = rows[::2], rows[1::2]
    best = max(range(len(blocks)), key=lambda block: (_hits(chosen_on, "on", blocks[block]), block))
    return proportion(
        "culprit on top, the block chosen on other responses", _hits(tested_on, "on", blocks[best]), len(tested_on),
        chance=chance, target=chance, note=f"block {best} was the best of {len(blocks)} on {len(chosen_on)} responses",
    )  # fmt: skip


def _run_parity(case: str, settings: MechanicsSettings, harness: Harness) -> ResultRows:
    """The largest error of the fast forms against a naive replay with whole client models, relative to the top."""
    model, generations = _ask_triggered(case, settings, harness)
    harness.progress.start("naive replay", len(generations))
    rows: ResultRows = []
    for generation in generations:
        fast = attribute(model, generation, method="paper").scores
        slow = literal_paper(model.bundle, generation)
        assert fast is not None
        top = max(abs(score) for scores in slow.values() for score in scores)
        paper = max(abs(a - b) for client in slow for a, b in zip(fast[client], slow[client], strict=True)) / top
        credit = attribute(model, generation, effort=Effort(nodes=settings.nodes)).response_scores
        naive = literal_credit(model.bundle, generation, settings.nodes)
        largest = max(abs(score) for score in naive.values())
        error = max(abs(credit[client] - naive[client]) for client in naive) / largest
        by_token = attribute(model, generation, effort=Effort(nodes=settings.nodes), token_level=True).response_scores
        summed = max(abs(by_token[client] - credit[client]) for client in naive) / largest
        rows.append({"paper": paper, "credit": error, "tokens": summed})
        harness.progress.advance()
    return rows


def _parity(_: MechanicsSettings, cases: Mapping[str, ResultRows]) -> Summary:
    rows = _rows_of(cases)
    names = {
        "paper": "largest error against the naive replay, paper",
        "credit": "largest error against the naive replay, credit",
        "tokens": "token scores summed against the response's score",
    }
    figures = [
        Figure(name=name, value=max((row[key] for row in rows), default=0.0), n=len(rows), unit="relative error",
               target=1e-4)
        for key, name in names.items()
    ]  # fmt: skip
    return Summary(figures=figures, notes=["Relative to the largest score of the response, float32."])


GRADIENTS = Experiment(MechanicsSettings, _cases, _run_layers, _gradients)
LAYERS = Experiment(MechanicsSettings, _cases, _run_layers, _layers)
PARITY = Experiment(MechanicsSettings, _cases, _run_parity, _parity)
