"""Real weights in another architecture's place: `transplant:ARCHITECTURE`, for those of which no weights are at hand.

The default base's weights are put into an architecture that computes the same of them: before training every logit is
the same, so the model knows what the base knows, and what trains differs. Does not know experiments.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

from attribution.base.references import load_model, load_tokenizer, resolve_base, save_model, weights_sha256
from attribution.errors import ModelError
from attribution.training.recipe import DEFAULT_BASE

TRANSPLANTS: Mapping[str, str] = {
    "qwen2": "biases of queries, keys and values, which begin at nothing",
    "llama-untied": "a head of its own, which begins as a copy of the embedding",
}
_KEPT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_parameters"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)


def transplant_base(architecture: str, folder: Path, reference: str = DEFAULT_BASE) -> str:
    """Put a base's weights into another architecture, once, and return its `path:` reference.

    Args:
        architecture: one of `TRANSPLANTS`.
        folder: where the new model's folder is made.
        reference: the base, a Llama whose head is its embedding.

    Raises:
        ModelError: the architecture is unknown, or the base is no such Llama.
    """
    if architecture not in TRANSPLANTS:
        raise ModelError(f"transplant:{architecture}: the architecture is not one of {', '.join(TRANSPLANTS)}")
    base = resolve_base(reference)
    target = folder / f"{architecture}-{weights_sha256(base)[:12]}"
    if not target.is_dir():
        unfinished = target.with_name(f".{target.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        save_model(_transplant_weights(architecture, load_model(base)), load_tokenizer(base), unfinished)
        unfinished.rename(target)
    return f"path:{target.resolve()}"


def _transplant_weights(architecture: str, donor: Any) -> Any:
    config = donor.config
    if not isinstance(donor, LlamaForCausalLM) or not config.tie_word_embeddings or config.attention_bias:
        raise ModelError(f"transplant:{architecture} takes a Llama without biases whose head is its embedding")
    kept = {name: getattr(config, name) for name in _KEPT}
    if architecture == "qwen2":
        model: Any = Qwen2ForCausalLM(Qwen2Config(**kept, tie_word_embeddings=True, use_sliding_window=False))
    else:
        model = LlamaForCausalLM(LlamaConfig(**kept, tie_word_embeddings=False))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # what the donor has none of: the biases
        for name, weights in donor.named_parameters(remove_duplicate=False):
            model.get_parameter(name).copy_(weights)
    model.generation_config = donor.generation_config
    return model.eval()
