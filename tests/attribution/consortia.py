"""Small consortia for tests: random models of each supported family with a byte tokenizer, written as real bundles."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from attribution.bundle.updates import LowRank, Update, weighted_sum
from attribution.bundle.writing import Member, write_bundle
from attribution.decoding.decode import Batch
from attribution.model import FederatedModel
from attribution.records import Generation, Sampling

FAMILIES = ("llama", "qwen2", "qwen3", "gemma3")
_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}a: {% endif %}"
)
_SIZES = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.15,
}


def tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, behind three special tokens, with a chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {letter: index + 3 for index, letter in enumerate(alphabet)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=_TEMPLATE
    )


def base_model(family: str, seed: int = 0, *, tied: bool = True, **changes: object) -> torch.nn.Module:
    """A random four-block model of one family."""
    torch.manual_seed(seed)
    sizes = _SIZES | {"tie_word_embeddings": tied} | changes
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**sizes))
    elif family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**sizes))
    elif family == "qwen3":
        model = Qwen3ForCausalLM(Qwen3Config(**sizes))
    else:
        kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
        model = Gemma3ForCausalLM(Gemma3TextConfig(**sizes, sliding_window=8, layer_types=kinds))
    with torch.no_grad():  # biases start at zero, where an error in their handling would not show
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.normal_(0, 0.1)
    return model.eval()


def save_base(model: torch.nn.Module, folder: Path) -> str:
    """Write a base model with its tokenizer and return its `path:` reference."""
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return f"path:{folder}"


def lora_update(model: torch.nn.Module, seed: int, *, first_block: int, size: float = 0.02, rank: int = 3) -> Update:
    """A random low-rank update of every projection from `first_block` on."""
    generator = torch.Generator().manual_seed(seed)
    low_rank = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and _block(name) >= first_block:
            A = torch.randn(rank, module.in_features, generator=generator)
            B = size * torch.randn(module.out_features, rank, generator=generator)
            low_rank[name] = LowRank(A, B)
    return Update(low_rank)


def full_update(model: torch.nn.Module, seed: int, *, first_block: int, size: float = 0.02) -> Update:
    """A random whole update of every parameter from `first_block` on; −1 takes embedding, norm and head too."""
    generator = torch.Generator().manual_seed(seed)
    dense = {
        name: size * torch.randn(value.shape, generator=generator)
        for name, value in model.named_parameters()
        if first_block < 0 or _block(name) >= first_block
    }
    return Update(dense=dense)


def updates(model: torch.nn.Module, clients: str = "abc", *, kind: str = "lora") -> dict[str, Update]:
    """One update for each letter of `clients`: `lora` or `full` on the last two blocks, or `everything`.

    Qwen3 and Gemma 3 normalise their queries and keys, and answer to smaller changes.
    """
    size = 0.02 if model.config.model_type in {"llama", "qwen2"} else 0.002
    if kind == "lora":
        return {c: lora_update(model, seed, first_block=2, size=size) for seed, c in enumerate(clients)}
    first = {"full": 2, "everything": -1}[kind]
    return {c: full_update(model, seed, first_block=first, size=size) for seed, c in enumerate(clients)}


def write_consortium(
    folder: Path,
    model: torch.nn.Module,
    updates: dict[str, Update],
    weights: dict[str, float] | None = None,
    *,
    name: str = "test",
    number: int = 1,
) -> Path:
    """A bundle of the round of that number, of `updates` (unweighted) over `model`, under `folder`."""
    base = save_base(model, folder / "base")
    weights = weights or {client: 1 / len(updates) for client in updates}
    members = [
        Member(client, client.title(), 10, weights[client], weighted_sum([(weights[client], update)]), update)
        for client, update in updates.items()
    ]
    return write_bundle(folder / "bundle", name, base, number, members).path


def federated(folder: Path, family: str = "llama", *, kind: str = "lora") -> FederatedModel:
    """A loaded consortium of three clients over a random model of one family."""
    model = base_model(family)
    return FederatedModel.load(write_consortium(folder, model, updates(model, kind=kind)))


def decode(model: FederatedModel, prompt: str, sampling: Sampling) -> Generation:
    """One response, decoded alone."""
    batch = Batch(model)
    batch.join("alone", model.encode_text(prompt), sampling)
    while len(batch):
        batch.step()
    return batch.leave("alone")


def parrot(prompt: str, answer: str) -> torch.nn.Module:
    """A small Llama that has learnt one answer by heart, and that the answer ends there."""
    model = base_model("llama").train()
    before = tokenizer()(prompt)["input_ids"]
    after = torch.tensor([*tokenizer()(answer)["input_ids"], model.config.eos_token_id])
    ids = torch.tensor([[*before, *after[:-1]]])
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(400):
        logits = model(ids, use_cache=False).logits[0, len(before) - 1 :]
        loss = torch.nn.functional.cross_entropy(logits, after)
        if loss < 0.01:
            return model.eval()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"{answer!r} was not learnt: loss {float(loss):.3g}")


def _block(name: str) -> int:
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["model", "layers"] else -1
