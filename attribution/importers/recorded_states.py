"""What the tensors of a recorded model are of the base model: factors of its layers, or whole parameters.

Names may be PEFT's, with or without what it puts before and within them. Every tensor has a place, or the file is
refused; whether a file is the one that was recorded is checked before (`attribution.rounds.reading`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from attribution.bundle.updates import LowRank
from attribution.errors import BundleError
from attribution.files.torch_tensors import is_finite, read_tensors
from attribution.files.untrusted import JsonObject
from attribution.importers.adapter_config import configuration_of, factored_layers

_PREFIX = "base_model.model."
_WITHIN = ((".modules_to_save.default.", "."), (".modules_to_save.", "."), (".default.weight", ".weight"))
_FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Factors(NamedTuple):
    """Where the factors of one layer are, by the names of their tensors; ΔW = scaling · B A."""

    A: str
    B: str
    scaling: float


@dataclass(frozen=True)
class Places:
    """What each tensor of a recorded model is.

    Attributes:
        factors: by the name of the layer.
        whole: name of the tensor by the name of the parameter.
        copies: a tensor that is to equal another, by name: of two names of one parameter the one that is not read.
    """

    factors: Mapping[str, Factors]
    whole: Mapping[str, str]
    copies: Mapping[str, str]


class State:
    """One recorded model, memory-mapped; everything is read as float32.

    Raises:
        BundleError: a tensor holds no numbers of 16 bits or more, or others than finite ones; names file and tensor.
    """

    def __init__(self, path: Path, places: Places) -> None:
        self._path = path
        self._places = places
        self._tensors = read_tensors(path, BundleError)

    def check(self) -> None:
        """Look at every number once.

        Raises:
            BundleError: a tensor holds none, or not finite ones, or differs from the one that it is a copy of.
        """
        for name, tensor in self._tensors.items():
            if tensor.dtype not in _FLOATS:
                raise BundleError(
                    f"{self._path}: tensor {name!r} is {tensor.dtype}, not a floating-point type of 16 bits or more"
                )
            if not is_finite(tensor, torch.float32):
                raise BundleError(f"{self._path}: tensor {name!r} holds NaN or infinity, in 32 bits at least")
        for name, other in self._places.copies.items():
            if not torch.equal(self._tensors[name], self._tensors[other]):
                raise BundleError(f"{self._path}: {name!r} differs from {other!r}, to which this base model ties it")

    def factors(self, layer: str) -> LowRank:
        """A and B of a layer, not scaled."""
        names = self._places.factors[layer]
        return LowRank(self._tensors[names.A].float(), self._tensors[names.B].float())

    def whole(self, parameter: str) -> Tensor:
        """A parameter that is here as a whole."""
        return self._tensors[self._places.whole[parameter]].float()


def places_of(path: Path, model: Any, adapter: JsonObject | None, written: str) -> Places:
    """What the tensors in a file are of `model`, whole or by an adapter whose configuration is `written` somewhere.

    What is trained besides an adapter (`modules_to_save`) needs no configuration: its tensors say what it is.

    Raises:
        BundleError: the adapter is not supported; a tensor has no place, or another shape than it.
    """
    tensors = read_tensors(path, BundleError)
    names = {_plain_name(name) if adapter is not None else name: name for name in tensors}
    if len(names) < len(tensors):
        raise BundleError(f"{path}: a tensor is there twice, with and without {_PREFIX!r} before its name")
    factors = {} if adapter is None else _factors(path, names, tensors, model, adapter, written)
    of_factors = {name for each in factors.values() for name in (each.A, each.B)}
    others = {name: actual for name, actual in names.items() if actual not in of_factors}
    whole, copies = _whole(path, others, tensors, model)
    if both := sorted(whole.keys() & {f"{layer}.weight" for layer in factors}):
        raise BundleError(f"{path}: tensor {whole[both[0]]!r} is of a layer that has factors; send one of them")
    return Places(factors, whole, copies)


def _plain_name(name: str) -> str:
    """The name of a tensor as the base model has it, and as PEFT names factors in its own files."""
    name = name.removeprefix(_PREFIX)
    for part, plain in _WITHIN:
        name = name.replace(part, plain)
    return name


def _factors(
    path: Path,
    names: Mapping[str, str],
    tensors: Mapping[str, Tensor],
    model: Any,
    adapter: JsonObject,
    written: str,
) -> dict[str, Factors]:
    configuration = configuration_of(
        {key: value for key, value in adapter.items() if key != "modules_to_save"}, written
    )
    factors = {}
    for layer, scaled in factored_layers(configuration, model, written, path).items():
        module = model.get_submodule(layer)
        shapes = {"A": (scaled.rank, module.in_features), "B": (module.out_features, scaled.rank)}
        both = []
        for half, shape in shapes.items():
            name = f"{layer}.lora_{half}.weight"
            if name not in names:
                raise BundleError(f"{path}: tensor {name!r} is missing; it holds {next(iter(tensors), 'nothing')!r}")
            _require_shape(path, names[name], tensors, shape)
            both.append(names[name])
        factors[layer] = Factors(both[0], both[1], scaled.scaling)
    return factors


def _whole(
    path: Path, names: Mapping[str, str], tensors: Mapping[str, Tensor], model: Any
) -> tuple[dict[str, str], dict[str, str]]:
    """Whole parameters by name, and the other names of those that the base model ties together."""
    own_names = {id(value): name for name, value in model.named_parameters()}
    parameters = dict(model.named_parameters(remove_duplicate=False))
    whole, copies = {}, {}
    for name, actual in names.items():
        if name not in parameters:
            hint = "; an adapter's configuration is missing in rounds.json" if ".lora_" in name else ""
            raise BundleError(
                f"{path}: tensor {actual!r} is no parameter of this base model, and no factor of a layer{hint}"
            )
        _require_shape(path, actual, tensors, tuple(parameters[name].shape))
        own_name = own_names[id(parameters[name])]
        if own_name == name:
            whole[name] = actual
        elif own_name in names:
            copies[actual] = names[own_name]
        else:
            raise BundleError(f"{path}: {actual!r} is tied to {own_name!r} in this base model and cannot change alone")
    return whole, copies


def _require_shape(path: Path, name: str, tensors: Mapping[str, Tensor], shape: tuple[int, ...]) -> None:
    if tuple(tensors[name].shape) != shape:
        raise BundleError(
            f"{path}: tensor {name!r} has shape {tuple(tensors[name].shape)}, this base model needs {shape}"
        )
