"""How long an import of recorded rounds takes, and that its memory does not grow with the clients.

`python -m tests.benchmarks.rounds`: 55 clients, each in six rounds, with rank-8 updates of the last third of the blocks
of SmolLM2-135M, 1.1 GB in all; then a fifth of the clients. On an idle machine: what else runs is counted, too.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from attribution.base.references import resolve_base, skeleton
from attribution.importers.recorded_rounds import import_rounds
from attribution.rounds.documents import Federation, Member
from attribution.rounds.writing import RoundsWriter, SentUpdate
from attribution.training.recipe import DEFAULT_BASE
from tests.benchmarks.figures import Figure, print_figures
from tests.benchmarks.memory import peak_private_bytes

CLIENTS, FEWER_CLIENTS, ROUNDS, RANK, FIRST_BLOCK = 55, 11, 6, 8, 20


def record(folder: Path, clients: int) -> None:
    """Rounds of random steps, averaged as every framework does, A and B apart."""
    model = skeleton(resolve_base(DEFAULT_BASE))
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head" and int(name.split(".")[2]) >= FIRST_BLOCK
    }
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, module in layers.items():
        state[f"{name}.lora_A.weight"] = torch.randn(RANK, module.in_features, generator=generator) / 24
        state[f"{name}.lora_B.weight"] = torch.zeros(module.out_features, RANK)
    members = tuple(Member(client=f"client-{number}", name=f"Client {number}") for number in range(clients))
    adapter = {"peft_type": "LORA", "r": RANK, "lora_alpha": 48, "target_modules": sorted(layers)}
    writer = RoundsWriter(folder, Federation(consortium="benchmark", members=members, adapter=adapter))
    for _ in range(ROUNDS):
        writer.begin(state)
        sent = [
            {name: value + 0.01 * torch.randn(value.shape, generator=generator) for name, value in state.items()}
            for _ in members
        ]
        state = {name: torch.stack([each[name] for each in sent]).mean(0) for name in state}
        writer.add(
            [SentUpdate(member.client, 1.0, tensors) for member, tensors in zip(members, sent, strict=True)], [], state
        )


def measured_import(folder: Path) -> dict[str, float]:
    """Seconds, those of the processor, and private bytes at most of an import in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.rounds", str(folder)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(answer.stdout.splitlines()[-1])


def measure(folder: Path) -> None:
    """Import the rounds in a folder, and print what it took as one JSON line."""
    began, used = time.perf_counter(), time.process_time()
    peak = peak_private_bytes(lambda: import_rounds(folder / "rounds", DEFAULT_BASE, folder / "bundle"))
    print(json.dumps({"s": time.perf_counter() - began, "cpu_s": time.process_time() - used, "bytes": peak}))


def main() -> None:
    """Print both figures."""
    if len(sys.argv) > 1:
        measure(Path(sys.argv[1]))
        return
    costs = {}
    with tempfile.TemporaryDirectory() as scratch:
        for clients in (FEWER_CLIENTS, CLIENTS):
            folder = Path(scratch) / str(clients)
            record(folder / "rounds", clients)
            costs[clients] = measured_import(folder)
    few, many = costs[FEWER_CLIENTS], costs[CLIENTS]
    detail = (
        f"{CLIENTS} clients, {ROUNDS} rounds; {many['cpu_s']:.0f} s of processors, {os.getloadavg()[0]:.0f} waiting"
    )
    print_figures(
        "rounds",
        [
            Figure("import_s", many["s"], 60, detail=detail),
            Figure("memory_of_55_over_11_clients", many["bytes"] / few["bytes"], 1.1, detail=f"{many['bytes']:.3g} B"),
        ],
    )


if __name__ == "__main__":
    main()
