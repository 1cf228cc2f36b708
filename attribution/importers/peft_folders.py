"""A bundle from PEFT adapter folders that somebody else trained, one LoRA adapter per client.

A member's `adapter_config.json` is untrusted: the configuration is rebuilt from an allow-list of keys, what would
change the computation in a way that is not supported is refused by name, and nothing in it is imported or executed.
Does not train and does not judge who trained what.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from attribution.bundle import Bundle, parameter_tensors
from attribution.errors import BundleError
from attribution.layers import resolve_layers
from attribution.models import resolve_base, skeleton
from attribution.updates import LowRank, Update, weighted_sum
from attribution.writing import Member, write_bundle

__all__ = ["AdapterFolder", "import_folders"]

_TAKEN = (
    "r", "lora_alpha", "target_modules", "exclude_modules", "layers_to_transform",
    "rank_pattern", "alpha_pattern", "use_rslora",
)  # fmt: skip
# Written by PEFT, without effect on what a trained adapter computes.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "lora_dropout", "peft_type",
    "peft_version", "qalora_group_size", "revision", "task_type", "layers_pattern", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config", "megatron_core", "ensure_weight_tying", "runtime_config",
}  # fmt: skip
# Starts that leave the base weights alone; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) train over an altered base.
_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
_PREFIX = "base_model.model."


@dataclass(frozen=True)
class AdapterFolder:
    """One client's adapter: `weight` is its part of the average before all weights are made to sum to 1."""

    client: str
    folder: Path
    weight: float = 1.0


def import_folders(consortium: str, base: str, adapters: Sequence[AdapterFolder], target: Path) -> Bundle:
    """Merge the adapters exactly, global = base + Σ ρ_i ΔW_i, and write the bundle to `target`.

    Raises:
        BundleError: an adapter is missing, malformed, not finite, of another shape, or of a kind that is not supported.
        ModelError: the base model cannot be found or is not supported.
    """
    for adapter in adapters:
        if not (math.isfinite(adapter.weight) and adapter.weight > 0):
            raise BundleError(f"client {adapter.client!r}: weight {adapter.weight} is not a positive number")
    base_path = resolve_base(base)
    total = sum(adapter.weight for adapter in adapters)
    if not math.isfinite(total):
        raise BundleError("the sum of the clients' weights is infinite")
    members = []
    for adapter in adapters:
        update, weight = _read_adapter(adapter.folder, base_path), adapter.weight / total
        members.append(
            Member(
                id=adapter.client,
                name=adapter.client,
                examples=None,
                weight=weight,
                cumulative=weighted_sum([(weight, update)]),
                last_round=update,
            )
        )
    return write_bundle(target, consortium, base, 1, members)


def _read_adapter(folder: Path, base_path: Path) -> Update:
    config = _rebuilt_config(folder / "adapter_config.json")
    weights_path = folder / "adapter_model.safetensors"
    try:
        tensors = {name.removeprefix(_PREFIX): tensor for name, tensor in load_file(weights_path).items()}
    except (OSError, SafetensorError) as error:
        raise BundleError(f"{weights_path}: not a readable safetensors file: {error}") from error
    model = skeleton(base_path)  # shapes and scalings only: PEFT itself says what this configuration means
    resolve_layers(model)
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    try:
        inject_adapter_in_model(config, model, low_cpu_mem_usage=True)  # the factors, too, as shapes only
    except (ValueError, TypeError, AttributeError, RuntimeError, re.error) as error:
        raise BundleError(f"{folder / 'adapter_config.json'}: PEFT refuses it for this base model: {error}") from error
    _check_tensors(weights_path, tensors, get_peft_model_state_dict(model))
    _check_base_layers(weights_path, tensors, base_path)
    return Update(dict(_factors(weights_path, model, tensors, tied=tied)))


def _rebuilt_config(path: Path) -> LoraConfig:
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path}: not a readable JSON file: {error}") from error
    if not isinstance(given, dict) or given.get("peft_type") != "LORA":
        raise BundleError(f"{path}: peft_type is not LORA; only LoRA adapters can be imported")
    if given.get("init_lora_weights") not in _STARTS:
        raise BundleError(
            f"{path}: init_lora_weights = {given['init_lora_weights']!r} changes the base; convert it to plain LoRA"
        )
    for key, value in given.items():
        if key not in _TAKEN and key not in _HARMLESS and value not in (None, False, [], {}, "", "none", "default"):
            raise BundleError(f"{path}: {key} = {value!r} is not supported; train the adapter without it")
    taken: dict[str, Any] = {key: given[key] for key in _TAKEN if given.get(key) is not None}
    try:
        return LoraConfig(**taken, lora_dropout=0.0)
    except (TypeError, ValueError) as error:
        raise BundleError(f"{path}: not a LoRA configuration: {error}") from error


def _check_tensors(path: Path, tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    for name, wanted in expected.items():
        if name not in tensors:
            raise BundleError(f"{path}: tensor {name!r} is missing")
        if tensors[name].shape != wanted.shape:
            raise BundleError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)},"
                f" this base model needs {tuple(wanted.shape)}"
            )
    for name, tensor in tensors.items():
        if name not in expected:
            raise BundleError(f"{path}: tensor {name!r} belongs to no layer that adapter_config.json targets")
        if not tensor.is_floating_point():
            raise BundleError(f"{path}: tensor {name!r} is {tensor.dtype}, not a floating-point type")
        if not torch.isfinite(tensor).all():
            raise BundleError(f"{path}: tensor {name!r} holds NaN or infinity")


def _check_base_layers(path: Path, tensors: Mapping[str, Tensor], base_path: Path) -> None:
    """PEFT saves an adapted head beside its factors; where it is not the base model's, it would be lost."""
    saved = {name: tensor for name, tensor in tensors.items() if ".base_layer." in name}
    base = parameter_tensors(base_path) if saved else {}
    for name, tensor in saved.items():
        original = base.get(name.replace(".base_layer.", "."))
        if original is not None and not torch.equal(original.to(tensor.dtype), tensor):
            raise BundleError(f"{path}: tensor {name!r} differs from the base model's")


def _factors(path: Path, model: Any, tensors: Mapping[str, Tensor], *, tied: bool) -> Iterator[tuple[str, LowRank]]:
    for name, layer in model.named_modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        if not isinstance(layer.base_layer, nn.Linear):
            raise BundleError(f"{path}: layer {name!r} is not linear; only linear layers can carry a LoRA update")
        if tied and name == "lm_head":
            raise BundleError(
                f"{path}: lm_head is tied to the embedding in this base model and cannot carry an update alone"
            )
        A, B = tensors[f"{name}.lora_A.weight"].float(), tensors[f"{name}.lora_B.weight"].float()
        scaling = layer.scaling["default"]
        if not math.isfinite(scaling):
            raise BundleError(f"{path.with_name('adapter_config.json')}: the scaling of {name!r} is {scaling}")
        yield name, LowRank(A, scaling * B)
