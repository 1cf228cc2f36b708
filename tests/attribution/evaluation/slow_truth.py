"""Shapley shares of a bundle, from its files alone, as slowly as the definition reads: the oracle of calibrations.

Rebuilds each coalition's whole model with plain torch, lets clients join in every order there is, and adds up. Imports
nothing of `attribution`.
"""

import json
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM


def coalition_model(bundle: Path, coalition: Sequence[str]) -> nn.Module:
    """Base + Σ of the updates of a coalition, a model of its own."""
    manifest = json.loads((bundle / "consortium.json").read_text())
    model = AutoModelForCausalLM.from_pretrained(manifest["base"]["reference"].removeprefix("path:"))
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for client in manifest["clients"]:
            if client["id"] in coalition:
                for name, difference in _differences(load_file(bundle / client["path"])).items():
                    weights[name] += difference
    return model.eval()


def log_p(model: nn.Module, prompt: Sequence[int], response: Sequence[int]) -> float:
    """Log-probability of a response, one token after the other, each by a whole pass."""
    total = 0.0
    for place, token in enumerate(response):
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *response[:place]]])).logits[0, -1]
        total += float(torch.log_softmax(logits.double(), -1)[token])
    return total


def shapley_values(bundle: Path, prompt: Sequence[int], response: Sequence[int]) -> dict[str, float]:
    """What each client adds on average, over all orders in which they may join."""
    clients = [client["id"] for client in json.loads((bundle / "consortium.json").read_text())["clients"]]
    worth: dict[frozenset[str], float] = {}
    totals = dict.fromkeys(clients, 0.0)
    orders = list(permutations(clients))
    for order in orders:
        for place, client in enumerate(order):
            values = []
            for coalition in (order[:place], order[: place + 1]):
                known = frozenset(coalition)
                if known not in worth:
                    worth[known] = log_p(coalition_model(bundle, coalition), prompt, response)
                values.append(worth[known])
            totals[client] += values[1] - values[0]
    return {client: total / len(orders) for client, total in totals.items()}


def _differences(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Whole differences by parameter, of an update's file."""
    differences = {}
    for name, tensor in tensors.items():
        if name.endswith(".lora_A.weight"):
            module = name.removesuffix(".lora_A.weight")
            differences[f"{module}.weight"] = tensors[f"{module}.lora_B.weight"] @ tensor
        elif not name.endswith(".lora_B.weight"):
            differences[name] = tensor
    return differences
