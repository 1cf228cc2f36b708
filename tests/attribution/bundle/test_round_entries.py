"""What a manifest says of recorded rounds holds together, and one without rounds is written as it always was."""

import copy
import json

import pytest

from attribution.bundle.manifest import read_manifest
from tests.fixtures import BEFORE

HASH = {name: name * 64 for name in "0123456789abcdef"}


def client(name: str, weight: float) -> dict:
    """A client's entry."""
    path = f"clients/{name}/update.safetensors"
    return {
        "id": name, "name": name, "examples": None, "weight": weight, "kind": "lora", "path": path, "sha256": HASH["c"]
    }  # fmt: skip


def update(name: str, weight: float) -> dict:
    """What a client sent."""
    return {
        "client": name, "declared": 40 * weight, "weight": weight, "norm": 1.0, "sha256": HASH["d"], "statement": None
    }  # fmt: skip


def recorded() -> dict:
    """A manifest of two recorded rounds."""
    rounds = [
        {
            "round": 1, "before_sha256": HASH["0"], "after_sha256": HASH["1"], "residual_norm": 0.1,
            "updates": [update("north", 0.75), update("south", 0.25)], "missing": [],
        },
        {
            "round": 2, "before_sha256": HASH["1"], "after_sha256": HASH["2"], "residual_norm": 0.2,
            "updates": [update("north", 1.0)],
            "missing": [{"client": "south", "node": "17", "reason": "killed"}],
        },
    ]  # fmt: skip
    return {
        "schema_version": 1,
        "consortium": "valley",
        "base": {"reference": "path:base", "sha256": HASH["a"]},
        "round": 2,
        "aggregation": "recorded",
        "global": {"path": "global", "sha256": HASH["b"], "residual_norm": 0.25},
        "clients": [client("north", 1.0), client("south", 0.0), client("east", 0.0)],
        "defences": None,
        "start_norm": 0.0,
        "rounds": rounds,
    }


def test_a_manifest_without_rounds_is_written_as_before():
    """That of the version before comes out again byte for byte."""
    text = (BEFORE / "bundle" / "consortium.json").read_text(encoding="utf-8")
    document = read_manifest(text).model_dump(mode="json")

    assert text == json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def test_a_manifest_with_rounds_comes_out_as_it_went_in():
    """Nothing is lost or added."""
    manifest = read_manifest(json.dumps(recorded()))
    without_options = copy.deepcopy(recorded())
    for each in without_options["clients"]:
        each |= {"last_round_path": None, "last_round_sha256": None}
    for update in (update for each in without_options["rounds"] for update in each["updates"]):
        update.setdefault("receipt", None)

    assert without_options == manifest.model_dump(mode="json")


def drop_first(document: dict) -> None:
    """The rounds begin at 2."""
    del document["rounds"][0]


def repeat_last(document: dict) -> None:
    """The last round is there twice."""
    document["rounds"].append(document["rounds"][-1])


def replay(document: dict) -> None:
    """The first round is put behind the others, under the next number."""
    document["round"] = 3
    document["rounds"].append(document["rounds"][0] | {"round": 3})


def lose_a_base(document: dict) -> None:
    """The second round begins with a model that no round ended with."""
    document["rounds"][1]["before_sha256"] = HASH["9"]


def name_a_stranger(document: dict) -> None:
    """An update of nobody's."""
    document["rounds"][1]["updates"][0]["client"] = "west"


def double(document: dict) -> None:
    """A client twice in a round."""
    document["rounds"][0]["updates"][1]["client"] = "north"


def misspell(document: dict) -> None:
    """A hash that is none."""
    document["rounds"][0]["updates"][0]["sha256"] = "d" * 63


def declare_nothing(document: dict) -> None:
    """A weight of 0."""
    document["rounds"][0]["updates"][0]["declared"] = 0


def leave_out(name: str):
    """One of the fields that go together."""

    def without(document: dict) -> None:
        del document[name]

    return without


def call_exact(document: dict) -> None:
    """Rounds beside an aggregation that has none."""
    document["aggregation"] = "fedavg-exact"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (drop_first, "rounds: they must be those from 1 to 2"),
        (repeat_last, "rounds: they must be those from 1 to 2"),
        (replay, "round 3: wrong base"),
        (lose_a_base, "round 2: wrong base"),
        (name_a_stranger, "round 2: client 'west' is none of this bundle"),
        (double, "round 1: client 'north' is in it twice"),
        (misspell, "rounds.0.updates.0.sha256"),
        (declare_nothing, "rounds.0.updates.0.declared"),
        (leave_out("rounds"), "go together"),
        (leave_out("start_norm"), "go together"),
        (call_exact, "go together"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_rounds_that_do_not_hold_together_are_refused_by_name(spoil, reason):
    """Gaps, replays, a wrong base, a double client, a stranger and what is no hash or weight."""
    document = recorded()
    spoil(document)
    with pytest.raises(ValueError, match=reason.replace(".", r"\.")):
        read_manifest(json.dumps(document))
