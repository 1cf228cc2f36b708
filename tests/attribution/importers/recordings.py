"""Small recorded federations for tests: what clients send is random, and a server makes of it what it likes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribution.rounds.documents import Federation, Member, Missing
from attribution.rounds.writing import RoundsWriter, SentUpdate

Tensors = dict[str, Tensor]
Server = Callable[[Tensors, Sequence[tuple[float, Tensors]]], Tensors]
PREFIX = "base_model.model."
ADAPTER = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 3, "lora_alpha": 6,
    "target_modules": ["q_proj", "v_proj", "down_proj"],
}  # fmt: skip


def fedavg(_before: Tensors, sent: Sequence[tuple[float, Tensors]]) -> Tensors:
    """The mean of each tensor, factors A and B apart, as every framework's FedAvg."""
    return {name: sum(weight * tensors[name].float() for weight, tensors in sent) for name in sent[0][1]}


def slowed(before: Tensors, sent: Sequence[tuple[float, Tensors]]) -> Tensors:
    """A server that goes half of the way: a learning rate of 0.5."""
    return {name: (before[name].float() + mean) / 2 for name, mean in fedavg(before, sent).items()}


def idle(before: Tensors, _sent: Sequence[tuple[float, Tensors]]) -> Tensors:
    """A server that throws away what was sent."""
    return dict(before)


@dataclass
class Recording:
    """A federation as it runs: `sent` has what each client sent in each round, `states` the global models.

    Attributes:
        folder: where it is recorded.
        members: who may take part.
        start: the first global model.
        server: makes the next global model of the last one and of what was sent.
        adapter: `adapter_config.json`, None for whole models.
        dtype: in which clients send.
        seed: of what they send.
    """

    folder: Path
    members: Sequence[str]
    start: Tensors
    server: Server = fedavg
    adapter: Mapping[str, Any] | None = None
    dtype: torch.dtype = torch.float32
    seed: int = 0
    states: list[Tensors] = field(default_factory=list)
    sent: list[dict[str, tuple[float, Tensors]]] = field(default_factory=list)

    def run(self, *rounds: Mapping[str, float], missing: Sequence[Missing] = ()) -> "Recording":
        """Record one round for each mapping of clients to weights, after those that are there; and return it."""
        members = tuple(Member(client=each, name=each.title()) for each in self.members)
        adapter = None if self.adapter is None else dict(self.adapter)
        writer = RoundsWriter(self.folder, Federation(consortium="valley", members=members, adapter=adapter))
        if not self.states:
            self.states.append(self.start)
        for weights in rounds:
            before = self.states[-1]
            writer.begin(before)
            sent = {client: (weight, self._train(before, client)) for client, weight in weights.items()}
            whole = sum(weights.values())
            after = self.server(before, [(weight / whole, tensors) for weight, tensors in sent.values()])
            updates = [SentUpdate(client, weight, tensors) for client, (weight, tensors) in sent.items()]
            writer.add(updates, missing, after)
            self.sent.append({client: (weight / whole, tensors) for client, (weight, tensors) in sent.items()})
            self.states.append(after)
        return self

    def _train(self, before: Tensors, client: str) -> Tensors:
        """What a client makes of the global model: a random step; a rider hands it back."""
        if client == "rider":
            return dict(before)
        generator = torch.Generator().manual_seed(hash((self.seed, len(self.states), self.members.index(client))))
        return {
            name: (value.float() + 0.05 * torch.randn(value.shape, generator=generator)).to(self.dtype)
            for name, value in before.items()
        }


def adapter_start(
    model: nn.Module, rank: int = 3, targets: Sequence[str] = ("q_proj", "v_proj", "down_proj")
) -> Tensors:
    """Fresh factors by PEFT's names: A random, B zero."""
    generator = torch.Generator().manual_seed(7)
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name.endswith(tuple(targets)):
            tensors[f"{PREFIX}{name}.lora_A.weight"] = torch.randn(rank, module.in_features, generator=generator) / 4
            tensors[f"{PREFIX}{name}.lora_B.weight"] = torch.zeros(module.out_features, rank)
    return tensors


def merged(state: Tensors, scalings: Callable[[str], float] = lambda _: 2.0) -> Tensors:
    """The oracle: what a state adds to the base by parameter, multiplied out in float64; whole tensors as they are."""
    total: Tensors = {}
    for name, tensor in state.items():
        plain = name.removeprefix(PREFIX)
        if plain.endswith(".lora_A.weight"):
            layer = plain.removesuffix(".lora_A.weight")
            B = state[name.replace("lora_A", "lora_B")]
            total[f"{layer}.weight"] = scalings(layer) * (B.double() @ tensor.double())
        elif not plain.endswith(".lora_B.weight"):
            total[plain] = tensor.double()
    return total


def parts(recording: Recording, scalings: Callable[[str], float] = lambda _: 2.0) -> dict[str, Tensors]:
    """The oracle: D_i of each member, by parameter, in float64."""
    total: dict[str, Tensors] = {client: {} for client in recording.members}
    for number, sent in enumerate(recording.sent):
        before = merged(recording.states[number], scalings)
        for client, (weight, tensors) in sent.items():
            for name, value in merged(tensors, scalings).items():
                total[client][name] = total[client].get(name, 0) + weight * (value - before[name])
    return total


def residuals(recording: Recording, scalings: Callable[[str], float] = lambda _: 2.0) -> list[Tensors]:
    """The oracle: what the server did in each round, by parameter, in float64."""
    rounds = []
    for number, sent in enumerate(recording.sent):
        before, after = (merged(recording.states[each], scalings) for each in (number, number + 1))
        clients = [(weight, merged(tensors, scalings)) for weight, tensors in sent.values()]
        rounds.append(
            {
                name: after[name] - before[name] - sum(weight * (sent[name] - before[name]) for weight, sent in clients)
                for name in before
            }
        )
    return rounds


def norm(tensors: Mapping[str, Tensor]) -> float:
    """The Frobenius norm of all."""
    return float(sum(value.square().sum() for value in tensors.values())) ** 0.5
