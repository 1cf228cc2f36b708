"""What recording takes of a round of Flower, with a real SuperLink and four SuperNodes on this machine.

Clients train next to nothing, so that the share is the largest there may be. Run by `make bench-recording`.
"""

import json
import re
import tempfile
from pathlib import Path

from tests.end_to_end.environments import built_wheel
from tests.end_to_end.flower.environment import flower_environment
from tests.end_to_end.flower.federation import flower_federation
from tests.waiting import until

SIZES = {
    "LoRA of rank 8 on the 135M model": {"size": 576, "rank": 8, "layers": 120, "steps": 2},
    "LoRA of rank 64 on an 8B model's queries": {"size": 4096, "rank": 64, "layers": 32, "steps": 1},
}
MEMBERS = ("north", "south", "west", "east")
_LINE = re.compile(r"round (\d+) is recorded, in ([\d.]+) s of ([\d.]+) s")


def measure(programs: Path, config: dict[str, int]) -> list[tuple[int, float, float]]:
    """For each round its number, the seconds that recording took, and those of the whole round."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with flower_federation(folder, programs) as federation:
            keys = {member: federation.add_node(member, {"examples": 10}) for member in MEMBERS}
            members = [{"client": each, "name": each, "node_public_key": key} for each, key in keys.items()]
            (folder / "members.json").write_text(json.dumps(members))
            places = {"folder": str(folder / "rounds"), "members": str(folder / "members.json")}
            run = federation.start_run(places | config | {"timeout": 600.0})
            until(lambda: run.poll() is not None, 900, federation.logs)
            log = (folder / "run.log").read_text()
            assert (folder / "rounds" / "round-0003").is_dir(), federation.logs()
    return sorted({(int(number), float(own), float(whole)) for number, own, whole in _LINE.findall(log)})


def main() -> None:
    """Print the share of each size."""
    with tempfile.TemporaryDirectory() as scratch:
        programs = flower_environment(built_wheel(Path(scratch)))
        for name, config in SIZES.items():
            mebibytes = 2 * 4 * config["size"] * config["rank"] * config["layers"] / (1 << 20)
            for number, own, whole in measure(programs, config):
                share = 100 * own / whole
                print(
                    f"{name}, {mebibytes:.1f} MiB a client, round {number}: {own:.3f} s of {whole:.1f} s, {share:.1f} %"
                )


if __name__ == "__main__":
    main()
