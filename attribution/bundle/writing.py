"""Writing a bundle: the global model is merged as base + Σ_i D_i, everything is hashed, and the folder appears whole.

Of recorded rounds the global model is what the aggregator made. Does not know where the updates came from.
"""

import json
import math
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter, ValidationError

from attribution.base.references import (
    base_tensors,
    load_model,
    load_tokenizer,
    resolve_base,
    save_model,
    weights_sha256,
)
from attribution.bundle.bundle import (
    Bundle,
    claim_problems,
    measure_bundle,
    open_bundle,
    parameter_tensors,
    verify_bundle,
)
from attribution.bundle.manifest import (
    MANIFEST_NAME,
    BaseEntry,
    ClientEntry,
    ClientId,
    GlobalEntry,
    Manifest,
    RoundEntry,
    duplicates,
)
from attribution.bundle.replacement import put_in_place, require_bundle_place
from attribution.bundle.updates import Update, save_update
from attribution.errors import BundleError
from attribution.files.destinations import prepare_folder, spell_out
from attribution.files.torch_tensors import is_finite
from attribution.files.untrusted import file_sha256


@dataclass(frozen=True)
class Member:
    """One client as the bundle will hold it: `cumulative` is D_i, weighted; `last_round` is C_i^R − G^{R−1}."""

    id: str
    name: str
    examples: int | None
    weight: float
    cumulative: Update
    last_round: Update | None
    signing_key: str | None = None


def write_bundle(
    target: Path,
    consortium: str,
    base: str,
    rounds: int,
    members: Sequence[Member],
    defences: Mapping[str, bool | float | None] | None = None,
) -> Bundle:
    """Merge the members' updates into the base model and write the bundle to `target`, replacing an older bundle.

    `defences` are recorded as those under which the updates were aggregated; they change nothing here.

    Raises:
        BundleError: an update does not fit the base model.
        ModelError: the base model cannot be found or loaded.
        DestinationError: there is something at `target` that is no bundle, or nothing can be written there.
    """
    require_client_ids([member.id for member in members])
    place = spell_out(target)  # the folder that one stands in has a name, too
    with _new_folder(target, base, consortium) as (folder, base_path):
        _write_global(base_path, members, folder / "global")
        clients = tuple(_write_client(member, folder) for member in members)
        manifest = Manifest(
            consortium=consortium,
            base=BaseEntry(reference=base, sha256=weights_sha256(base_path)),
            round=rounds,
            aggregation="fedavg-exact",
            global_=GlobalEntry(
                sha256=weights_sha256(folder / "global"),
                residual_norm=_residual_norm(base_path, members, folder / "global"),
            ),
            clients=clients,
            defences=None if defences is None else dict(defences),
        )
        _write_manifest(folder, manifest)
        _require_sound(verify_bundle(open_bundle(folder)).problems)
    return Bundle(place, manifest)


def write_recorded_bundle(
    target: Path,
    consortium: str,
    base: str,
    served: Any,
    members: Iterable[Member],
    start_norm: float,
    rounds: Sequence[RoundEntry],
) -> Bundle:
    """Write `served`, the global model as the aggregator made it, and each member's part of `rounds` to `target`.

    Members are taken one at a time, and none is held longer than it takes to write it.

    Raises:
        BundleError: a client's id is none, or what was written does not add up.
        ModelError: the base model cannot be found.
        DestinationError: there is something at `target` that is no bundle, or nothing can be written there.
    """
    place = spell_out(target)
    with _new_folder(target, base, consortium) as (folder, base_path):
        save_model(served, load_tokenizer(base_path), folder / "global")
        draft = Manifest(
            consortium=consortium,
            base=BaseEntry(reference=base, sha256=weights_sha256(base_path)),
            round=len(rounds),
            aggregation="recorded",
            global_=GlobalEntry(sha256=weights_sha256(folder / "global"), residual_norm=0),
            clients=tuple(_write_client(member, folder) for member in members),
            start_norm=start_norm,
            rounds=tuple(rounds),
        )
        measured = measure_bundle(Bundle(folder, draft))
        entry = draft.global_.model_copy(update={"residual_norm": measured.residual_norm})
        manifest = draft.model_copy(update={"global_": entry})
        _write_manifest(folder, manifest)
        _require_sound((*measured.problems, *claim_problems(open_bundle(folder), measured)))
    return Bundle(place, manifest)


@contextmanager
def _new_folder(target: Path, base: str, consortium: str) -> Iterator[tuple[Path, Path]]:
    """An empty folder that comes to `target` when it is done, in the place of an older bundle; with the base's."""
    require_bundle_place(target, base, consortium)
    base_path = resolve_base(base)
    place = spell_out(target)
    prepare_folder(place.parent)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".building-") as scratch:
        folder = Path(scratch) / "bundle"
        yield folder, base_path
        put_in_place(folder, place)


def _write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `consortium.json` into the bundle folder `path`."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (path / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")


def _require_sound(problems: Sequence[str]) -> None:
    """Refuse a finished bundle in which a reader would find these problems, before the older one goes."""
    if problems:
        raise BundleError(f"the new bundle does not verify, so nothing was replaced: {'; '.join(problems)}")


def require_client_ids(ids: Sequence[str]) -> None:
    """Refuse, before anything is written, ids that no manifest may hold: they are folder names, too.

    Raises:
        BundleError: there is none, one is not such an id, or one occurs twice.
    """
    if not ids:
        raise BundleError("a bundle needs at least one client")
    for client_id in ids:
        try:
            TypeAdapter(ClientId).validate_python(client_id)
        except ValidationError as error:
            raise BundleError(f"client id {client_id!r}: {error.errors()[0]['msg']}") from error
    if twice := duplicates(ids):
        raise BundleError(f"client id {twice[0]!r} occurs more than once")


def _write_global(base_path: Path, members: Sequence[Member], folder: Path) -> None:
    model = load_model(base_path)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for member in members:
            for name in sorted(member.cumulative.parameters()):
                difference = member.cumulative.difference(name)
                assert difference is not None
                if name not in parameters or parameters[name].shape != difference.shape:
                    raise BundleError(
                        f"client {member.id!r}: its update of {name!r} has shape {tuple(difference.shape)},"
                        " which does not fit the base model"
                    )
                if not is_finite(difference):
                    raise BundleError(f"client {member.id!r}: its update of {name!r} holds NaN or infinity")
                parameters[name] += difference
                if not is_finite(parameters[name]):
                    raise BundleError(f"client {member.id!r}: with its update {name!r} becomes infinite")
    save_model(model, load_tokenizer(base_path), folder)


def _write_client(member: Member, folder: Path) -> ClientEntry:
    path = f"clients/{member.id}/update.safetensors"
    save_update(member.cumulative, folder / path)
    last_path = None
    if member.last_round is not None:
        last_path = f"clients/{member.id}/last_round.safetensors"
        save_update(member.last_round, folder / last_path)
    return ClientEntry(
        id=member.id,
        name=member.name,
        examples=member.examples,
        weight=member.weight,
        kind="full" if member.cumulative.dense else "lora",
        path=path,
        sha256=file_sha256(folder / path, BundleError),
        last_round_path=last_path,
        last_round_sha256=file_sha256(folder / last_path, BundleError) if last_path else None,
        signing_key=member.signing_key,
    )


def _residual_norm(base_path: Path, members: Sequence[Member], global_path: Path) -> float:
    """Frobenius norm of global − base − Σ_i D_i: what rounding left."""
    base, total = base_tensors(base_path), 0.0
    for name, served in parameter_tensors(global_path).items():
        difference = served.double() - base[name].double()
        for member in members:
            change = member.cumulative.difference(name)
            if change is not None:
                difference -= change.double()
        total += difference.square().sum().item()
    return math.sqrt(total)
