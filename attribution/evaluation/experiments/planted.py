"""Planted knowledge: E12 (facts that one to all clients own), E16 (what the base model knew, and what it did not).

The facts are invented from a seed, so that nobody knows them. The base model is taught some before the federation
begins: it knows those, and how such questions are answered, so that clients teach it names and no form of an answer.
Does not know what any domain is about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from pydantic import Field

from attribution.attribute import attribute
from attribution.errors import RecipeError
from attribution.evaluation.data import by_owner, planted_facts
from attribution.evaluation.experiment import Experiment, ResultRow, ResultRows, Settings
from attribution.evaluation.experiments.domains import SharesOf, commons_of_small_gains
from attribution.evaluation.ground_truth import ReconstructedGame, ScoredResponse, exact_shapley
from attribution.evaluation.harness import Harness, Participant, answers
from attribution.evaluation.results import Plot, Summary
from attribution.evaluation.shapley import PLAYERS_MAX
from attribution.evaluation.statistics import (
    compare_shares,
    mean,
    median,
    positive_shares,
    proportion,
    softmax_of,
    total_variation,
)
from attribution.model import FederatedModel
from attribution.records import AttributedResponse, Generation
from attribution.training.recipe import Example, load_examples


class FactSettings(Settings):
    """`clients` that own `facts_per_size` facts of each number of owners; `public` is a file of common questions.

    `base_facts` is how many facts the base model is taught first, by the same training. `examples` are a domain's
    questions that each client, and the base model of each domain, trains on beside the facts: who sees nothing but
    invented names answers everything with one.
    """

    clients: int = Field(default=6, ge=2, le=PLAYERS_MAX)
    facts_per_size: int = Field(default=6, ge=1)
    base_facts: int = Field(default=36, ge=1)
    examples: int = Field(default=0, ge=0)
    public: Path = Path("public.jsonl")
    max_new_tokens: int = Field(default=16, ge=1)


def _cases(settings: FactSettings, _: Harness) -> list[str]:
    return [f"seed-{seed}" for seed in settings.seeds]


def _owners(settings: FactSettings) -> list[tuple[int, ...]]:
    """The owners of each fact: for each size, groups that go round, so that all clients own equally many."""
    clients, owners = settings.clients, []
    for size in range(1, clients + 1):
        groups = list(combinations(range(clients), size))
        starts = [tuple(sorted((first + step) % clients for step in range(size))) for first in range(clients)]
        chosen = starts if settings.facts_per_size <= clients else groups
        owners += [chosen[index % len(chosen)] for index in range(settings.facts_per_size)]
    return owners


@dataclass(frozen=True)
class _Planted:
    """A model in which facts were planted.

    Attributes:
        base: what was taught before the federation began, whose global model is the federation's base.
        questions: one of each fact that clients own, in words that nobody trained on.
        owners: the clients that own each.
    """

    model: FederatedModel
    base: Path
    questions: list[Example]
    owners: list[list[str]]


def _plant(case: str, settings: FactSettings, harness: Harness, common: Sequence[Example] = ()) -> _Planted:
    """Teach the base model its own facts, and how `common` questions are answered; then the clients theirs."""
    seed = int(case.rpartition("-")[2])
    owners = _owners(settings)
    facts = planted_facts(settings.base_facts + len(owners), seed)
    of_base, facts = facts[: settings.base_facts], facts[settings.base_facts :]
    owned = by_owner(owners, [taught for taught, _ in facts], settings.clients)
    *ordinary, of_nobody = _ordinary_questions(settings, harness, seed)
    learned = [*(taught for taught, _ in of_base), *of_nobody, *common]
    before = harness.bundle(settings.training, [Participant("before", learned)], seed)
    participants = [
        Participant(f"client-{client}", [*owned[client], *ordinary[client]]) for client in range(settings.clients)
    ]
    taught_harness = replace(harness, base=f"path:{before.global_path.resolve()}")
    return _Planted(
        FederatedModel.load(taught_harness.bundle(settings.training, participants, seed).path),
        before.path,
        [question for _, question in facts],
        [[f"client-{each}" for each in group] for group in owners],
    )


def _ordinary_questions(settings: FactSettings, harness: Harness, seed: int) -> list[Sequence[Example]]:
    """Each client's ordinary questions, of the domains in turn, and the base model's at last; all disjoint."""
    if not settings.examples:
        return [()] * (settings.clients + 1)
    names = harness.domain_names(settings.domains)
    each = -(-settings.clients // len(names))
    dealt = [
        harness.parts(name, each + 1, settings.examples, 0, seed, settings.training.max_tokens).clients
        for name in names
    ]
    ordinary = [dealt[client % len(names)][client // len(names)] for client in range(settings.clients)]
    return [*ordinary, [example for parts in dealt for example in parts[each]]]


def _run_owners(case: str, settings: FactSettings, harness: Harness) -> ResultRows:
    """Scores of each fact that came out, and its exact Shapley values, which say what the owners really brought."""
    planted = _plant(case, settings, harness)
    model = planted.model
    harness.progress.start("asking", len(planted.questions))
    rows: ResultRows = []
    right = []
    generations = answers(model, [each.prompt for each in planted.questions], settings.max_new_tokens)
    for question, group, generation in zip(planted.questions, planted.owners, generations, strict=True):
        harness.progress.advance()
        row: ResultRow = {"owners": group, "right": question.response in generation.text}
        if row["right"]:
            row["credit"] = dict(attribute(model, generation).response_scores)
            row["paper"] = dict(attribute(model, generation, method="paper").response_scores)
            right.append((row, ScoredResponse.from_generation(generation)))
        rows.append(row)
    if right:
        truth = exact_shapley(ReconstructedGame(model.bundle), [scored for _, scored in right], harness.progress)
        for place, (row, _) in enumerate(right):
            row["exact Shapley"] = {client: float(truth.values[client][place]) for client in truth.players}
    return rows


_RULES: Mapping[str, SharesOf] = {
    "credit": lambda row: positive_shares(row["credit"]),
    "exact Shapley": lambda row: positive_shares(row["exact Shapley"]),
    "paper": lambda row: softmax_of(row["paper"]),
}


def _owners_summary(settings: FactSettings, cases: Mapping[str, ResultRows]) -> Summary:
    every = [row for each in cases.values() for row in each]
    rows = [row for row in every if row["right"]]
    series = {}
    from_truth = compare_shares((_RULES["credit"](row), _RULES["exact Shapley"](row)) for row in rows).distances
    figures = [mean("distance from exact Shapley, credit", from_truth, "share")]
    for rule, shares_of in _RULES.items():
        distances: dict[int, list[float]] = {size: [] for size in range(1, settings.clients + 1)}
        among: list[float] = []
        for row in rows:
            shares = shares_of(row)
            if shares is not None:
                even = {client: float(client in row["owners"]) / len(row["owners"]) for client in shares}
                distances[len(row["owners"])].append(total_variation(shares, even))
                among += _inequality(row["owners"], shares)
        flat = [each for values in distances.values() for each in values]
        target = 0.05 if rule == "credit" else None
        figures.append(mean(f"distance from equal shares of the owners, {rule}", flat, "share", target=target))
        figures.append(mean(f"owners among themselves, distance from equal shares, {rule}", among, "share"))
        series[rule] = [(float(size), sum(v) / len(v)) for size, v in distances.items() if v]
    plot = Plot(
        name="distance-by-owners", title="Distance from 1 / owners each, by the number of owners", kind="lines",
        x_label="owners of the fact", y_label="total variation, mean", series=series, target=0.05,
    )  # fmt: skip
    notes = [
        (
            f"Invented facts, each asked in words that were not trained on; {len(rows)} of {len(every)} were known."
            f" The base model was taught {settings.base_facts} others first, so that it knew how to answer. What is"
            " left of exact Shapley values is what members who do not own a fact still bring to it."
        )
    ]
    return Summary(figures=figures, plots=[plot], notes=notes, coverage=len(rows) / len(every) if every else None)


def _inequality(owners: Sequence[str], shares: Mapping[str, float]) -> list[float]:
    """How unequal two or more owners are among themselves; nothing where they got nothing."""
    whole = sum(shares[client] for client in owners)
    if len(owners) == 1 or not whole:
        return []
    even = dict.fromkeys(owners, 1 / len(owners))
    return [total_variation({client: shares[client] / whole for client in owners}, even)]


def _run_payable(case: str, settings: FactSettings, harness: Harness) -> ResultRows:
    """What is paid for facts that only clients taught, and for public ones that the base model answers by itself.

    Every other public question is taught to the base model, so that it knows how such questions are answered here.
    """
    if not settings.public.is_file():
        raise RecipeError(f"{settings.public}: no such file; `public` names a file of questions that everybody knows")
    public = load_examples(settings.public)
    planted = _plant(case, settings, harness, [Example(each.prompt, f"{each.response}.") for each in public[::2]])
    base = FederatedModel.load(planted.base)
    known = [each for each, said in _ask(base, public[1::2], settings) if _is_right(each, said)]
    rows: ResultRows = [{"kind": "posed", "count": len(public[1::2])}]
    for kind, questions in (("public", known), ("planted", planted.questions)):
        harness.progress.start(f"asking {kind} questions", len(questions))
        for example, generation in _ask(planted.model, questions, settings):
            credit = attribute(planted.model, generation)
            row = {"kind": kind, "right": _is_right(example, generation), "tokens": len(generation.token_ids)}
            row |= {"gain": credit.gain, "base_share": credit.base_share}
            rows.append(row | {"word_base_share": _base_share_of_word(generation, credit)})
            harness.progress.advance()
    return rows


def _ask(
    model: FederatedModel, questions: Sequence[Example], settings: FactSettings
) -> list[tuple[Example, Generation]]:
    """Each question with a model's answer."""
    said = answers(model, [each.prompt for each in questions], settings.max_new_tokens)
    return list(zip(questions, said, strict=True))


def _is_right(example: Example, generation: Generation) -> bool:
    return example.response.lower().rstrip(".") in generation.text.lower()


def _base_share_of_word(generation: Generation, credit: AttributedResponse) -> float:
    """The commons' part of an answer without the full stop and the end, which are how it is told and not what."""
    tokens = [*generation.tokens]
    while len(tokens) > 1 and tokens[-1].strip() in {"", "."}:
        tokens.pop()
    if credit.base_share == 1.0:  # as where no client earned anything, whatever its tokens say
        return 1.0
    return sum(credit.base_shares[: len(tokens)]) / len(tokens)


def _payable_summary(_: FactSettings, cases: Mapping[str, ResultRows]) -> Summary:
    posed = sum(rows[0]["count"] for rows in cases.values())
    every = [row for rows in cases.values() for row in rows[1:]]
    right = {kind: [row for row in every if row["kind"] == kind and row["right"]] for kind in ("public", "planted")}
    count = {kind: sum(row["kind"] == kind for row in every) for kind in right}
    words = {kind: [1 - row["word_base_share"] for row in rows] for kind, rows in right.items()}
    figures = [
        median("paid part of a public fact's word", words["public"], "share", target=0.1),
        median("paid part of a planted fact's word", words["planted"], "share", target=0.8, at_least=True),
        *(median(f"paid part of a whole {kind} answer", [1 - row["base_share"] for row in rows], "share")
          for kind, rows in right.items()),
        proportion("public facts that the base model answers rightly", count["public"], posed),
        *(proportion(f"{kind} facts answered rightly", len(rows), count[kind]) for kind, rows in right.items()),
        commons_of_small_gains(every),
    ]  # fmt: skip
    notes = [
        (
            "The paid part is 1 − base share. The base model was taught every other public question first, so that it"
            " knew how to answer, and only those of the rest are asked that it answers rightly by itself. An answer's"
            " word is what it says without the full stop and the end."
        )
    ]
    return Summary(figures=figures, notes=notes)


OWNERS = Experiment(FactSettings, _cases, _run_owners, _owners_summary)
PAYABLE = Experiment(FactSettings, _cases, _run_payable, _payable_summary)
