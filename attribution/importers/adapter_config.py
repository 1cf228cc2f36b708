"""What a PEFT `adapter_config.json` means: which layers have factors, of which rank, and scaled by how much.

The file is untrusted. Keys are taken from an allow-list, what would compute something else is refused by name, and
nothing in it is imported, executed, or matched without a limit. Does not know tensors.
"""

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from torch import nn

from attribution.errors import BundleError
from attribution.files.untrusted import JsonObject, first_problem, in_one_line, read_json_object, short_repr
from attribution.importers.patterns import Pattern, PatternError, match_names

# Written by PEFT, without effect on what a trained adapter of linear layers computes.
_HARMLESS = {
    "auto_mapping", "inference_mode", "init_lora_weights", "lora_dropout", "peft_type", "peft_version",
    "qalora_group_size", "revision", "task_type", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
    "megatron_core", "ensure_weight_tying", "runtime_config", "fan_in_fan_out",
}  # fmt: skip
# Starts that leave the base weights alone; the others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) train over an altered base.
_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
_EVERY_LINEAR = "all-linear"
_Rank = Annotated[int, Field(ge=1, le=1 << 20)]
_Alpha = Annotated[float, Field(allow_inf_nan=False)]


class ScaledFactors(NamedTuple):
    """The factors of one layer: ΔW = scaling · B A, with `rank` rows in A."""

    rank: int
    scaling: float


class LoraConfiguration(BaseModel):
    """The keys that say what an adapter computes; what they mean is PEFT's (`tuners_utils`, `get_pattern_key`)."""

    model_config = ConfigDict(strict=True, frozen=True)

    r: _Rank = 8
    lora_alpha: _Alpha = 8
    target_modules: str | list[str] | None = None
    exclude_modules: str | list[str] | None = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: str | list[str] | None = None
    rank_pattern: dict[str, _Rank] | None = None
    alpha_pattern: dict[str, _Alpha] | None = None
    use_rslora: bool = False
    base_model_name_or_path: str | None = None

    @model_validator(mode="after")
    def _layers_are_numbered_as_peft_numbers_them(self) -> "LoraConfiguration":
        if self.layers_to_transform not in (None, []) and isinstance(self.target_modules, str):
            raise ValueError("layers_to_transform needs target_modules to be a list of names")
        patterns = [self.layers_pattern] if isinstance(self.layers_pattern, str) else self.layers_pattern
        if patterns not in (None, [], [""], ["layers"]):
            raise ValueError(
                f"layers_pattern = {short_repr(self.layers_pattern)} is not the name of this model's blocks, 'layers'"
            )
        return self

    def layers(self, model: Any) -> dict[str, ScaledFactors]:
        """The layers of `model` that carry factors, by name.

        Raises:
            PatternError: a regular expression is none, or takes too long; names the key.
        """
        names = [name for name, _ in model.named_modules() if name]
        targeted, excluded = self._target_names(model, names), self._excluded_names(names)
        chosen = [name for name in names if name in targeted and name not in excluded]
        ranks = _by_pattern("rank_pattern", self.rank_pattern or {}, chosen)
        alphas = _by_pattern("alpha_pattern", self.alpha_pattern or {}, chosen)
        factors = {}
        for name in chosen:
            rank, alpha = ranks.get(name, self.r), alphas.get(name, self.lora_alpha)
            factors[name] = ScaledFactors(rank, alpha / (math.sqrt(rank) if self.use_rslora else rank))
        return factors

    def _target_names(self, model: Any, names: list[str]) -> set[str]:
        targets = self.target_modules
        if targets is None:  # PEFT's own choice for the architecture
            targets = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(model.config.model_type, [])
        if not isinstance(targets, str):
            whole = set(targets)  # a layer that is named in full is targeted whatever its block
            return {name for name in _names_ending_in(names, targets) if name in whole or self._transforms(name)}
        if targets.lower() != _EVERY_LINEAR:
            return _match("target_modules", [Pattern("fullmatch", targets)], names)[0]
        head = model.get_output_embeddings()
        return {name for name, module in model.named_modules() if isinstance(module, nn.Linear) and module is not head}

    def _excluded_names(self, names: list[str]) -> set[str]:
        if not self.exclude_modules:
            return set()
        if isinstance(self.exclude_modules, str):
            return _match("exclude_modules", [Pattern("fullmatch", self.exclude_modules)], names)[0]
        return _names_ending_in(names, self.exclude_modules)

    def _transforms(self, name: str) -> bool:
        """Whether `layers_to_transform` lets this layer be; the first number in a name is its block's."""
        if self.layers_to_transform in (None, []):
            return True
        number = next((part for part in name.split(".")[2:-1] if part.isdecimal()), None)
        wanted = self.layers_to_transform
        return number is not None and int(number) in ([wanted] if isinstance(wanted, int) else wanted or [])


def read_configuration(path: Path) -> LoraConfiguration:
    """Read an `adapter_config.json`.

    Raises:
        BundleError: it is malformed, of another kind of adapter, or asks for what is not supported; names the key.
    """
    return configuration_of(read_json_object(path, BundleError), path)


def configuration_of(given: JsonObject, path: Path | str) -> LoraConfiguration:
    """What an `adapter_config.json` says that was read from `path`.

    Raises:
        BundleError: as `read_configuration`.
    """
    if given.get("peft_type") != "LORA":
        raise BundleError(f"{path}: peft_type is not LORA; only LoRA adapters can be imported")
    if given.get("init_lora_weights") not in _STARTS:
        raise BundleError(
            f"{path}: init_lora_weights = {short_repr(given['init_lora_weights'])} changes the base;"
            " convert it to plain LoRA"
        )
    known = _HARMLESS | LoraConfiguration.model_fields.keys()
    for key, value in given.items():
        if key not in known and value not in (None, False, [], {}, "", "none", "default"):
            raise BundleError(
                f"{path}: {in_one_line(key)} = {short_repr(value)} is not supported; train the adapter without it"
            )
    taken = {key: given[key] for key in LoraConfiguration.model_fields if given.get(key) is not None}
    try:
        return LoraConfiguration.model_validate(taken)
    except ValidationError as error:
        raise BundleError(f"{path}: {first_problem(error)}; is {short_repr(error.errors()[0]['input'])}") from error


def factored_layers(
    configuration: LoraConfiguration, model: Any, path: Path | str, tensors: Path
) -> dict[str, ScaledFactors]:
    """The layers that the configuration at `path` targets, all of them linear; their factors are in file `tensors`.

    Raises:
        BundleError: there is none, or one that cannot carry an update; or a pattern takes too long.
    """
    try:
        layers = configuration.layers(model)
    except PatternError as error:
        raise BundleError(f"{path}: {error}") from error
    if not layers:
        raise BundleError(f"{path}: target_modules names no layer of this base model")
    tied = model.lm_head.weight is model.get_input_embeddings().weight
    for name, scaled in layers.items():
        if not isinstance(model.get_submodule(name), nn.Linear):
            raise BundleError(f"{path}: layer {name!r} is not linear; only linear layers can carry a LoRA update")
        if not math.isfinite(scaled.scaling):
            raise BundleError(f"{path}: the scaling of {name!r} is {scaled.scaling}")
        if tied and name == "lm_head":
            raise BundleError(
                f"{tensors}: lm_head is tied to the embedding in this base model and cannot carry an update alone"
            )
    return layers


def _names_ending_in(names: Iterable[str], ends: Iterable[str]) -> set[str]:
    """The names that are one of `ends`, or end in a dot and one of them."""
    wanted = frozenset(ends)
    return {name for name in names if not wanted.isdisjoint(_tails(name))}


def _tails(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _match(key: str, patterns: list[Pattern], names: list[str]) -> list[set[str]]:
    try:
        return match_names(patterns, names)
    except PatternError as error:
        raise PatternError(f"{key}: {error}") from error


def _by_pattern(key: str, values: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """The value of the first pattern that each name matches."""
    matched = _match(key, [Pattern("match", rf"(.*\.)?({pattern})$") for pattern in values], names)
    matches: dict[str, Any] = {}
    for value, those in zip(values.values(), matched, strict=True):
        for name in those:
            matches.setdefault(name, value)
    return matches
