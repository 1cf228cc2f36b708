"""A merge verifies in whatever type it is stored, and a client that was tampered with does not."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from attribution.base.references import weights_sha256
from attribution.bundle.bundle import open_bundle, verify_bundle
from attribution.bundle.updates import Update
from attribution.bundle.writing import Member, write_bundle
from attribution.errors import AttributionError, BundleError
from attribution.files.untrusted import file_sha256
from tests.attribution import consortia

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(scope="module", params=["lora", "everything"])
def good(request, tmp_path_factory) -> Path:
    """A consortium of three, whose updates are small beside the weights."""
    folder = tmp_path_factory.mktemp("good")
    model = consortia.base_model("llama")
    build = consortia.lora_update if request.param == "lora" else consortia.full_update
    first = 2 if request.param == "lora" else -1
    updates = {c: build(model, seed, first_block=first, size=0.0005) for seed, c in enumerate("abc")}
    consortia.write_consortium(folder, model, updates)
    return folder / "bundle"


@pytest.fixture(params=DTYPES)
def stored(request, good, tmp_path) -> Path:
    """A copy of the bundle, its global model stored in each type."""
    bundle = Path(shutil.copytree(good, tmp_path / "bundle"))
    _rewrite(bundle, "global/model.safetensors", lambda name, tensor: tensor.to(DTYPES[request.param]))
    return bundle


def _rewrite(bundle: Path, file: str, change) -> None:
    """Alter the tensors of a file, and every hash of the manifest so that it agrees."""
    tensors = {name: change(name, tensor).contiguous() for name, tensor in load_file(bundle / file).items()}
    save_file(tensors, bundle / file, metadata={"format": "pt"})
    _edit(bundle, lambda document: None)


def _edit(bundle: Path, change) -> None:
    document = json.loads((bundle / "consortium.json").read_text())
    change(document)
    document["global"]["sha256"] = weights_sha256(bundle / "global")
    for client in document["clients"]:
        client["sha256"] = file_sha256(bundle / client["path"], BundleError)
    (bundle / "consortium.json").write_text(json.dumps(document))


def _leave_out(bundle: Path) -> None:
    _edit(bundle, lambda document: document["clients"].pop())


def _swap(bundle: Path) -> None:
    """One client's update is replaced by a copy of another's."""
    shutil.copy(bundle / "clients/b/update.safetensors", bundle / "clients/a/update.safetensors")
    _edit(bundle, lambda document: None)


def _scale(factor: float):
    def tamper(bundle: Path) -> None:
        file = "clients/a/update.safetensors"
        _rewrite(bundle, file, lambda name, tensor: tensor if "lora_A" in name else factor * tensor)

    return tamper


def _hide(bundle: Path) -> None:
    """Something is in the global model that is nobody's."""
    generator = torch.Generator().manual_seed(5)

    def change(name, tensor):
        if not name.endswith("layers.1.mlp.up_proj.weight"):
            return tensor
        return (tensor.float() + 1e-3 * torch.randn(tensor.shape, generator=generator)).to(tensor.dtype)

    _rewrite(bundle, "global/model.safetensors", change)


def test_an_honest_merge_verifies_in_every_type(stored):
    """Rounding to the stored type is no problem, whatever the updates are."""
    assert () == verify_bundle(open_bundle(stored)).problems


@pytest.mark.parametrize(
    "tamper",
    [_leave_out, _swap, _scale(2), _scale(0.5), _scale(1.05), _scale(-1), _hide],
    ids=["left out", "swapped", "doubled", "halved", "5 % more", "turned round", "hidden change"],
)
def test_what_was_tampered_with_does_not(stored, tamper):
    """However coarse the stored type, a client left out, swapped or scaled, or a change of nobody's, is reported."""
    tamper(stored)

    assert "do not add up" in "".join(verify_bundle(open_bundle(stored)).problems)


def test_an_adapter_in_the_base_model_s_folder_costs_no_bundle(good, tmp_path):
    """A base folder with an adapter in it is refused by the adapter's name, and the older bundle opens as before."""
    bundle = Path(shutil.copytree(good, tmp_path / "bundle"))
    base = tmp_path / "base"
    consortia.save_base(consortia.base_model("llama"), base)
    (base / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    before = {path: file_sha256(path, BundleError) for path in bundle.rglob("*") if path.is_file()}

    with pytest.raises(AttributionError, match=r"base/adapter_config\.json"):
        write_bundle(bundle, "test", f"path:{base}", 1, [Member("a", "A", 1, 1.0, Update(), None)])

    assert before == {path: file_sha256(path, BundleError) for path in bundle.rglob("*") if path.is_file()}
    assert {"base", "bundle"} == {path.name for path in tmp_path.iterdir()}
