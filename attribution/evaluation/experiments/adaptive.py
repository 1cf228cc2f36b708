"""E24: a member who knows the rule that pays it, and trains or submits for credit instead of for the consortium.

It sees what every member sees: the global model, and so the last round's change. Nothing is copied word for word; what
of that the defences answer is measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from attribution.bundle.similarity import cosines, norms
from attribution.bundle.updates import Update, weighted_sum
from attribution.evaluation.experiment import Experiment, ResultRows
from attribution.evaluation.experiments.adversaries import noise_like
from attribution.evaluation.experiments.earnings import DefendedSettings, client_shares, earnings, honest_participants
from attribution.evaluation.harness import Harness, Participant, answers
from attribution.evaluation.results import Plot, Summary
from attribution.evaluation.statistics import mean
from attribution.model import FederatedModel
from attribution.training.aggregation import Defences
from attribution.training.recipe import Example

_HONEST = "honest"
_ATTACKS = ("boost", "echo", "masked-replay", "opposed-pair")
_UNNOTICED = 0.94  # a cosine that no `drop_duplicates` of 0.95 minds
_TWIN = ".twin"


def _cases(settings: DefendedSettings, _: Harness) -> list[str]:
    kinds = (_HONEST, *_ATTACKS)
    return [f"{kind}/{defence}/seed-{seed}" for seed in settings.seeds for kind in kinds for defence in ("off", "on")]


def _run(case: str, settings: DefendedSettings, harness: Harness) -> ResultRows:
    """What is earned where the first client attacks, and how alike honest updates are to the last round's change.

    In the first round there is no such change: who would replay it sends noise, and others are honest.
    """
    kind, defence, seeded = case.split("/")
    seed = int(seeded.rpartition("-")[2])
    participants, questions = honest_participants(settings, harness, seed)
    attacker = participants[0].id
    if kind == "echo":
        participants[0] = replace(participants[0], examples=_served_answers(settings, harness, participants, seed))
    if kind == "opposed-pair":
        participants.append(Participant(f"{attacker}{_TWIN}", declared=settings.examples))
    defences = settings.defences if defence == "on" else Defences()
    alike: list[float] = []
    with (
        harness.federation(settings.training, participants, seed, defences=defences) as federation,
        harness.scratch(case.replace("/", "-")) as folder,
    ):
        for _ in range(settings.training.rounds):
            updates = dict(federation.local_updates())
            if federation.change is None and kind == "masked-replay":
                updates[attacker] = noise_like(updates[attacker], seed)
            if federation.change is not None:
                honest = [update for client, update in updates.items() if not client.startswith(attacker)]
                alike += cosines([federation.change, *honest])[0, 1:].tolist()
                updates |= _submit(kind, attacker, updates[attacker], federation.change, seed)
            federation.merge(updates)
        rows = earnings(federation.write(folder), questions, settings, harness)
    return [{"attacker": attacker, "remarks": federation.remarks, "alike": alike}, *rows]


def _served_answers(
    settings: DefendedSettings, harness: Harness, participants: Sequence[Participant], seed: int
) -> list[Example]:
    """What the honest consortium answers in the end to what all members trained on: more than a member could know.

    Training on that raises what is paid for, so that what it earns bounds what such a member earns.
    """
    model = FederatedModel.load(harness.bundle(settings.training, participants, seed).path)
    each = -(-settings.examples // len(participants))
    prompts = [example.prompt for participant in participants for example in participant.examples[:each]]
    said = answers(model, prompts, settings.max_new_tokens)
    return [Example(prompt, answer.text) for prompt, answer in zip(prompts, said, strict=True) if answer.text.strip()]


def _submit(kind: str, attacker: str, own: Update, change: Update, seed: int) -> dict[str, Update]:
    """What the attacker, and its twin, hand in instead of their own updates; `change` is the last round's."""
    own_norm, change_norm = norms([own, change]).tolist()
    replayed = weighted_sum([(own_norm / change_norm, change)])
    noise = noise_like(replayed, seed)
    masked = weighted_sum([(_UNNOTICED, replayed), (math.sqrt(1 - _UNNOTICED**2), noise)])
    match kind:
        case "boost":
            return {attacker: weighted_sum([(1, own), (1, replayed)])}
        case "masked-replay":
            return {attacker: masked}
        case "opposed-pair":
            return {
                attacker: weighted_sum([(1, own), (1, masked)]),
                f"{attacker}{_TWIN}": weighted_sum([(-1, masked)]),
            }
    return {}


def _summarise(_: DefendedSettings, cases: Mapping[str, ResultRows]) -> Summary:
    figures = []
    bars: dict[str, list[tuple[float, float]]] = {"defences off": [], "defences on": []}
    for place, kind in enumerate(_ATTACKS):
        for defence in ("off", "on"):
            target = 1.1 if defence == "on" else None
            figure = mean(f"{kind}, defences {defence}", _gains(cases, kind, defence), "ratio", target=target)
            figures.append(figure)
            bars[f"defences {defence}"].append((float(place), figure.value))
    undefended = [first for case, (first, *_) in cases.items() if case.startswith(f"{_HONEST}/off/")]
    alike = [cosine for first in undefended for cosine in first["alike"]]
    figures.append(mean("cosine of an honest update to the last round's change", alike, "correlation"))
    plot = Plot(
        name="gain-of-adaptive-members", title="What an attack multiplies its member's share by", kind="bars",
        x_label="attack", y_label="share / honest share", series=bars, categories=list(_ATTACKS), target=1.1,
    )  # fmt: skip
    remarks = sorted({remark for first, *_ in cases.values() for remark in first["remarks"]})
    notes = [
        (
            "`boost` adds the last round's change to its own update, of the same norm; `echo` trains on the served"
            " answers to all members' questions from the first round on, which no member has; `masked-replay` sends"
            f" noise, and from the second round on the last change at a cosine of {_UNNOTICED}; `opposed-pair` brings"
            " that change beside its own update, and takes it away as a twin that declares as many examples. The gain"
            " is the member's part of all that clients earn, its twin's included, over its part when honest under the"
            " same defences."
        ),
        *(f"Defences on: {remark}" for remark in remarks),
    ]
    return Summary(figures=figures, plots=[plot], notes=notes)


def _gains(cases: Mapping[str, ResultRows], kind: str, defence: str) -> list[float]:
    """Of each seed, the attacker's share under attack over its honest share."""
    gains = []
    for case, (first, *rows) in cases.items():
        if not case.startswith(f"{kind}/{defence}/"):
            continue
        _, *honest = cases[case.replace(kind, _HONEST, 1)]
        before = client_shares(honest, "credit")[first["attacker"]]
        earned = client_shares(rows, "credit")
        after = sum(share for client, share in earned.items() if client.removesuffix(_TWIN) == first["attacker"])
        if before:
            gains.append(after / before)
    return gains


ADAPTIVE = Experiment(DefendedSettings, _cases, _run, _summarise)
