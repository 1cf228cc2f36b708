"""The model: layers each with a low-rank update B·A, which each client pulls towards a matrix of its own."""

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

RATE = 0.05


def layers(config: Mapping[str, Any]) -> list[str]:
    """The layers as PEFT names them."""
    return [f"base_model.model.model.layers.{number}.self_attn.q_proj" for number in range(int(config["layers"]))]


def initial(config: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Factors as PEFT begins with them: A is random, B is nothing."""
    random = np.random.default_rng(0)
    size, rank = int(config["size"]), int(config["rank"])
    return {
        f"{layer}.{name}.weight": values.astype(np.float32)
        for layer in layers(config)
        for name, values in (("lora_A", random.normal(0, size**-0.5, (rank, size))), ("lora_B", np.zeros((size, rank))))
    }


def train(factors: dict[str, np.ndarray], member: str, config: Mapping[str, Any]) -> float:
    """Descend towards the member's own matrix, in place; the loss after it."""
    loss, size = 0.0, int(config["size"])
    for number, layer in enumerate(layers(config)):
        seed = [zlib.crc32(member.encode()), number]
        wanted = np.random.default_rng(seed).normal(0, 0.2, (size, size)).astype(np.float32)
        A, B = (factors[f"{layer}.lora_{name}.weight"] for name in "AB")
        for _ in range(int(config["steps"])):
            error = B @ A - wanted
            A -= RATE * (B.T @ error)
            B -= RATE * (error @ A.T)
        loss += float(np.square(error).mean())
    return loss
