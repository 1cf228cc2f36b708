"""A bundle from PEFT adapter folders that somebody else trained, one LoRA adapter per client.

Nothing in a member's folder is trusted: see `adapter_folders` for what it may be, `adapter_config` for what it may ask.
Does not train and does not judge who trained what.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attribution.base.layers import resolve_layers
from attribution.base.references import load_model, resolve_base
from attribution.bundle.bundle import Bundle
from attribution.bundle.replacement import require_bundle_place
from attribution.bundle.updates import LowRank, Update, weighted_sum
from attribution.bundle.writing import Member, write_bundle
from attribution.errors import BundleError
from attribution.files.torch_tensors import is_finite, read_tensors
from attribution.importers.adapter_config import ScaledFactors, factored_layers, read_configuration
from attribution.importers.adapter_folders import CONFIGURATION, TENSORS, require_adapter
from attribution.importers.base_names import other_base
from attribution.importers.client_folders import ClientFolder, total_weight
from attribution.importers.defences import defended_members, written_defences
from attribution.training.aggregation import NO_DEFENCES, Defences

_LOG = logging.getLogger(__name__)
_PREFIX = "base_model.model."
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def import_folders(
    consortium: str,
    base: str,
    adapters: Sequence[ClientFolder],
    target: Path,
    remark: Callable[[str], None] = _LOG.warning,
    defences: Defences = NO_DEFENCES,
) -> Bundle:
    """Merge the adapters exactly, global = base + Σ ρ_i ΔW_i, and write the bundle to `target`.

    `remark` is told, a sentence each, of adapters that say they were trained on another base model, and of what the
    `defences` changed.

    Raises:
        BundleError: an adapter is missing, malformed, not finite, of another shape, or of a kind that is not supported.
        ModelError: the base model cannot be found or is not supported.
        DestinationError: there is something at `target` that is no bundle, or nothing can be written there.
    """
    total = total_weight(consortium, adapters)
    require_bundle_place(target, base, consortium)
    base_path = resolve_base(base)
    members = _members(adapters, base, base_path, total, remark)
    members = defended_members(members, adapters, defences, remark)
    return write_bundle(target, consortium, base, 1, members, written_defences(defences))


def _members(
    adapters: Sequence[ClientFolder], base: str, base_path: Path, total: float, remark: Callable[[str], None]
) -> list[Member]:
    model, members = load_model(base_path), []
    resolve_layers(model)
    for adapter in adapters:
        update, weight = _read_adapter(adapter, model, base, base_path, remark), adapter.weight / total
        members.append(
            Member(
                id=adapter.client,
                name=adapter.shown_name,
                examples=None,
                weight=weight,
                cumulative=weighted_sum([(weight, update)]),
                last_round=update,
            )
        )
    return members


def _read_adapter(
    adapter: ClientFolder, model: Any, base: str, base_path: Path, remark: Callable[[str], None]
) -> Update:
    folder = adapter.folder
    require_adapter(folder)
    configuration = read_configuration(folder / CONFIGURATION)
    if other := other_base(configuration.base_model_name_or_path, base, base_path):
        remark(
            f"client {adapter.client!r}: its adapter says that it was trained on {other!r}, but is merged into"
            f" {base!r}; if these are not the same weights, what it adds means nothing"
        )
    layers = factored_layers(configuration, model, folder / CONFIGURATION, folder / TENSORS)
    path = folder / TENSORS
    tensors = _without_prefix(path, read_tensors(path, BundleError))
    factors = _required_factors(path, layers, model, tensors)
    _require_copies(path, {name: value for name, value in tensors.items() if name not in factors}, model)
    return Update(dict(_low_rank(path, layers, tensors)))


def _without_prefix(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    short = {name.removeprefix(_PREFIX): tensor for name, tensor in tensors.items()}
    if len(short) < len(tensors):
        raise BundleError(f"{path}: a tensor is there twice, with and without {_PREFIX!r} before its name")
    return short


def _required_factors(
    path: Path, layers: Mapping[str, ScaledFactors], model: Any, tensors: Mapping[str, Tensor]
) -> set[str]:
    """The names of all factors, each of which is there, of the right shape, and made of numbers."""
    shapes = {}
    for name, scaled in layers.items():
        layer = model.get_submodule(name)
        shapes[f"{name}.lora_A.weight"] = (scaled.rank, layer.in_features)
        shapes[f"{name}.lora_B.weight"] = (layer.out_features, scaled.rank)
    for name, shape in shapes.items():
        if name not in tensors:
            over = next((f"; it holds {other!r}" for other in tensors if other not in shapes), "")
            raise BundleError(f"{path}: tensor {name!r} is missing{over}")
        if tuple(tensors[name].shape) != shape:
            raise BundleError(
                f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, this base model needs {shape}"
            )
        _require_numbers(path, name, tensors[name])
    return set(shapes)


def _require_numbers(path: Path, name: str, tensor: Tensor) -> None:
    if tensor.dtype not in _FLOATS:
        raise BundleError(
            f"{path}: tensor {name!r} is {tensor.dtype}, not a floating-point type of 16 bits or more; save it as one"
        )
    if not is_finite(tensor, torch.float32):
        raise BundleError(f"{path}: tensor {name!r} holds NaN or infinity")


def _require_copies(path: Path, others: Mapping[str, Tensor], model: Any) -> None:
    """PEFT may save embedding and head beside the factors: where they are not the base model's, they would be lost."""
    base = dict(model.named_parameters(remove_duplicate=False))
    for name, tensor in others.items():
        original = base.get(name.replace(".base_layer.", "."))
        if original is None:
            raise BundleError(f"{path}: tensor {name!r} belongs to no layer that {CONFIGURATION} targets")
        if tensor.shape != original.shape:
            raise BundleError(
                f"{path}: tensor {name!r} has shape {tuple(tensor.shape)}, the base model's has"
                f" {tuple(original.shape)}; an adapter over another vocabulary cannot be imported"
            )
        _require_numbers(path, name, tensor)
        if not _is_copy(tensor, original):
            raise BundleError(
                f"{path}: tensor {name!r} differs from the base model's: it was trained too, or on another base;"
                " only an adapter whose factors say all that was trained can be imported"
            )


def _is_copy(tensor: Tensor, original: Tensor) -> bool:
    """Whether these are the base model's numbers, as they are or rounded to a half that adapters are trained in."""
    kinds = (tensor.dtype, torch.bfloat16, torch.float16)
    return any(torch.equal(original.to(kind).to(tensor.dtype), tensor) for kind in kinds)


def _low_rank(
    path: Path, layers: Mapping[str, ScaledFactors], tensors: Mapping[str, Tensor]
) -> Iterator[tuple[str, LowRank]]:
    for name, scaled in layers.items():
        A, B = tensors[f"{name}.lora_A.weight"].float(), tensors[f"{name}.lora_B.weight"].float()
        B = scaled.scaling * B
        if not is_finite(B):
            raise BundleError(f"{path}: tensor '{name}.lora_B.weight' is infinite once scaled by {scaled.scaling}")
        yield name, LowRank(A, B)
