"""Small made-up domains, big enough for every quick profile, that a model of a few million weights can learn."""

import json
import random
from pathlib import Path

_THINGS = ("kettle", "ladder", "lantern", "saddle", "basket", "anchor", "mirror", "hammer", "blanket", "bottle")
_PLACES = ("mill", "harbour", "chapel", "orchard", "stable", "market", "quarry", "tower")
_DOMAINS = {
    "colours": ("What is the colour of the {thing} in the {place}?", ("It is red.", "It is blue.", "It is green.")),
    "counts": (
        "How many rings has the {thing} of the {place}?",
        ("There are two.", "There are six.", "None."),
    ),
    "owners": (
        "Who owns the {thing} at the {place}?",
        ("The smith owns it.", "The nurse does.", "Nobody."),
    ),
    "uses": ("What is the {thing} of the {place} for?", ("It carries water.", "It holds grain.", "It keeps time.")),
}


def write_domains(folder: Path) -> Path:
    """Four files of eighty questions each, the same in every run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (question, answers) in _DOMAINS.items():
        chance = random.Random(name)
        lines = [
            {"prompt": question.format(thing=thing, place=place), "response": chance.choice(answers)}
            for thing in _THINGS
            for place in _PLACES
        ]
        text = "\n".join(json.dumps(line) for line in lines)
        (folder / f"{name}.jsonl").write_text(text + "\n", encoding="utf-8")
    return folder
