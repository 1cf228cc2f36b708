"""A consortium on disk: opened with every hash checked, written whole or not at all, and verified by recomputation.

Does not train and does not score.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from attribution.errors import BundleError
from attribution.foreign import opened_safetensors, read_text
from attribution.manifest import Manifest, read_manifest
from attribution.models import base_tensors, file_sha256, resolve_base, skeleton, weights_sha256
from attribution.updates import Update, load_update

__all__ = [
    "MANIFEST_NAME",
    "Bundle",
    "Verification",
    "manifest_of",
    "open_bundle",
    "parameter_tensors",
    "verify_bundle",
    "write_manifest",
]

MANIFEST_NAME = "consortium.json"
# Float32 rounding of a merge leaves about 1e-7 of the update's norm; a client's update that was scaled, swapped or
# left out leaves its own norm. Nothing honest lies between.
_RESIDUAL_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Bundle:
    """An opened bundle whose files agree with their hashes. Updates are read when first asked for."""

    path: Path
    manifest: Manifest

    @property
    def client_ids(self) -> tuple[str, ...]:
        """Client ids in the manifest's order."""
        return tuple(client.id for client in self.manifest.clients)

    @property
    def global_path(self) -> Path:
        """Folder of the served model."""
        return self.path / self.manifest.global_.path

    @cached_property
    def updates(self) -> Mapping[str, Update]:
        """D_i by client id: the weighted cumulative updates."""
        return {client.id: load_update(self.path / client.path) for client in self.manifest.clients}

    @cached_property
    def last_round(self) -> Mapping[str, Update]:
        """C_i^R − G^{R−1} by client id, unweighted, for the clients of the last round."""
        return {
            client.id: load_update(self.path / client.last_round_path)
            for client in self.manifest.clients
            if client.last_round_path is not None
        }


@dataclass(frozen=True)
class Verification:
    """What recomputing the aggregation found. Norms are Frobenius norms; `problems` is empty when all agrees."""

    parameters: int
    update_norm: float
    residual_norm: float
    client_norms: Mapping[str, float]
    problems: tuple[str, ...]


def open_bundle(path: Path) -> Bundle:
    """Read and validate the manifest at `path` and check the hash of every file it names.

    Raises:
        BundleError: naming the file that is missing, malformed or altered.
    """
    bundle = Bundle(path, manifest_of(path))
    _check_files(bundle)
    return bundle


def manifest_of(path: Path) -> Manifest:
    """The manifest of the bundle at `path`; the files beside it are not looked at.

    Raises:
        BundleError: there is none, or it is malformed.
    """
    manifest_path = path / MANIFEST_NAME
    try:
        text = read_text(manifest_path, BundleError)
    except BundleError as error:
        raise BundleError(f"{error}; is {path} a bundle?") from error
    try:
        return read_manifest(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BundleError(f"{manifest_path}: {place or 'document'}: {first['msg']}") from error
    except ValueError as error:
        raise BundleError(f"{manifest_path}: {error}") from error


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `consortium.json` into the bundle folder `path`."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (path / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def verify_bundle(bundle: Bundle) -> Verification:
    """Recompute global = base + Σ_i D_i + residual, parameter by parameter, and name what disagrees.

    Raises:
        ModelError: the base model cannot be found.
        BundleError: an update names a parameter that the model does not have, or has another shape.
    """
    base_path = resolve_base(bundle.manifest.base.reference)
    problems = []
    if weights_sha256(base_path) != bundle.manifest.base.sha256:
        problems.append(f"base model {bundle.manifest.base.reference}: weights differ from the manifest's hash")
    updates = bundle.updates
    changed = set().union(*(update.parameters() for update in updates.values()))
    squares = dict.fromkeys(updates, 0.0)
    residual_square = total_square = rounding_square = 0.0
    worst = ("", 0.0)
    base, served_names = base_tensors(base_path), set()
    for name, served in _tensors(bundle.global_path):
        served_names.add(name)
        difference = served.float() - _same_shape(base, name, served, base_path).float()
        total_square += difference.square().sum().item()
        rounding_square += (torch.finfo(served.dtype).eps * served.float().norm().item()) ** 2
        for client_id, update in updates.items():
            delta = update.difference(name)
            if delta is None:
                continue
            _require_shape(delta, served, f"client {client_id!r}, parameter {name!r}")
            squares[client_id] += delta.float().square().sum().item()
            difference = difference - delta
        changed.discard(name)
        left = difference.square().sum().item()
        residual_square += left
        worst = max(worst, (name, left), key=lambda pair: pair[1])
    if changed:
        raise BundleError(f"{bundle.path}: updates change {min(changed)!r}, which the global model does not have")
    needed = {name for name, _ in skeleton(bundle.global_path).named_parameters()}
    problems += [
        f"global model lacks {name!r}, which would be filled at random" for name in sorted(needed - served_names)
    ]
    residual, total = math.sqrt(residual_square), math.sqrt(total_square)
    # what the manifest declares is a claim to be checked: fedavg-exact leaves nothing but rounding
    allowed = math.sqrt(rounding_square) + _RESIDUAL_TOLERANCE * total
    if residual > allowed:
        problems.append(
            f"clients' updates do not add up to the global model: residual norm {residual:.6g} where rounding"
            f" allows {allowed:.6g}; largest at {worst[0]!r}"
        )
    norms = {client_id: math.sqrt(square) for client_id, square in squares.items()}
    return Verification(len(served_names), total, residual, norms, tuple(problems))


def parameter_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder by name, memory-mapped."""
    return dict(_tensors(folder))


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with opened_safetensors(path, BundleError) as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                yield name, file.get_tensor(name)


def _same_shape(base: Mapping[str, Tensor], name: str, served: Tensor, base_path: Path) -> Tensor:
    if name not in base:
        raise BundleError(f"global model has {name!r}, which the base model {base_path} lacks")
    _require_shape(base[name], served, f"base model, parameter {name!r}")
    return base[name]


def _require_shape(tensor: Tensor, served: Tensor, what: str) -> None:
    if tensor.shape != served.shape:
        raise BundleError(f"{what}: shape {tuple(tensor.shape)}, but the global model has {tuple(served.shape)}")


def _check_files(bundle: Bundle) -> None:
    manifest = bundle.manifest
    if not (bundle.global_path / "config.json").is_file():
        raise BundleError(f"{bundle.global_path / 'config.json'}: missing")
    if weights_sha256(bundle.global_path) != manifest.global_.sha256:
        raise BundleError(f"{bundle.global_path}: weights or config.json differ from the manifest's hash")
    for client in manifest.clients:
        named = [(client.path, client.sha256), (client.last_round_path, client.last_round_sha256)]
        for relative, expected in named:
            if relative is None:
                continue
            file = bundle.path / relative
            if not file.is_file():
                raise BundleError(f"{file}: missing (update of client {client.id!r})")
            if file_sha256(file) != expected:
                raise BundleError(f"{file}: differs from the manifest's hash (update of client {client.id!r})")
