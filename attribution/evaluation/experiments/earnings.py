"""What members of a consortium earn, one that somebody may attack: its honest clients, and credit by client.

Does not know any attack.
"""

from collections.abc import Sequence

from pydantic import Field

from attribution.attribute import attribute
from attribution.bundle.bundle import Bundle
from attribution.evaluation.experiment import ResultRows, Settings
from attribution.evaluation.harness import Harness, Participant, answers
from attribution.evaluation.statistics import softmax_of
from attribution.model import FederatedModel
from attribution.training.aggregation import Defences
from attribution.training.recipe import Example


class DefendedSettings(Settings):
    """One honest client a domain with `examples` each, asked `prompts` held-out questions a domain.

    `defences` are those of the defended runs.
    """

    clients: int = Field(default=1, ge=1)
    examples: int = Field(default=48, ge=1)
    prompts: int = Field(default=6, ge=1)
    defences: Defences = Defences(clip_to_median=True, cap_counts=1.0, drop_duplicates=0.95)


def honest_participants(
    settings: DefendedSettings, harness: Harness, seed: int
) -> tuple[list[Participant], list[Example]]:
    """The clients, and the questions that nobody trains on."""
    participants: list[Participant] = []
    questions: list[Example] = []
    for domain in harness.domain_names(settings.domains):
        dealt = harness.parts(
            domain, settings.clients, settings.examples, settings.prompts, seed, settings.training.max_tokens
        )
        participants += [Participant(f"{domain}-{index}", part) for index, part in enumerate(dealt.clients)]
        questions += dealt.held_out
    return participants, questions


def earnings(bundle: Bundle, questions: Sequence[Example], settings: Settings, harness: Harness) -> ResultRows:
    """What each client earns for each response, in tokens, under `credit`; its share under `paper`."""
    model = FederatedModel.load(bundle.path)
    harness.progress.start("asking", len(questions))
    rows: ResultRows = []
    for generation in answers(model, [each.prompt for each in questions], settings.max_new_tokens):
        credit, paper = attribute(model, generation), attribute(model, generation, method="paper")
        tokens = len(generation.token_ids)
        rows.append(
            {
                "token_ids": list(generation.token_ids),
                "credit": {client: share * tokens for client, share in credit.shares.items()},
                "paper": {client: share * tokens for client, share in softmax_of(paper.response_scores).items()},
            }
        )
        harness.progress.advance()
    return rows


def client_shares(rows: ResultRows, method: str) -> dict[str, float]:
    """Each client's part of all that clients earn."""
    totals: dict[str, float] = {}
    for row in rows:
        for client, earned in row[method].items():
            totals[client] = totals.get(client, 0.0) + earned
    whole = sum(totals.values())
    return {client: earned / whole if whole else 0.0 for client, earned in totals.items()}
