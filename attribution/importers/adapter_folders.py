"""What a folder holds that should hold a PEFT adapter: where it is something else, it is named, with what to do.

Looks at names and first lines only; opens no pickle and no archive.
"""

from fnmatch import fnmatch
from pathlib import Path

from attribution.errors import BundleError
from attribution.files.untrusted import in_one_line, read_json_object, require_file

CONFIGURATION, TENSORS = "adapter_config.json", "adapter_model.safetensors"
_MLX = "is an adapter of MLX: convert it to PEFT's format, lora_a and lora_b transposed and lora_alpha = scale × rank"
_BY_FILE = (  # the first that fits
    ("adapters.safetensors", _MLX),
    ("adapters.npz", _MLX),
    (
        "adapter_model.bin",
        "holds {file}, a pickle, which is never opened: load it where you trust it and save it as safetensors",
    ),
    (
        "adapter_model*.safetensors.index.json",
        "holds an adapter in shards ({file}): save it as one file, save_pretrained(…, max_shard_size='100GB')",
    ),
    ("*.gguf", "holds {file}: a GGUF adapter cannot be imported; take the PEFT folder that it was converted from"),
    (
        "*FL_global_model.pt",
        "holds {file} of NVFlare, a pickle, which is never opened: save each client's adapter as PEFT does",
    ),
    (
        "*.distcp",
        "holds a distributed checkpoint ({file}): gather it and save the adapter with PEFT's save_pretrained",
    ),
    (
        "global_step*",
        "holds a DeepSpeed checkpoint ({file}): gather it and save the adapter with PEFT's save_pretrained",
    ),
    (
        "pytorch_model_fsdp*",
        "holds a distributed checkpoint ({file}): gather it and save the adapter with PEFT's save_pretrained",
    ),
    (
        "zero_to_fp32.py",
        "holds a DeepSpeed checkpoint: gather it with zero_to_fp32.py and save the adapter with save_pretrained",
    ),
    ("model*.safetensors", "holds a whole model ({file}), no adapter: import whole models with --full"),
    ("pytorch_model*.bin", "holds a whole model ({file}), no adapter, and pickles are never opened"),
    ("*.safetensors", "holds {file}: PEFT names the tensors {tensors}, with {configuration} beside them"),
    ("optimizer.*", "holds a trainer's state ({file}) without the adapter: give the folder that the adapter is in"),
    ("trainer_state.json", "holds a trainer's state ({file}) without the adapter: give the folder that it is in"),
    ("*.pt", "holds {file}, a pickle, which is never opened: load it where you trust it and save it with PEFT"),
    ("*.pth", "holds {file}, a pickle, which is never opened: load it where you trust it and save it with PEFT"),
    ("*.bin", "holds {file}, a pickle, which is never opened: load it where you trust it and save it with PEFT"),
    ("*.npz", "holds {file}: save the adapter with PEFT's save_pretrained"),
    ("*.zip", "holds an archive ({file}): unpack it first"),
    ("*.tar*", "holds an archive ({file}): unpack it first"),
)


def require_adapter(folder: Path) -> None:
    """Refuse a folder without the two files of a PEFT adapter, and say what it holds instead.

    Raises:
        BundleError: naming the folder, what it is, and what to do.
    """
    if not folder.exists():
        raise BundleError(f"{folder}: no such folder; an adapter's folder holds {CONFIGURATION} and {TENSORS}")
    if not folder.is_dir():
        raise BundleError(f"{folder}: is a file; give the folder that holds {CONFIGURATION} and {TENSORS}")
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise BundleError(f"{folder}: cannot be read: {error.strerror}") from error
    names = [entry.name for entry in entries]
    for wanted in (CONFIGURATION, TENSORS):
        if wanted in names:
            require_file(folder / wanted, BundleError)
        elif other := _inner(folder, entries) or _other(names) or _other(_files_below(folder)):
            raise BundleError(f"{folder / wanted}: no such file; the folder {other}")
        else:
            raise BundleError(f"{folder / wanted}: no such file; an adapter's folder holds it")
    if {"fine_tune_type", "lora_parameters"} & read_json_object(folder / CONFIGURATION, BundleError).keys():
        raise BundleError(f"{folder / CONFIGURATION}: this {_MLX}")


def _other(names: list[str]) -> str | None:
    """What the files of a folder are, by the first name that is known."""
    for pattern, what in _BY_FILE:
        for name in names:
            if fnmatch(name, pattern):
                return what.format(file=in_one_line(name), tensors=TENSORS, configuration=CONFIGURATION)
    return None


def _files_below(folder: Path) -> list[str]:
    """What NVFlare leaves in the folders of a job and of its server."""
    return [
        str(path.relative_to(folder)) for depth in ("*", "*/*") for path in folder.glob(f"{depth}/*FL_global_model.pt")
    ]


def _inner(folder: Path, entries: list[Path]) -> str | None:
    """The folders in it that hold adapters: a trainer's checkpoints, or adapters with names."""
    inner = [entry.name for entry in entries if (entry / CONFIGURATION).is_file()]
    if not inner:
        return None
    kind = "checkpoints of a trainer" if all(name.startswith("checkpoint-") for name in inner) else "adapters"
    first, last = in_one_line(", ".join(inner[:3])), in_one_line(inner[-1])
    return f"holds {kind} ({first}{' …' if len(inner) > 3 else ''}): name one, as in {folder / last}"
