"""What a model folder claims, checked before transformers sees it: its configuration, and the files of its weights.

transformers fills what it does not find with noise, casts what it was not made for, and follows what a file names;
here a folder that is not plainly the model it says is refused by file and field. Does not load a model.
"""

import os
from pathlib import Path

from attribution.errors import ModelError
from attribution.files.safetensors_files import opened_safetensors
from attribution.files.untrusted import JsonObject, read_json_object, require_file

_ONE_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_OTHER_WEIGHTS = {".safetensors", ".bin", ".gguf", ".pt", ".pth"}  # by which name others store them
_PLAIN = {"F64", "F32", "F16", "BF16"}
_READ_TOO = ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json")


def check_configuration(folder: Path) -> JsonObject:
    """The `config.json` of a model folder, after refusing what would make it another model than its weights are.

    Raises:
        ModelError: naming the file and the field.
    """
    path = folder / "config.json"
    configuration = read_json_object(path, ModelError)
    if not isinstance(configuration.get("model_type"), str):
        raise ModelError(f"{path}: model_type is missing or no text; it names the architecture, as in 'llama'")
    for field in ("quantization_config", "compression_config"):
        if given := configuration.get(field):
            method = given.get("quant_method") if isinstance(given, dict) else given
            raise ModelError(
                f"{path}: {field} ({method!r}): the weights are quantised; an update can only be added to plain ones,"
                " so take the model as it was before, or dequantise it and save it without this field"
            )
    if configuration.get("auto_map"):
        raise ModelError(f"{path}: auto_map names code of the model's own, which is never run")
    if configuration.get("transformers_weights"):
        raise ModelError(f"{path}: transformers_weights is not supported; name the weights {_ONE_FILE}")
    blocks = configuration.get("num_hidden_layers")
    if isinstance(blocks, int) and blocks < 1:
        raise ModelError(f"{path}: num_hidden_layers is {blocks}; a model has at least one")
    for name in _READ_TOO:
        if (folder / name).exists():
            read_json_object(folder / name, ModelError)
    return configuration


def check_model_folder(folder: Path) -> None:
    """Refuse a model folder whose configuration or weights are not what transformers would take them for.

    Raises:
        ModelError: naming the file, and the field or tensor.
    """
    if os.path.lexists(folder / "adapter_config.json"):
        raise ModelError(
            f"{folder / 'adapter_config.json'}: an adapter lies in the model's folder, and would be loaded over it;"
            " move it away, or name the model that it belongs to"
        )
    blocks, tensors = check_configuration(folder).get("num_hidden_layers"), 0
    for path in weight_files(folder):
        with opened_safetensors(path, ModelError) as file:
            for name in file.keys():  # noqa: SIM118 - not a dict
                tensors += 1
                if (kind := file.get_slice(name).get_dtype()) not in _PLAIN:
                    raise ModelError(
                        f"{path}: tensor {name!r} is {kind}, not a floating-point number of 16 bits or more:"
                        " the weights are quantised; dequantise them first"
                    )
    if isinstance(blocks, int) and blocks > tensors:  # else as many blocks would be made as it claims
        raise ModelError(f"{folder / 'config.json'}: num_hidden_layers is {blocks}, but there are {tensors} tensors")


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers takes a model's weights from: one, or the shards that the index names.

    Raises:
        ModelError: there are none, or the index is malformed or names a file that is missing or outside the folder.
    """
    if (folder / _ONE_FILE).exists() or (folder / _ONE_FILE).is_symlink():
        require_file(folder / _ONE_FILE, ModelError)
        return [folder / _ONE_FILE]
    index = folder / _INDEX
    if not index.exists():
        others = sorted(path.name for path in folder.glob("*") if path.suffix in _OTHER_WEIGHTS)
        hint = f"; there is {', '.join(others[:3])}" if others else ""
        raise ModelError(f"{folder}: holds no {_ONE_FILE}, whole or in shards with {_INDEX}{hint}")
    named = read_json_object(index, ModelError).get("weight_map")
    if not (isinstance(named, dict) and named and all(isinstance(file, str) for file in named.values())):
        raise ModelError(f"{index}: weight_map must give a file for each tensor")
    for file in sorted(set(named.values())):
        if Path(file).name != file or file in {"", ".", ".."}:
            raise ModelError(f"{index}: weight_map names {file!r}, which is not a file of this folder")
        try:
            require_file(folder / file, ModelError)
        except ModelError as error:
            raise ModelError(f"{error} (a shard that {_INDEX} names)") from error
    return [folder / file for file in sorted(set(named.values()))]
