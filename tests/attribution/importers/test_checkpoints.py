"""Whole checkpoints are averaged exactly; what is none of the base model's is refused by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from attribution.base.references import load_model
from attribution.bundle.bundle import open_bundle, verify_bundle
from attribution.errors import BundleError, ModelError
from attribution.importers.checkpoints import import_checkpoints
from attribution.importers.client_folders import ClientFolder
from tests.attribution import consortia

TRAINED = ("model.layers.1.mlp.down_proj.weight", "model.norm.weight", "model.embed_tokens.weight")
TIED = pytest.mark.parametrize("is_tied", [True], ids=["tied"], indirect=True)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def is_tied(request: pytest.FixtureRequest) -> bool:
    """Whether head and embedding are one parameter."""
    return bool(request.param)


@pytest.fixture(scope="module")
def base(is_tied: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model on disk."""
    folder = tmp_path_factory.mktemp("base")
    consortia.save_base(consortia.base_model("llama", tied=is_tied), folder)
    return folder


def checkpoint(
    base: Path, folder: Path, change: Callable[[nn.Module], object], dtype: torch.dtype | None = None
) -> Path:
    """The base model, changed, as a trainer saves it: the whole folder, in a type of its own."""
    shutil.copytree(base, folder)
    model = load_model(base)
    with torch.no_grad():
        change(model)
    model.to(dtype or torch.float32).save_pretrained(folder)
    return folder


def trained(seed: int) -> Callable[[nn.Module], None]:
    """What training does to some parameters."""

    def change(model: nn.Module) -> None:
        generator = torch.Generator().manual_seed(seed)
        for name, value in model.named_parameters():
            if name in TRAINED:
                value.add_(0.02 * torch.randn(value.shape, generator=generator))

    return change


def parameters(folder: Path) -> dict[str, Tensor]:
    """What is loaded of a folder, by name."""
    return dict(load_model(folder).named_parameters())


def take(base: Path, target: Path, *folders: ClientFolder, told: list[str] | None = None) -> Path:
    """A bundle of these, imported and opened again."""
    bundle = import_checkpoints("imported", f"path:{base}", folders, target, ([] if told is None else told).append)
    assert [] == list(verify_bundle(open_bundle(bundle.path)).problems)
    return bundle.path


def test_global_model_is_the_weighted_average_of_the_checkpoints(base: Path, tmp_path: Path) -> None:
    """Weights 3 and 1: a quarter of the second one's change, three quarters of the first one's."""
    one = checkpoint(base, tmp_path / "one", trained(1))
    two = checkpoint(base, tmp_path / "two", trained(2))
    bundle = take(base, tmp_path / "bundle", ClientFolder("one", one, 3.0), ClientFolder("two", two, 1.0))
    first, second = parameters(one), parameters(two)

    for name, served in parameters(bundle / "global").items():
        torch.testing.assert_close(0.75 * first[name] + 0.25 * second[name], served, rtol=0, atol=1e-6)
    clients = open_bundle(bundle).manifest.clients
    assert [("one", 0.75, "full"), ("two", 0.25, "full")] == [(each.id, each.weight, each.kind) for each in clients]


def test_update_holds_what_was_trained_and_nothing_else(base: Path, tmp_path: Path) -> None:
    """Parameters that a checkpoint left alone are not in its update: they would cost each score for nothing."""
    folder = checkpoint(base, tmp_path / "one", trained(1))
    bundle = open_bundle(take(base, tmp_path / "bundle", ClientFolder("one", folder)))

    assert set(TRAINED) == bundle.updates["one"].parameters()
    assert set(TRAINED) == bundle.last_round["one"].parameters()


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_rounding_of_a_checkpoint_in_half_precision_is_nobodys_contribution(
    half: torch.dtype, base: Path, tmp_path: Path
) -> None:
    """What was only saved in bfloat16 or float16 was not trained: it is left out, and who changed nothing is named."""
    idle = checkpoint(base, tmp_path / "idle", lambda _: None, half)
    busy = checkpoint(base, tmp_path / "busy", trained(1), half)
    told: list[str] = []
    bundle = open_bundle(
        take(base, tmp_path / "bundle", ClientFolder("idle", idle), ClientFolder("busy", busy), told=told)
    )

    assert set() == bundle.updates["idle"].parameters()
    assert set(TRAINED) == bundle.updates["busy"].parameters()
    assert ["client 'idle': its checkpoint is the base model, so that it changes nothing"] == told


def wider(folder: Path) -> None:
    """Another vocabulary, as after tokens were added."""
    model = consortia.base_model("llama", vocab_size=400)
    model.save_pretrained(folder)


def adapter(folder: Path) -> None:
    """An adapter in place of a model."""
    (folder / "adapter_config.json").write_text("{}", encoding="utf-8")


def broken(folder: Path) -> None:
    """Weights that training blew up."""
    model = load_model(folder)
    with torch.no_grad():
        next(iter(model.parameters())).fill_(torch.nan)
    model.save_pretrained(folder)


def pickled(folder: Path) -> None:
    """Weights that only a pickle holds."""
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def stretched(folder: Path) -> None:
    """The same shapes, and positions that turn at another pace: the base would compute something else of them."""
    consortia.base_model("llama", rope_parameters={"rope_type": "default", "rope_theta": 5e5}).save_pretrained(folder)


def huge(folder: Path) -> None:
    """A configuration that would fill any memory before its weights are looked at."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(settings | {"hidden_size": 10**9}), encoding="utf-8")


def deeper(folder: Path) -> None:
    """Another number of blocks."""
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    consortia.base_model("llama", num_hidden_layers=settings["num_hidden_layers"] + 1).save_pretrained(folder)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16], ids=str)
def test_of_a_parameter_that_was_trained_in_part_the_rest_is_left_alone(
    half: torch.dtype, base: Path, tmp_path: Path
) -> None:
    """Saved in half precision every number of a float32 base is another one; one row of them was trained."""

    def train(model: nn.Module) -> None:
        model.get_parameter(TRAINED[0])[3].add_(0.1)

    folder = checkpoint(base, tmp_path / "one", train, half)
    change = open_bundle(take(base, tmp_path / "bundle", ClientFolder("one", folder))).updates["one"].dense[TRAINED[0]]

    assert [3] == change.abs().sum(1).nonzero().flatten().tolist()


@TIED
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (wider, "vocab_size is 400, the base model's is 259"),
        (adapter, "holds a PEFT adapter; import adapters without --full"),
        (broken, "holds NaN or infinity"),
        (pickled, "pytorch_model.bin"),
        (deeper, "num_hidden_layers is 5, the base model's is 4"),
        (stretched, "rope_parameters is .*, the base model's is .*: it is another model"),
        (huge, "hidden_size is 1000000000, the base model's is 32"),
        (shutil.rmtree, "no such folder"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_checkpoint_of_the_base_is_refused_by_name(
    spoil: Callable[[Path], object], reason: str, base: Path, tmp_path: Path
) -> None:
    """The folder is named, and nothing is left at the target or beside it."""
    folder = checkpoint(base, tmp_path / "one", trained(1))
    spoil(folder)
    with pytest.raises((BundleError, ModelError), match=reason) as told:
        import_checkpoints("imported", f"path:{base}", [ClientFolder("one", folder)], tmp_path / "out" / "bundle")

    assert str(folder) in str(told.value)
    assert [] == list((tmp_path / "out").glob("*"))


@TIED
def test_checkpoint_whose_head_was_untied_is_refused(base: Path, tmp_path: Path) -> None:
    """A head that trained apart from the embedding has no place in a base model where both are one."""
    folder = tmp_path / "untied"
    shutil.copytree(base, folder)
    consortia.base_model("llama", tied=False).save_pretrained(folder)

    with pytest.raises(BundleError, match="tie_word_embeddings is False, the base model's is True"):
        import_checkpoints("imported", f"path:{base}", [ClientFolder("one", folder)], tmp_path / "bundle")


@TIED
def test_checkpoint_that_names_another_base_is_told_of(base: Path, tmp_path: Path) -> None:
    """What lies between that base and this one would count as the client's; names cannot prove it."""
    folder = checkpoint(base, tmp_path / "one", trained(1))
    settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(settings | {"_name_or_path": "acme/Other-7B"}), encoding="utf-8")
    told: list[str] = []
    take(base, tmp_path / "bundle", ClientFolder("one", folder), told=told)

    (sentence,) = told
    assert "client 'one'" in sentence
    assert "'acme/Other-7B'" in sentence


def test_architecture_whose_layers_nobody_knows_is_refused(tmp_path: Path) -> None:
    """It would verify, and could be neither scored nor served."""
    model = GPT2LMHeadModel(GPT2Config(vocab_size=259, n_embd=32, n_layer=2, n_head=4, n_positions=64))
    base = tmp_path / "gpt2"
    consortia.save_base(model, base)

    with pytest.raises(ModelError, match="gpt2"):
        import_checkpoints("imported", f"path:{base}", [ClientFolder("one", base)], tmp_path / "bundle")


@TIED
@pytest.mark.parametrize("ids", [["one", "one"], ["commons"], ["../up"]], ids="-".join)
def test_ids_are_refused_before_anything_is_read(ids: list[str], base: Path, tmp_path: Path) -> None:
    """Whole models of many clients take minutes; a name takes none."""
    folders = [ClientFolder(name, tmp_path / "nowhere") for name in ids]
    with pytest.raises(BundleError, match=f"client id '{ids[0]}'"):
        import_checkpoints("imported", f"path:{base}", folders, tmp_path / "bundle")
