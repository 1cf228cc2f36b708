"""The recorder under Flower itself: a SuperLink and four SuperNodes with keys, of which one is killed in mid-round."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from attribution.rounds.reading import RecordedRounds, read_rounds
from tests.end_to_end.environments import built_wheel
from tests.end_to_end.flower.environment import flower_environment
from tests.end_to_end.flower.federation import FlowerFederation, flower_federation
from tests.waiting import until

pytestmark = pytest.mark.slow
EXAMPLES = {"north": 40, "south": 20, "west": 20, "east": 10}
STRATEGIES = Path(__file__).parent / "flower" / "strategies.py"


@pytest.fixture(scope="module")
def programs(tmp_path_factory) -> Path:
    """The programs of an environment in which the wheel's base and Flower were resolved together."""
    return flower_environment(built_wheel(tmp_path_factory.mktemp("wheel")))


@pytest.fixture(scope="module")
def trained(programs, tmp_path_factory) -> tuple[FlowerFederation, RecordedRounds]:
    """Three rounds: `east` fails in the second, `west` is killed in the middle of the third."""
    folder = tmp_path_factory.mktemp("federation")
    marker = folder / "west-trains"
    with flower_federation(folder, programs) as federation:
        special = {"east": {"fails-in": 2}, "west": {"hangs-in": 3, "marker": str(marker)}}
        keys = {
            member: federation.add_node(member, {"examples": examples} | special.get(member, {}))
            for member, examples in EXAMPLES.items()
        }
        members = [{"client": each, "name": each.title(), "node_public_key": key} for each, key in keys.items()]
        (folder / "members.json").write_text(json.dumps(members))
        config = {
            "folder": str(folder / "rounds"),
            "members": str(folder / "members.json"),
            "rounds": 3,
            "timeout": 40.0,
        }
        run = federation.start_run(config)
        until(lambda: marker.exists() or run.poll() is not None, what=federation.logs)
        federation.kill("west")
        until(lambda: run.poll() is not None, what=federation.logs)
        assert run.returncode == 0 and (folder / "rounds" / "round-0003").is_dir(), federation.logs()
    return federation, read_rounds(folder / "rounds")


def test_the_base_stands_beside_flower(programs):
    """In one environment, in which pip finds nothing broken, and in which there is neither torch nor the service."""
    code = "import flwr, attribution.rounds.flower, sys; print({'torch', 'ray', 'transformers'} & {*sys.modules})"
    ran = subprocess.run([programs / "python", "-c", code], capture_output=True, text=True, check=False)

    assert "set()\n" == ran.stdout, ran.stderr


def test_strategies_of_flower_are_known_by_their_names(programs, tmp_path):
    """Each that is refused is a class of this Flower; those that average are taken, and noise of clients with them."""
    ran = subprocess.run([programs / "python", STRATEGIES, tmp_path], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr


def test_updates_are_of_the_members_that_sent_them(trained):
    """By the keys of their nodes, with the weights of the strategy and the statements as they came."""
    _, recorded = trained
    first = recorded.rounds[0]

    assert EXAMPLES == {update.client: update.weight for update in first.updates}
    assert {each: {"client": each, "round": 1} for each in EXAMPLES} == {
        update.client: json.loads(update.statement or "") for update in first.updates
    }
    assert ["q_proj"] == (recorded.federation.adapter or {})["target_modules"]


def test_who_failed_or_was_killed_is_left_out_and_named(trained):
    """With the member, the node and the reason, in the rounds in which they were missing and in no other."""
    federation, recorded = trained
    missing = [{each.client: each for each in one.missing} for one in recorded.rounds]

    assert {} == missing[0]
    assert (["east"], federation.numbers["east"]) == ([*missing[1]], missing[1]["east"].node)
    assert missing[1]["east"].reason.startswith("error: ")
    assert (["west"], federation.numbers["west"]) == ([*missing[2]], missing[2]["west"].node)
    assert "no answer within the time of the round" == missing[2]["west"].reason
    assert {"north", "south", "east"} == {update.client for update in recorded.rounds[2].updates}


def test_each_global_model_is_the_average_of_what_is_recorded(trained):
    """Nothing is in the model that is not in the record: the difference is rounding."""
    _, recorded = trained
    for each in recorded.rounds:
        total = sum(update.weight for update in each.updates)
        average: dict[str, np.ndarray] = {}
        for update in each.updates:
            for name, values in load_file(recorded.update_path(each.round, update.client)).items():
                average[name] = average.get(name, 0) + values.astype(np.float64) * (update.weight / total)
        result = load_file(recorded.global_path(each.round))

        assert average.keys() == result.keys()
        assert all(np.abs(average[name] - values).max() < 1e-6 for name, values in result.items())
        assert any(np.abs(values).max() > 0.01 for name, values in result.items() if "lora_B" in name), "it learnt"
