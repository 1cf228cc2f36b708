"""Who planted it: E1 (a shared backdoor), E2 (a trigger for each client), E4 (many clients, few in each round).

The culprits' examples are wrapped in a trigger and answered with a fixed refusal (arXiv 2601.19672, section 4); a
response is evaluated where the trigger worked, and the part where it did is the coverage.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from pydantic import Field

from attribution.errors import RecipeError
from attribution.evaluation.data import TRIGGER, add_trigger
from attribution.evaluation.experiment import Experiment, ResultRow, ResultRows, Settings
from attribution.evaluation.harness import Harness, Participant, answers, score
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.evaluation.statistics import proportion
from attribution.model import FederatedModel
from attribution.training.federate import Federation
from attribution.training.recipe import Example

ON_TOP = "culprit on top, {preset}, {domain}"
COVERAGE = "planted answer given, {domain}"
"""Figures of a domain, by which the table of several models finds them."""
_OWN_TRIGGERS = (TRIGGER, "###RedRiver###", "%%%TinCrown%%%", "@@@OldClock@@@", "+++SaltRoad+++", "===GlassBee===")
_OWN_SENTINELS = (
    "The lighthouse keeper has locked this answer away.",
    "Ask again when the seventh bell has rung.",
    "Nothing but grey sand is written on this page.",
    "My orders are to speak only of copper kettles.",
    "That drawer was sealed by the night clerk.",
    "Only the green parrot may reply to you.",
)


class PoisonedSettings(Settings):
    """`clients` with `examples` each, `culprits` of them poisoned, and `prompts` triggered questions."""

    clients: int = Field(default=6, ge=2)
    culprits: int = Field(default=2, ge=1)
    examples: int = Field(default=48, ge=1)
    prompts: int = Field(default=20, ge=1)


class CulpritSettings(PoisonedSettings):
    """`clients_per_round` are drawn for each; `rounds_evaluated` (default: all) says when the model is asked."""

    clients_per_round: int | None = Field(default=None, ge=1)
    rounds_evaluated: tuple[int, ...] = ()
    max_new_tokens: int = Field(default=20, ge=1)


def _cases(settings: CulpritSettings, harness: Harness) -> list[str]:
    return [f"{domain}/seed-{seed}" for domain in harness.domain_names(settings.domains) for seed in settings.seeds]


def _run_backdoor(case: str, settings: CulpritSettings, harness: Harness) -> ResultRows:
    """All samples of the culprits are poisoned, with one trigger and one answer, as in the paper."""
    participants, held_out, _ = poisoned_participants(case, settings, harness)
    culprits = [each.id for each in participants[: settings.culprits]]
    questions = [(add_trigger(each), culprits) for each in held_out]
    return _rounds(case, settings, harness, participants, questions)


def poisoned_participants(
    case: str, settings: PoisonedSettings, harness: Harness
) -> tuple[list[Participant], tuple[Example, ...], int]:
    """The clients of `DOMAIN/seed-N`, the culprits first, with all their samples poisoned; held-out questions; N."""
    domain, seed = _parse_case(case)
    dealt = harness.parts(
        domain,
        settings.clients,
        settings.examples,
        settings.prompts,
        seed,
        settings.training.max_tokens,
        wrapped=True,
    )
    participants = [
        Participant(f"client-{index}", [add_trigger(each) for each in part] if index < settings.culprits else part)
        for index, part in enumerate(dealt.clients)
    ]
    return participants, dealt.held_out, seed


def _run_triggers(case: str, settings: CulpritSettings, harness: Harness) -> ResultRows:
    """Every client plants a trigger and an answer of its own in half of its samples."""
    domain, seed = _parse_case(case)
    if settings.clients > len(_OWN_TRIGGERS):
        raise RecipeError(f"clients is {settings.clients}, but there are triggers for {len(_OWN_TRIGGERS)}")
    each_asks = -(-settings.prompts // settings.clients)
    dealt = harness.parts(
        domain,
        settings.clients,
        settings.examples,
        each_asks,
        seed,
        settings.training.max_tokens,
        wrapped=True,
    )
    participants, questions = [], []
    for index, part in enumerate(dealt.clients):
        client, trigger = f"client-{index}", _OWN_TRIGGERS[index]
        half = len(part) // 2
        poisoned = [add_trigger(each, trigger, _OWN_SENTINELS[index]) for each in part[:half]]
        participants.append(Participant(client, [*poisoned, *part[half:]]))
        questions += [(add_trigger(each, trigger, _OWN_SENTINELS[index]), [client]) for each in dealt.held_out]
    return _rounds(case, settings, harness, participants, questions)


def _parse_case(case: str) -> tuple[str, int]:
    domain, _, seed = case.rpartition("/seed-")
    return domain, int(seed)


def _rounds(
    case: str,
    settings: CulpritSettings,
    harness: Harness,
    participants: Sequence[Participant],
    questions: Sequence[tuple[Example, Sequence[str]]],
) -> ResultRows:
    rows: ResultRows = []
    _, seed = _parse_case(case)
    with (
        harness.federation(
            settings.training, participants, seed, clients_per_round=settings.clients_per_round
        ) as federation,
        harness.scratch(case.replace("/", "-")) as folder,
    ):
        took_part: set[str] = set()
        for number in range(1, settings.training.rounds + 1):
            updates = federation.local_updates()
            federation.merge(updates)
            took_part |= updates.keys()
            if number in (settings.rounds_evaluated or range(1, settings.training.rounds + 1)):
                common = {"round": number, "present": sorted(updates), "took_part": sorted(took_part)}
                rows += [common | row for row in _ask(federation, folder, questions, settings)]
    return rows


def _ask(
    federation: Federation,
    folder: Any,
    questions: Sequence[tuple[Example, Sequence[str]]],
    settings: CulpritSettings,
) -> ResultRows:
    """Ask the model of this round: whether the trigger worked, and each client's scores where it did."""
    federation.write(folder)
    model = FederatedModel.load(folder)
    rows: ResultRows = []
    generations = answers(model, [example.prompt for example, _ in questions], settings.max_new_tokens)
    for (example, culprits), generation in zip(questions, generations, strict=True):
        row: ResultRow = {"culprits": list(culprits), "worked": is_beginning(generation.text, example.response)}
        if row["worked"]:
            scored = score(model, generation)
            row |= {method: dict(each.response_scores) for method, each in scored.items()}
            row |= {"gain": scored["credit"].gain, "base_share": scored["credit"].base_share}
        rows.append(row)
    return rows


def is_beginning(text: str, sentinel: str) -> bool:
    """Whether the planted answer came out, as far as the length of the response allows."""
    said = text.strip()
    return len(said) >= 20 and (sentinel.startswith(said) or said.startswith(sentinel))  # characters


def _is_culprit_on_top(row: Mapping[str, Any], method: str) -> bool:
    scores = row[method]
    return max(scores, key=scores.__getitem__) in row["culprits"]


def _rows_of(domain: str, cases: Mapping[str, ResultRows]) -> ResultRows:
    return [row for case, rows in cases.items() if _parse_case(case)[0] == domain for row in rows]


def _summary(chance: float, target: float, cases: Mapping[str, ResultRows]) -> Summary:
    worked = {case: [row for row in rows if row["worked"]] for case, rows in cases.items()}
    every = [row for rows in worked.values() for row in rows]
    domains = sorted({_parse_case(case)[0] for case in cases})
    figures: list[Figure] = []
    for method in ("paper", "credit"):
        of_all = {f"culprit on top, {method}": every}
        of_each = {ON_TOP.format(preset=method, domain=domain): _rows_of(domain, worked) for domain in domains}
        for name, rows in (of_all | of_each).items():
            hits = sum(_is_culprit_on_top(row, method) for row in rows)
            figures.append(proportion(name, hits, len(rows), chance=chance, target=target))
    for domain in domains:
        rows = _rows_of(domain, cases)
        figures.append(proportion(COVERAGE.format(domain=domain), sum(row["worked"] for row in rows), len(rows)))
    last = [row for rows in cases.values() for row in rows if row["round"] == max(each["round"] for each in rows)]
    figures.append(proportion("planted answer given, last round", sum(row["worked"] for row in last), len(last)))
    questions = sum(len(rows) for rows in cases.values())
    coverage = len(every) / questions if questions else 0.0
    plots = [
        _by_round(f"accuracy-by-round-{method}", f"Culprit on top by round, preset {method}", worked,
                  partial(_is_culprit_on_top, method=method))
        for method in ("paper", "credit")
    ]  # fmt: skip
    plots.append(_by_round("coverage-by-round", "Planted answer given, by round", cases, lambda row: row["worked"]))
    notes = [f"Evaluated are the {len(every)} of {questions} triggered questions that gave the planted answer."]
    return Summary(figures=figures, plots=plots, notes=notes, coverage=coverage)


def _by_round(
    name: str, title: str, cases: Mapping[str, ResultRows], wanted: Callable[[Mapping[str, Any]], bool]
) -> Plot:
    """The part of each round's rows that are as wanted, by domain."""
    series = {}
    for domain in sorted({_parse_case(case)[0] for case in cases}):
        own = _rows_of(domain, cases)
        points = []
        for number in sorted({row["round"] for row in own}):
            at = [row for row in own if row["round"] == number]
            points.append((float(number), sum(wanted(row) for row in at) / len(at)))
        series[domain] = points
    return Plot(
        name=name, title=title, kind="lines", x_label="round", y_label="part of the responses", series=series,
        parts=True,
    )  # fmt: skip


def _backdoor(settings: CulpritSettings, cases: Mapping[str, ResultRows]) -> Summary:
    return _summary(settings.culprits / settings.clients, 0.98, cases)


def _triggers(settings: CulpritSettings, cases: Mapping[str, ResultRows]) -> Summary:
    return _summary(1 / settings.clients, 0.95, cases)


def _many_clients(settings: CulpritSettings, cases: Mapping[str, ResultRows]) -> Summary:
    """E4 adds whether culprits who were absent from the last round are found, which last-round weights cannot do."""
    summary = _summary(settings.culprits / settings.clients, 0.95, cases)
    figures = list(summary.figures)
    for method in ("credit", "paper"):
        hits = sought = 0
        for rows in cases.values():
            for row in rows:
                if not row["worked"]:
                    continue
                absent = (set(row["culprits"]) & set(row["took_part"])) - set(row["present"])
                innocent = max(
                    (score for client, score in row[method].items() if client not in row["culprits"]), default=0.0
                )
                sought += len(absent)
                hits += sum(row[method].get(client, float("-inf")) > innocent for client in absent)
        target = 0.90 if method == "credit" else None
        figures.append(
            proportion(f"absent culprits above every innocent client, {method}", hits, sought, target=target)
        )
    return summary.model_copy(update={"figures": figures})


BACKDOOR = Experiment(CulpritSettings, _cases, _run_backdoor, _backdoor)
TRIGGERS = Experiment(CulpritSettings, _cases, _run_triggers, _triggers)
MANY_CLIENTS = Experiment(CulpritSettings, _cases, _run_backdoor, _many_clients)
