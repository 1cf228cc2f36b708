"""A bundle from whole checkpoints that somebody else trained, one for each client, all from the same base model.

Their configurations must be the base's, and their parameters are held against it one by one; nobody holds the models
of two clients at once. Does not train and does not judge who trained what.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from torch import Tensor

from attribution.base.layers import resolve_layers
from attribution.base.references import configuration, load_model, resolve_base
from attribution.bundle.bundle import Bundle
from attribution.bundle.replacement import require_bundle_place
from attribution.bundle.updates import Update, load_update, save_update
from attribution.bundle.writing import Member, write_bundle
from attribution.errors import BundleError
from attribution.files.destinations import prepare_folder, spell_out
from attribution.files.untrusted import in_one_line, read_json_object, short_repr
from attribution.importers.adapter_folders import CONFIGURATION
from attribution.importers.base_names import other_base
from attribution.importers.client_folders import ClientFolder, total_weight
from attribution.importers.defences import defended_members, written_defences
from attribution.importers.round_sums import trained_difference
from attribution.training.aggregation import NO_DEFENCES, Defences

_LOG = logging.getLogger(__name__)
_NOT_OF_THE_MODEL = {
    "_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache",
    "bos_token_id", "eos_token_id", "pad_token_id",
}  # fmt: skip
"""Of a configuration, what trainers write otherwise without another model being computed."""


def import_checkpoints(
    consortium: str,
    base: str,
    checkpoints: Sequence[ClientFolder],
    target: Path,
    remark: Callable[[str], None] = _LOG.warning,
    defences: Defences = NO_DEFENCES,
) -> Bundle:
    """Average the checkpoints exactly, global = base + Σ ρ_i (C_i − base), and write the bundle to `target`.

    `remark` is told, a sentence each, of clients whose checkpoint changes nothing, or names another base model,
    and of what the `defences` changed.

    Raises:
        BundleError: a checkpoint is none, or is of another model than the base.
        ModelError: base model or checkpoint cannot be found or loaded, or the architecture is not supported.
        DestinationError: there is something at `target` that is no bundle, or nothing can be written there.
    """
    total = total_weight(consortium, checkpoints)
    require_bundle_place(target, base, consortium)
    base_path = resolve_base(base)
    for each in checkpoints:
        _require_same_model(each, base, base_path, remark)
    place = spell_out(target)
    prepare_folder(place.parent)
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".importing-") as scratch:
        members = _members(checkpoints, base_path, total, Path(scratch), remark)
        members = defended_members(members, checkpoints, defences, remark)
        return write_bundle(target, consortium, base, 1, members, written_defences(defences))


def _members(
    checkpoints: Sequence[ClientFolder], base_path: Path, total: float, scratch: Path, remark: Callable[[str], None]
) -> list[Member]:
    model = load_model(base_path)
    resolve_layers(model)
    origin = dict(model.named_parameters())
    return [
        _member(each, origin, each.weight / total, scratch / str(number), remark)
        for number, each in enumerate(checkpoints)
    ]


def _member(
    checkpoint: ClientFolder,
    origin: dict[str, Tensor],
    weight: float,
    scratch: Path,
    remark: Callable[[str], None],
) -> Member:
    """A client whose updates lie in `scratch` and are mapped from there."""
    changes = dict(_differences(checkpoint, origin))
    if not changes:
        remark(f"client {checkpoint.client!r}: its checkpoint is the base model, so that it changes nothing")
    save_update(Update(dense=changes), scratch / "last_round.safetensors")
    for change in changes.values():
        change.mul_(weight)
    save_update(Update(dense=changes), scratch / "update.safetensors")
    return Member(
        id=checkpoint.client,
        name=checkpoint.shown_name,
        examples=None,
        weight=weight,
        cumulative=load_update(scratch / "update.safetensors"),
        last_round=load_update(scratch / "last_round.safetensors"),
    )


def _differences(checkpoint: ClientFolder, origin: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """What the checkpoint changed of each parameter that it changed, float32."""
    for name, value in load_model(checkpoint.folder).named_parameters():
        difference = trained_difference(value, origin[name])
        if difference.any():
            yield name, difference


def _require_same_model(checkpoint: ClientFolder, base: str, base_path: Path, remark: Callable[[str], None]) -> None:
    """Refuse a folder that holds another model than the base, by what its configuration says: before it is loaded."""
    client, folder = checkpoint.client, checkpoint.folder
    if (folder / CONFIGURATION).exists():
        raise BundleError(f"client {client!r}: {folder} holds a PEFT adapter; import adapters without --full")
    resolve_base(f"path:{folder}")
    theirs, ours = configuration(folder), configuration(base_path)
    for name in sorted((theirs.keys() | ours.keys()) - _NOT_OF_THE_MODEL):
        if theirs.get(name) != ours.get(name):
            values = f"{short_repr(theirs.get(name))}, the base model's is {short_repr(ours.get(name))}"
            raise BundleError(
                f"client {client!r}: {folder / 'config.json'}: {in_one_line(name)} is {values}: it is another model"
            )
    origin = read_json_object(folder / "config.json", BundleError).get("_name_or_path")
    if isinstance(origin, str) and (other := other_base(origin, base, base_path)):
        remark(
            f"client {client!r}: its checkpoint says that it began as {short_repr(other)}, but is held against"
            f" {base!r}; if these are not the same weights, what lies between them counts as the client's"
        )
