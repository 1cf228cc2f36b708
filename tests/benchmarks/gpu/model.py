"""A federated model of random weights, made where it is measured: nothing is fetched, and nothing is written."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from attribution.bundle.bundle import Bundle
from attribution.bundle.manifest import BaseEntry, ClientEntry, GlobalEntry, Manifest
from attribution.bundle.updates import LowRank, Update
from attribution.model import DType, FederatedModel

_NO_HASH = "0" * 64
_CHANGE = 0.02  # of an output, beside that of the layer itself: about what training changes


@dataclass(frozen=True)
class Size:
    """What is measured.

    Attributes:
        layers: sizes of the model, in the words of its configuration.
        positions: prompt and response together, of the responses that are scored.
        rows: how many streams are decoded at once.
        tokens: of each stream.
        rank: of an update.
        clients: how many there are.
    """

    layers: Mapping[str, int]
    positions: tuple[int, ...]
    rows: tuple[int, ...]
    tokens: int
    rank: int = 16
    clients: int = 10


LARGE = Size(
    {
        "vocab_size": 128_256,
        "hidden_size": 4096,
        "intermediate_size": 14_336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 16_384,
    },
    positions=(512, 2048, 8192),
    rows=(1, 16, 64),
    tokens=64,
)
"""Llama 3.1 8B, but for its weights."""
SMALL = Size(
    {
        "vocab_size": 256,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 256,
    },
    positions=(16, 32, 64),
    rows=(1, 4, 8),
    tokens=8,
)
"""The same in a second on a processor, to see that all of it runs."""


def random_model(size: Size, device: str, dtype: DType = "bfloat16") -> FederatedModel:
    """The model on a device, every layer of every block changed by every client; it never ends a response by itself."""
    torch.manual_seed(0)
    with torch.device(device):
        config = LlamaConfig(**size.layers, tie_word_embeddings=False)
        network: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
        updates = {f"client-{number}": _update(network, size.rank) for number in range(size.clients)}
    bundle = Bundle(Path("random"), _manifest(list(updates)))
    bundle.__dict__["updates"] = updates  # read from files otherwise
    network = network.eval().requires_grad_(requires_grad=False)
    return _endless(FederatedModel(bundle, network, _tokenizer(size.layers["vocab_size"])))


def scored_in(model: FederatedModel, dtype: DType) -> FederatedModel:
    """The same weights, decoded as they are and scored in a dtype."""
    scored = copy.deepcopy(model.network).to(getattr(torch, dtype))
    return _endless(FederatedModel(model.bundle, model.network, model.tokenizer, scored))


def random_ids(model: FederatedModel, number: int, seed: int = 0) -> list[int]:
    """Tokens of no text."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, model.layers.lm_head.out_features, (number,), generator=generator).tolist()


def _endless(model: FederatedModel) -> FederatedModel:
    model.end_token_ids = set()
    return model


def _update(network: Any, rank: int) -> Update:
    factors = {}
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            A = torch.randn(rank, layer.in_features) / layer.in_features**0.5
            B = torch.randn(layer.out_features, rank) * _CHANGE / rank**0.5
            factors[name] = LowRank(A, B)
    return Update(factors)


def _manifest(clients: list[str]) -> Manifest:
    entries = [
        ClientEntry(id=name, name=name, examples=1, weight=1 / len(clients), kind="lora", path=name, sha256=_NO_HASH)
        for name in clients
    ]
    return Manifest(
        consortium="random",
        base=BaseEntry(reference="path:random", sha256=_NO_HASH),
        round=1,
        aggregation="fedavg-exact",
        global_=GlobalEntry(sha256=_NO_HASH, residual_norm=0.0),
        clients=tuple(entries),
    )


def _tokenizer(vocabulary: int) -> PreTrainedTokenizerFast:
    """A word for each token."""
    words = {f"w{number}": number for number in range(vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w0"))
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="w0", bos_token="w1", eos_token="w2")
