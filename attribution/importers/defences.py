"""What the aggregator's defences make of members whose folders are averaged at import, as in a round of training.

Knows no defence by itself, which `attribution.training.aggregation` does, nor what the folders held.
"""

from collections.abc import Callable, Sequence

from attribution.bundle.updates import Update, weighted_sum
from attribution.bundle.writing import Member
from attribution.importers.client_folders import ClientFolder
from attribution.training.aggregation import NO_DEFENCES, Defences, aggregate


def defended_members(
    members: Sequence[Member], folders: Sequence[ClientFolder], defences: Defences, remark: Callable[[str], None]
) -> list[Member]:
    """The same members with the weights and updates that the defences leave them; `remark` is told what those changed.

    Raises:
        RecipeError: no client's update is left.
    """
    if defences == NO_DEFENCES:
        return [*members]
    submitted = {member.id: member.last_round or Update() for member in members}
    aggregation = aggregate(submitted, {each.client: each.weight for each in folders}, defences)
    for sentence in aggregation.remarks:
        remark(sentence)
    return [
        Member(
            id=member.id,
            name=member.name,
            examples=member.examples,
            weight=aggregation.weights[member.id],
            cumulative=weighted_sum([(aggregation.weights[member.id], aggregation.updates[member.id])]),
            last_round=aggregation.updates[member.id],
        )
        for member in members
    ]


def written_defences(defences: Defences) -> dict[str, bool | float | None] | None:
    """What the manifest says of them: null where there were none."""
    return None if defences == NO_DEFENCES else defences.model_dump()
