"""A consortium on disk: opened with every hash checked, and verified by recomputation.

Does not train and does not score.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError
from torch import Tensor

from attribution.base.references import base_tensors, resolve_base, skeleton, weights_sha256
from attribution.bundle.manifest import MANIFEST_NAME, Manifest, read_manifest
from attribution.bundle.merge_check import check_merge, measure_merge
from attribution.bundle.round_claims import round_problems
from attribution.bundle.similarity import norms
from attribution.bundle.updates import Update, load_update
from attribution.errors import BundleError
from attribution.files.safetensors_files import opened_safetensors
from attribution.files.untrusted import file_sha256, first_problem, read_text


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
        updates = {}
        for client in self.manifest.clients:
            if client.last_round_path is not None and client.last_round_sha256 is not None:
                file = self.path / client.last_round_path  # read late: another bundle may have come to its place
                _require_update(file, client.last_round_sha256, client.id)
                updates[client.id] = load_update(file)
        return updates


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
        raise BundleError(f"{manifest_path}: {first_problem(error)}") from error
    except ValueError as error:
        raise BundleError(f"{manifest_path}: {error}") from error


def manifest_sha256(path: Path) -> str:
    """The hash of the manifest of the bundle at `path`, by which bundles of one global model are told apart.

    Raises:
        BundleError: it cannot be read.
    """
    return file_sha256(path / MANIFEST_NAME, BundleError)


def verify_bundle(bundle: Bundle) -> Verification:
    """Recompute global = base + Σ_i D_i + residual, parameter by parameter, and name what disagrees.

    Of recorded rounds the residual has to be what the manifest says, and the rounds have to explain it.

    Raises:
        ModelError: the base model cannot be found.
        BundleError: an update names a parameter that the model does not have, or has another shape.
    """
    verification = measure_bundle(bundle)
    problems = claim_problems(bundle, verification)
    return replace(verification, problems=(*verification.problems, *problems))


def claim_problems(bundle: Bundle, measured: Verification) -> tuple[str, ...]:
    """What the manifest says of recorded rounds and what was measured does not bear out."""
    if bundle.manifest.rounds is None:
        return ()
    last = bundle.last_round
    last_norms = dict(zip(last, norms(list(last.values())).tolist(), strict=True))
    return round_problems(bundle.manifest, measured.residual_norm, measured.client_norms, last_norms)


def measure_bundle(bundle: Bundle) -> Verification:
    """The same but for what recorded rounds claim, which is nothing but numbers.

    Raises:
        ModelError: the base model cannot be found.
        BundleError: an update names a parameter that the model does not have, or has another shape.
    """
    is_recorded = bundle.manifest.rounds is not None
    base_path = resolve_base(bundle.manifest.base.reference)
    problems = []
    if weights_sha256(base_path) != bundle.manifest.base.sha256:
        problems.append(f"base model {bundle.manifest.base.reference}: weights differ from the manifest's hash")
    updates = bundle.updates
    changed = set().union(*(update.parameters() for update in updates.values()))
    squares = dict.fromkeys(updates, 0.0)
    residual = total = 0.0
    base, served_names, differing = base_tensors(base_path), set(), []
    for name, served in _tensors(bundle.global_path):
        served_names.add(name)
        _require_same_shapes(name, served, base, base_path, updates)
        check = (measure_merge if is_recorded else check_merge)(name, served, base[name], updates)
        residual, total = residual + check.residual, total + check.total
        for client_id, square in check.clients.items():
            squares[client_id] += square
        if check.wrong:
            differing.append((check.residual, name, check.wrong))
        changed.discard(name)
    if changed:
        raise BundleError(f"{bundle.path}: updates change {min(changed)!r}, which the global model does not have")
    needed = {name for name, _ in skeleton(bundle.global_path).named_parameters()}
    problems += [
        f"global model lacks {name!r}, which would be filled at random" for name in sorted(needed - served_names)
    ]
    # a residual that the manifest declares excuses nothing: fedavg-exact leaves rounding alone
    if differing:
        _, name, wrong = max(differing)
        problems.append(
            f"clients' updates do not add up to the global model: residual norm {math.sqrt(residual):.6g};"
            f" {len(differing)} parameters hold elements that no rounding explains, {wrong} of them in {name!r}"
        )
    lengths = {client_id: math.sqrt(square) for client_id, square in squares.items()}
    if is_recorded:
        lengths = dict(zip(updates, norms(list(updates.values())).tolist(), strict=True))
    return Verification(len(served_names), math.sqrt(total), math.sqrt(residual), lengths, tuple(problems))


def parameter_tensors(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a model folder by name, memory-mapped."""
    return dict(_tensors(folder))


def _tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in sorted(folder.glob("*.safetensors")):
        with opened_safetensors(path, BundleError) as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                yield name, file.get_tensor(name)


def _require_same_shapes(
    name: str, served: Tensor, base: Mapping[str, Tensor], base_path: Path, updates: Mapping[str, Update]
) -> None:
    if name not in base:
        raise BundleError(f"global model has {name!r}, which the base model {base_path} lacks")
    _require_shape(base[name].shape, served, f"base model, parameter {name!r}")
    for client, update in updates.items():
        low_rank = update.low_rank.get(name.removesuffix(".weight")) if name.endswith(".weight") else None
        if low_rank is not None:
            shape = (low_rank.B.shape[0], low_rank.A.shape[1])
            _require_shape(shape, served, f"client {client!r}, parameter {name!r}")
        if name in update.dense:
            _require_shape(update.dense[name].shape, served, f"client {client!r}, parameter {name!r}")


def _require_shape(shape: Sequence[int], served: Tensor, what: str) -> None:
    if tuple(shape) != tuple(served.shape):
        raise BundleError(f"{what}: shape {tuple(shape)}, but the global model has {tuple(served.shape)}")


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
            assert expected is not None, "the manifest's paths and hashes go together"
            _require_update(bundle.path / relative, expected, client.id)


def _require_update(file: Path, expected: str, client: str) -> None:
    if not file.is_file():
        raise BundleError(f"{file}: missing (update of client {client!r})")
    if file_sha256(file, BundleError) != expected:
        raise BundleError(f"{file}: differs from the manifest's hash (update of client {client!r})")
