"""A consortium of ordinary knowledge, two clients a domain: E3 (right domain), E13 (twins), and rows for others.

No trigger and no planted fact: each client trains on its own part of a domain, questions are ones nobody trained on.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from attribution.attribute import attribute
from attribution.bundle.bundle import Bundle
from attribution.evaluation.experiment import Experiment, ResultRow, ResultRows, Settings
from attribution.evaluation.harness import Harness, Participant, answers
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.evaluation.statistics import area_under_curve, mean, positive_shares, proportion, softmax_of
from attribution.model import FederatedModel
from attribution.records import Generation
from attribution.teacher_forcing import forced_generation
from attribution.training.recipe import Example

SharesOf = Callable[[Mapping[str, Any]], Mapping[str, float] | None]
GAIN = 1.0  # nats over the base model; below, there is hardly anything to pay for (science 7)


class NaturalSettings(Settings):
    """The consortium's size: `clients` a domain with `examples` each, and `prompts` held-out questions a domain."""

    clients: int = Field(default=2, ge=1)
    examples: int = Field(default=48, ge=1)
    prompts: int = Field(default=28, ge=1)


class DomainSettings(NaturalSettings):
    """Of every response, its first `short` tokens are also scored alone, as if the application had asked for no more.

    Whole responses of a trained consortium nearly all gain more than `GAIN`; such short ones show what becomes of the
    others.
    """

    short: int = Field(default=4, ge=1)


def natural_participants(
    settings: NaturalSettings, harness: Harness, seed: int
) -> tuple[list[Participant], dict[str, tuple[Example, ...]]]:
    """The clients of one seed, `{domain}-{number}`, and each domain's held-out questions."""
    participants, held_out = [], {}
    for domain in harness.domain_names(settings.domains):
        dealt = harness.parts(
            domain, settings.clients, settings.examples, settings.prompts, seed, settings.training.max_tokens
        )
        held_out[domain] = dealt.held_out
        participants += [Participant(f"{domain}-{index}", part) for index, part in enumerate(dealt.clients)]
    return participants, held_out


def natural_bundle(
    settings: NaturalSettings, harness: Harness, seed: int
) -> tuple[Bundle, dict[str, tuple[Example, ...]]]:
    """The trained consortium of one seed, and each domain's held-out questions."""
    participants, held_out = natural_participants(settings, harness, seed)
    return harness.bundle(settings.training, participants, seed), held_out


def domain_of(client: str) -> str:
    """The domain that a client of this consortium trained on."""
    return client.rpartition("-")[0]


def responses(
    model: FederatedModel, held_out: Mapping[str, Sequence[Example]], settings: NaturalSettings, harness: Harness
) -> Iterator[tuple[str, Generation]]:
    """The model's answer to each held-out question, with its domain."""
    harness.progress.start("asking", sum(len(each) for each in held_out.values()))
    for domain, examples in held_out.items():
        for generation in answers(model, [each.prompt for each in examples], settings.max_new_tokens):
            yield domain, generation
            harness.progress.advance()


def _cases(settings: NaturalSettings, _: Harness) -> list[str]:
    return [f"seed-{seed}" for seed in settings.seeds]


def _run_right_domain(case: str, settings: DomainSettings, harness: Harness) -> ResultRows:
    return _run(case, settings, harness, settings.short)


def _run_twins(case: str, settings: NaturalSettings, harness: Harness) -> ResultRows:
    return _run(case, settings, harness, None)


def _run(case: str, settings: NaturalSettings, harness: Harness, short: int | None) -> ResultRows:
    bundle, held_out = natural_bundle(settings, harness, int(case.rpartition("-")[2]))
    model = FederatedModel.load(bundle.path)
    rows: ResultRows = []
    for domain, generation in responses(model, held_out, settings, harness):
        credit, paper = attribute(model, generation), attribute(model, generation, method="paper")
        rows.append(
            {
                "domain": domain,
                "tokens": len(generation.token_ids),
                "gain": credit.gain,
                "base_share": credit.base_share,
                "credit": dict(credit.response_scores),
                "shares": dict(credit.shares),
                "paper": dict(paper.response_scores),
            }
        )
        if short is not None:
            rows[-1]["short"] = _score_beginning(model, generation, short)
    return rows


def _score_beginning(model: FederatedModel, generation: Generation, tokens: int) -> ResultRow:
    """Gain and base share of a response that ends after its first `tokens` tokens."""
    start = generation.token_ids[:tokens]
    scored = attribute(model, forced_generation(model, generation.prompt_token_ids, start))
    return {"tokens": len(start), "gain": scored.gain, "base_share": scored.base_share}


def _by_domain(scores: Mapping[str, float]) -> dict[str, float]:
    totals: dict[str, float] = defaultdict(float)
    for client, score in scores.items():
        totals[domain_of(client)] += score
    return dict(totals)


def _is_right_domain(row: Mapping[str, Any], method: str) -> bool:
    scores = row[method] if method == "credit" else softmax_of(row[method])
    totals = _by_domain(scores)
    return bool(max(totals, key=totals.__getitem__) == row["domain"])


def _right_domain(settings: DomainSettings, cases: Mapping[str, ResultRows]) -> Summary:
    rows = [row for each in cases.values() for row in each]
    gained = [row for row in rows if row["gain"] > GAIN]
    domains = sorted({row["domain"] for row in rows})
    chance = 1 / len(domains)
    figures = [
        proportion(f"right domain on top, {method}", sum(_is_right_domain(row, method) for row in gained), len(gained),
                   chance=chance, target=0.90 if method == "credit" else None)
        for method in ("credit", "paper")
    ]  # fmt: skip
    for domain in domains:
        own = [row for row in gained if row["domain"] == domain]
        hits = sum(_is_right_domain(row, "credit") for row in own)
        figures.append(proportion(f"right domain on top, credit, {domain}", hits, len(own), chance=chance))
    every = sum(_is_right_domain(row, "credit") for row in rows)
    figures.append(proportion("right domain on top, credit, whatever the gain", every, len(rows), chance=chance))
    short = commons_of_small_gains([row["short"] for row in rows])
    short = short.model_copy(update={"name": f"{short.name}, cut at {settings.short} tokens"})
    figures += [_auc(gained, domains), commons_of_small_gains(rows), short]
    gains = {
        domain: [(row["gain"], 1 - row["base_share"]) for row in rows if row["domain"] == domain] for domain in domains
    }
    plot = Plot(
        name="gain-and-payable",
        title="What a response gained over the base model, and the part of it that is paid to clients",
        kind="scatter",
        x_label="gain, nats",
        y_label="1 − base share",
        series=gains,
    )
    coverage = len(gained) / len(rows)
    note = f"Coverage is the part of the {len(rows)} responses whose gain over the base model is above {GAIN} nat."
    return Summary(figures=figures, plots=[plot], notes=[note], coverage=coverage)


def _auc(gained: ResultRows, domains: Sequence[str]) -> Figure:
    own: list[float] = []
    others: list[float] = []
    for row in gained:
        shares = _by_domain(positive_shares(row["credit"]) or {})
        for domain in domains:
            (own if domain == row["domain"] else others).append(shares.get(domain, 0.0))
    return Figure(
        name="AUC of a domain's credit share", value=area_under_curve(own, others), n=len(own) + len(others),
        unit="correlation", chance=0.5,
    )  # fmt: skip


def commons_of_small_gains(rows: ResultRows) -> Figure:
    """The commons' part of the credit of all responses that gained at most `GAIN`."""
    small = [row for row in rows if row["gain"] <= GAIN]
    tokens = sum(row["tokens"] for row in small)
    commons = sum(row["tokens"] * row["base_share"] for row in small)
    return Figure(
        name=f"credit to the commons, responses up to {GAIN:g} nat", value=commons / tokens if tokens else 1.0,
        n=len(small), unit="share", target=0.80 if small else None, at_least=True,
        note="" if small else "there were none",
    )  # fmt: skip


def twin_gaps(rows: ResultRows, shares_of: SharesOf) -> list[float]:
    """|a − b| / (a + b) of each domain's two clients, over what all questions of that domain brought them."""
    totals: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for row in rows:
        for client, share in (shares_of(row) or {}).items():
            if domain_of(client) == row["domain"]:
                totals[row["domain"]][client] += share * row["tokens"]
    gaps = []
    for pair in totals.values():
        first, second = pair.values()
        gaps.append(abs(first - second) / (first + second) if first + second else 0.0)
    return gaps


def _twins(_: NaturalSettings, cases: Mapping[str, ResultRows]) -> Summary:
    figures = []
    rules: dict[str, tuple[SharesOf, float | None]] = {
        "credit": (lambda row: row["shares"], 0.10),
        "paper": (lambda row: softmax_of(row["paper"]), None),
    }
    for method, (shares_of, target) in rules.items():
        gaps = [gap for rows in cases.values() for gap in twin_gaps(rows, shares_of)]
        figures.append(mean(f"twins' difference over all responses, {method}", gaps, "ratio", target=target))
        single = [gap for rows in cases.values() for row in rows for gap in twin_gaps([row], shares_of)]
        figures.append(mean(f"twins' difference in a single response, {method}", single, "ratio"))
    count = sum(len(rows) for rows in cases.values())
    notes = [
        (
            f"Each domain's two clients hold as many examples, drawn at random from one file; {count} responses."
            " The difference is |a − b| / (a + b) of what the two earn."
        )
    ]
    return Summary(figures=figures, notes=notes)


RIGHT_DOMAIN = Experiment(DomainSettings, _cases, _run_right_domain, _right_domain)
TWINS = Experiment(NaturalSettings, _cases, _run_twins, _twins)
