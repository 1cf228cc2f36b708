"""Small base models trained from scratch, for architectures whose real weights are not at hand: `scratch:ARCHITECTURE`.

They learn the domains' own questions and answers for a few minutes, so they know next to nothing: a result on one shows
that an architecture works, and says so. Does not know experiments.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from attribution.base.references import load_tokenizer, resolve_base, save_model
from attribution.errors import ModelError
from attribution.evaluation.data import Domain
from attribution.progress import Progress
from attribution.training.local import encode_example
from attribution.training.recipe import DEFAULT_BASE, Example

ARCHITECTURES: Mapping[str, Any] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
}
_SIZES = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
_BATCH, _MAX_TOKENS, _LEARNING_RATE = 16, 96, 2e-3


def from_scratch(
    architecture: str, domains: Mapping[str, Domain], folder: Path, progress: Progress, steps: int = 400
) -> str:
    """Train a model of a supported architecture on the domains' examples, once, and return its `path:` reference.

    The tokenizer is that of the default base model.

    Raises:
        ModelError: the architecture is unknown, or there are no examples.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(f"scratch:{architecture}: the architecture is not one of {', '.join(ARCHITECTURES)}")
    if not domains:
        raise ModelError(f"scratch:{architecture}: there is nothing to train on; give question–answer files")
    document = [architecture, steps, _SIZES, {name: domain.sha256 for name, domain in domains.items()}]
    key = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:12]
    target = folder / f"{architecture}-{key}"
    if not target.is_dir():
        tokenizer = load_tokenizer(resolve_base(DEFAULT_BASE))
        examples = [example for domain in domains.values() for example in domain.examples]
        model = _train(architecture, tokenizer, examples, steps, progress)
        unfinished = target.with_name(f".{target.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        save_model(model, tokenizer, unfinished)
        unfinished.rename(target)
    return f"path:{target.resolve()}"


def _train(architecture: str, tokenizer: Any, examples: Sequence[Example], steps: int, progress: Progress) -> Any:
    config, kind = ARCHITECTURES[architecture]
    ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config(vocab_size=len(tokenizer), pad_token_id=tokenizer.eos_token_id, **ends, **_SIZES))
    optimizer = torch.optim.AdamW(model.parameters(), lr=_LEARNING_RATE)
    progress.start(f"training a small {architecture} from scratch", steps)
    model.train()
    for ids, targets in _batches(tokenizer, examples, steps):
        hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
        wanted = targets[:, 1:] >= 0
        logits = model.lm_head(hidden[wanted])  # the head is most of the model: only where an answer is learned
        loss = nn.functional.cross_entropy(logits, targets[:, 1:][wanted])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        progress.advance()
    return model.eval()


def _batches(tokenizer: Any, examples: Sequence[Example], steps: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of token ids and targets, (rows, tokens) each; −1 where nothing is to be learned: prompt and padding."""
    chance = random.Random(0)  # noqa: S311 - training, no secret
    for _ in range(steps):
        rows = [encode_example(tokenizer, example) for example in chance.sample(examples, min(_BATCH, len(examples)))]
        cut = [([*prompt, *answer][:_MAX_TOKENS], len(prompt)) for prompt, answer in rows]
        longest = max(len(ids) for ids, _ in cut)
        ids = torch.full((len(cut), longest), tokenizer.eos_token_id)
        targets = torch.full((len(cut), longest), -1)
        for row, (tokens, prompt) in enumerate(cut):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            targets[row, prompt : len(tokens)] = torch.tensor(tokens[prompt:], dtype=torch.long)
        yield ids, targets
