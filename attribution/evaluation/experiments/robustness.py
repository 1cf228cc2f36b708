"""What attacks earn, with the defences off and on: E14 (free riders), E15 (scaling, sybils, copies, counts, logits).

Knows what is paid and what it would have been; the attacks themselves are in `adversaries`.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from attribution.base.references import load_model, load_tokenizer, resolve_base, save_model
from attribution.bundle.updates import Update, load_update, save_update, weighted_sum
from attribution.evaluation.experiment import Experiment, ResultRows
from attribution.evaluation.experiments.adversaries import ATTACKS, Submission, attacked_bundle, noise_like
from attribution.evaluation.experiments.earnings import DefendedSettings, client_shares, earnings, honest_participants
from attribution.evaluation.harness import Harness, Participant
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.evaluation.statistics import mean
from attribution.training.aggregation import Defences
from attribution.training.recipe import Example

_RIDERS = ("unchanged", "noise", "replay")


class RobustnessSettings(DefendedSettings):
    """`attackers` are the clients, by number, that attack in turn.

    `logit_shift` is by how many logits the inflated head would raise every token at full weight.
    """

    attackers: tuple[int, ...] = Field(default=(0,), min_length=1)
    logit_shift: float = Field(default=60.0, gt=0)


# --- E14: free riders ---


def _rider_cases(settings: RobustnessSettings, _: Harness) -> list[str]:
    return [f"{name}/seed-{seed}" for seed in settings.seeds for name in ("off", "on")]


def _run_riders(case: str, settings: RobustnessSettings, harness: Harness) -> ResultRows:
    """Three riders beside the honest clients: one returns the model unchanged, one noise, one the last change."""
    defended, _, seed = case.partition("/seed-")
    participants, questions = honest_participants(settings, harness, int(seed))
    riders = [Participant(f"rider-{name}", declared=settings.examples) for name in _RIDERS]
    defences = settings.defences if defended == "on" else Defences()
    with (
        harness.federation(settings.training, [*participants, *riders], int(seed), defences=defences) as federation,
        harness.scratch(case.replace("/", "-")) as folder,
    ):
        for _ in range(settings.training.rounds):
            updates = dict(federation.local_updates())
            like = updates[participants[0].id]
            updates["rider-noise"] = noise_like(like, int(seed))
            if federation.change is not None:
                updates["rider-replay"] = federation.change
            federation.merge(updates)
        rows = earnings(federation.write(folder), questions, settings, harness)
    return [{"remarks": federation.remarks}, *rows]


def _riders(_: RobustnessSettings, cases: Mapping[str, ResultRows]) -> Summary:
    figures: list[Figure] = []
    remarks: list[str] = []
    for defence in ("off", "on"):
        for name in _RIDERS:
            parts: dict[str, list[float]] = {"credit": [], "paper": []}
            for case, (first, *rows) in cases.items():
                if not case.startswith(f"{defence}/"):
                    continue
                remarks += first["remarks"]
                for method, values in parts.items():
                    shares = client_shares(rows, method)
                    values.append(shares[f"rider-{name}"] * len(shares))
            target = {"unchanged": 0.005}.get(name, 0.10) if defence == "on" or name == "unchanged" else None
            for method, values in parts.items():
                figures.append(
                    mean(f"free rider, {name}, defences {defence}, {method}", values, "ratio",
                         target=target if method == "credit" else None)
                )  # fmt: skip
    notes = [
        (
            "A rider's share relative to 1 / K. `unchanged` returns the global model, `noise` noise of an honest"
            " update's norm, `replay` the previous round's aggregate change, which is useful work done by others."
        ),
        *(f"Defences on: {remark}" for remark in sorted(set(remarks))),
    ]
    return Summary(figures=figures, notes=notes)


# --- E15: attacks on one round ---


def _attack_cases(settings: RobustnessSettings, harness: Harness) -> list[str]:
    cases = []
    names = harness.domain_names(settings.domains)
    for seed in settings.seeds:
        for number in settings.attackers:
            attacker = f"{names[number // settings.clients]}-{number % settings.clients}"
            for attack in ATTACKS:
                for defence in ("off", "on"):
                    who = attacker if attack != "honest" else "nobody"
                    cases.append(f"{attack}/{defence}/{who}/seed-{seed}")
            cases += [f"{kind}/off/{attacker}/seed-{seed}" for kind in ("untied", "logits")]
    return list(dict.fromkeys(cases))


def _run_attack(case: str, settings: RobustnessSettings, harness: Harness) -> ResultRows:
    attack, defence, attacker, seeded = case.split("/")
    seed = int(seeded.rpartition("-")[2])
    participants, questions = honest_participants(settings, harness, seed)
    honest = Submission(
        _honest_updates(settings, harness, participants, seed),
        {each.id: len(each.examples) for each in participants},
    )
    defences = settings.defences if defence == "on" else Defences()
    base = harness.base
    with harness.scratch(case.replace("/", "-")) as folder:
        if attack in ATTACKS:
            submission = ATTACKS[attack](honest, attacker, seed)
        else:
            base = _untied_base(harness)
            submission = honest if attack == "untied" else _inflate_logits(honest, attacker, base, questions, settings)
        bundle, remarks = attacked_bundle(submission, defences, base, folder)
        rows = earnings(bundle, questions, settings, harness)
    return [{"remarks": list(remarks)}, *rows]


def _honest_updates(
    settings: RobustnessSettings, harness: Harness, participants: Sequence[Participant], seed: int
) -> dict[str, Update]:
    """What the honest clients' training changed in the first round, trained once."""
    folder = harness.folder / "updates" / harness.key(settings.training, participants, seed)
    if not folder.is_dir():
        with harness.federation(settings.training, participants, seed) as federation:
            unfinished = folder.with_name(f".{folder.name}")
            for client, update in federation.local_updates().items():
                save_update(update, unfinished / f"{client}.safetensors")
        unfinished.rename(folder)
    return {each.id: load_update(folder / f"{each.id}.safetensors") for each in participants}


def _untied_base(harness: Harness) -> str:
    """The base model with a head of its own: where both ends are one matrix, the attack would change the outputs."""
    folder = harness.folder / "untied"
    if not folder.is_dir():
        source = resolve_base(harness.base)
        model = load_model(source)
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone(), requires_grad=False)
        unfinished = folder.with_name(".untied")
        shutil.rmtree(unfinished, ignore_errors=True)
        save_model(model, load_tokenizer(source), unfinished)
        unfinished.rename(folder)
    return f"path:{folder.resolve()}"


def _inflate_logits(
    honest: Submission, attacker: str, base: str, questions: Sequence[Example], settings: RobustnessSettings
) -> Submission:
    """The attacker adds one vector to every row of the head: all logits rise alike, so no output changes."""
    model = load_model(Path(base.removeprefix("path:")))
    direction = _mean_hidden(model, base, questions)
    shift = settings.logit_shift * direction / direction.square().sum()
    inflated = Update(dense={"lm_head.weight": shift.repeat(model.lm_head.weight.shape[0], 1)})
    own = weighted_sum([(1.0, honest.updates[attacker]), (1.0, inflated)])
    return Submission({**honest.updates, attacker: own}, honest.examples)


def _mean_hidden(model: Any, base: str, questions: Sequence[Example]) -> torch.Tensor:
    """What enters the head on average, which an attacker can measure on questions of its own: (width,)."""
    tokenizer = load_tokenizer(Path(base.removeprefix("path:")))
    hidden = []
    with torch.inference_mode():
        for example in questions:
            ids = torch.tensor([tokenizer(example.prompt)["input_ids"]])
            hidden.append(model.model(input_ids=ids).last_hidden_state[0].mean(0))
    return torch.stack(hidden).mean(0).clone()


def _attacks(_: RobustnessSettings, cases: Mapping[str, ResultRows]) -> Summary:
    earned = {case: rows[1:] for case, rows in cases.items()}
    figures: list[Figure] = []
    bars: dict[str, list[tuple[float, float]]] = {"defences off": [], "defences on": []}
    names = [attack for attack in ATTACKS if attack != "honest"]
    for place, attack in enumerate(names):
        for defence in ("off", "on"):
            gains = _gains(earned, attack, defence)
            figure = mean(f"{attack}, defences {defence}, credit", gains, "ratio", target=_target(attack, defence))
            figures.append(figure.model_copy(update={"note": _note(attack, defence, gains)}))
            bars[f"defences {defence}"].append((float(place), figure.value))
            if defence == "off":
                figures.append(mean(f"{attack}, defences off, paper", _gains(earned, attack, "off", "paper"), "ratio"))
    figures += _logit_figures(earned)
    plot = Plot(
        name="gain-of-attacks", title="What an attack multiplies its share by, preset credit", kind="bars",
        x_label="attack", y_label="share / honest share", series=bars, categories=names, target=1.1,
    )  # fmt: skip
    remarks = sorted({remark for rows in cases.values() for remark in rows[0]["remarks"]})
    notes = [
        (
            f"Attackers: {', '.join(sorted({case.split('/')[2] for case in cases} - {'nobody'}))}. The gain is the"
            " attacker's part of all that clients earn, over its part when honest, the same defences on or off."
        ),
        "`logits` adds one vector to all rows of an untied head; in points of share, over the responses.",
        *(f"Defences on: {remark}" for remark in remarks),
    ]
    return Summary(figures=figures, plots=[plot], notes=notes)


def _target(attack: str, defence: str) -> float | None:
    if attack.startswith("scale") and defence == "on":
        return 1.1
    if "sybil" in attack and defence == "off":
        return 1.05
    if attack in {"counts-10", "copy"} and defence == "on":
        return 1.1
    return None


def _note(attack: str, defence: str, gains: Sequence[float]) -> str:
    if attack == "sybil" and defence == "off":
        return f"from {min(gains):.4f} to {max(gains):.4f}; 0.95 to 1.05 is wanted"
    return ""


def _gains(earned: Mapping[str, ResultRows], attack: str, defence: str, method: str = "credit") -> list[float]:
    """For each attacker and seed, its share under attack over its honest share."""
    gains = []
    for case, rows in earned.items():
        name, defended, attacker, seeded = case.split("/")
        if (name, defended) != (attack, defence):
            continue
        before = client_shares(earned[f"honest/{defence}/nobody/{seeded}"], method)[attacker]
        after = sum(
            share
            for client, share in client_shares(rows, method).items()
            if client in {attacker, f"{attacker}.a", f"{attacker}.b"}
        )
        gains.append(after / before if before else 0.0)
    return gains


def _logit_figures(earned: Mapping[str, ResultRows]) -> list[Figure]:
    moved: dict[str, list[float]] = {"credit": [], "paper": []}
    same = total = 0
    for case, rows in earned.items():
        if not case.startswith("logits/"):
            continue
        attacker = case.split("/")[2]
        for before, after in zip(earned[case.replace("logits/", "untied/")], rows, strict=True):
            total += 1
            same += before["token_ids"] == after["token_ids"]
            for method, values in moved.items():
                first, second = (client_shares([row], method)[attacker] for row in (before, after))
                values.append(100 * abs(second - first))
    return [
        mean("logits, change of the attacker's share in points, credit", moved["credit"], "ratio", target=0.5),
        mean("logits, change of the attacker's share in points, paper", moved["paper"], "ratio"),
        Figure(name="logits, responses that stayed the same", value=same / max(total, 1), n=total, unit="proportion"),
    ]


RIDERS = Experiment(RobustnessSettings, _rider_cases, _run_riders, _riders)
ATTACKERS = Experiment(RobustnessSettings, _attack_cases, _run_attack, _attacks)
