"""What a hostile member or a stranger makes of valid files: each function breaks something, as a `random.Random` draws.

A file may stay what it says it is; that nothing worse comes of it than a refusal is for the tests to see.
"""

import json
import math
import os
import pickle
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from attribution.errors import AttributionError, RoundsError
from attribution.files.untrusted import read_json_object
from attribution.rounds.stored_tensors import read_stored

MARK = "PROTOKEN_CODE_RAN"
LONG = 100_000
LARGE = 1 << 24
BOMB = "(a|a)*(.*a){30}$"  # takes for ever, and seconds until it is given up: one in many
NAMES = (
    "../escape", "../../escape", "/tmp/escape", "a\0b", "a\nb: is fine", "x" * 5000, "nоrth", "ﬁle", "\u202eevil",
    "", ".", "..", "CON", "a/b", "a\\..\\b", "~root", "$(touch escape)", "{0.__class__}", "%s%n", "\ud800",
)  # fmt: skip
VALUES = (
    None, True, False, 0, -1, 1 << 31, 1 << 63, 10**400, -(10**400), 1e308, -1e308, 5e-324, 0.5, "", "1", "NaN", "1e9",
    [], {}, [[]], [None], {"": None}, [1] * 2000, ["q_proj"] * 3000, {"q_proj": 2}, {"(": 2}, {"a" * LONG: 1},
    "a" * LONG, "all-linear", ".*", "(", "(?P<a>b)(?P=c)", "a{99999999999}", "(" * 5000, "[", "\\", *NAMES,
)  # fmt: skip
GADGETS: dict[str, Any] = {
    "auto_map": {"AutoModelForCausalLM": "escape--gadget.Model", "AutoConfig": "gadget.Config"},
    "auto_mapping": {"base_model_class": "os", "parent_library": "subprocess"},
    "trust_remote_code": True,
    "custom_pipelines": {"x": {"impl": "gadget.Pipe"}},
    "py/object": "subprocess.Popen",
    "__class__": "os.system",
    "!!python/object/apply:os.system": ["touch escape"],
    "tokenizer_class": "../gadget.Tokenizer",
    "base_model_name_or_path": "../../../etc",
    "_name_or_path": "http://127.0.0.1:9/model",
    "modules_to_save": ["lm_head"],
    "use_dora": True,
    "megatron_config": {"a": 1},
    "line\nbreak": 1,
    "k" * LONG: 1,
    "layers_pattern": ["(a+)+$"] * 50,
    "layers_to_transform": [10**300, -1, 0],
    "rank_pattern": {"q_proj": 1 << 19, "a\nb": 2, "(": 1},
    "alpha_pattern": {".*": 1e308, "[": 0.1},
    "exclude_modules": "(?s:.",
    "num_hidden_layers": 10**9,
    "vocab_size": 10**12,
    "quantization_config": {"quant_method": "a\nb"},
    "rope_scaling": {"rope_type": "yarn", "factor": -1},
    "attn_implementation": "kernels-community/escape",
    "_attn_implementation": "escape/kernel",
    "chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "peft_type": "LORA\n",
    "init_lora_weights": "x" * LONG,
}


class Gadget:
    """A pickle of it, once opened, leaves a mark."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return exec, (f"import os; os.environ[{MARK!r}] = '1'",)


DISGUISES = (
    b"", b"\0" * 7, b"\0" * 8, b"\xff" * 64, pickle.dumps(Gadget()), b"PK\x03\x04" + b"\0" * 60, b"GGUF" + b"\0" * 60,
    b"version https://git-lfs.github.com/spec/v1\n", b"<html>", b"\x1f\x8b\x08" + b"\0" * 30, b"\xff\xfe{\0}\0",
    b"\xef\xbb\xbf{}", b"[" * 200_000, b'{"a":' * 100_000, b"{}", b"[]", b"null", b"1" * 10_000, b'"a"', b"NaN",
    b'{"\\ud800": 1}', b'{"a": 1e999}', b"\x93NUMPY\x01\0",
)  # fmt: skip


def break_json(path: Path, draw: Random) -> None:
    """Break a JSON document: a value, a name, or the text itself."""
    document = json.loads(path.read_text())
    text = json.dumps(document)
    match draw.randrange(10):
        case 0:
            text = text[: draw.randrange(len(text))]
        case 1:  # a name twice
            key = draw.choice([*document])
            text = f"{{{json.dumps(key)}: {json.dumps(draw.choice(VALUES))}, {text[1:]}"
        case 2:  # another number, or a deep one
            place = draw.choice([place for place, letter in enumerate(text) if letter == ":"] or [0])
            deep = draw.choice(["[" * 9000 + "]" * 9000, "9" * 5000, "NaN", "-Infinity", "1e999", '{}, "x": 1'])
            text = f'{text[: place + 1]} {deep}, "rest": {text[place + 1 :]}'
        case 3:
            key = draw.choice([*GADGETS])
            text = json.dumps({**document, key: GADGETS[key]})
        case _:
            parent, key = draw.choice(_places(document))
            _alter(parent, key, draw)
            text = json.dumps(document)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every value within a document, by what holds it."""
    keys = [*document] if isinstance(document, dict) else [*range(len(document))]
    places = [(document, key) for key in keys]
    for key in keys:
        if isinstance(document[key], dict | list):
            places += _places(document[key])
    return places


def _alter(parent: Any, key: Any, draw: Random) -> None:
    kind = draw.randrange(8)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[draw.choice(NAMES)] = parent.pop(key)
    elif kind == 2 and isinstance(parent[key], str):
        parent[key] = draw.choice([parent[key] + "\n", parent[key].upper(), " " + parent[key], parent[key][:-1]])
    elif kind == 3 and isinstance(parent, list):
        parent.insert(draw.randrange(len(parent) + 1), parent[key])
    elif kind == 4 and draw.randrange(30) == 0:
        parent[key] = BOMB
    else:
        parent[key] = draw.choice(VALUES)


def break_tensors(path: Path, draw: Random) -> None:
    """Break a safetensors file: its head, the numbers behind it, or what it is at all."""
    if path.stat().st_size > LARGE:
        return
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    head, body = json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])
    match draw.randrange(8):
        case 0:
            path.write_bytes(data[: draw.randrange(len(data))])
        case 1:  # a size that is none
            claimed = draw.choice([0, 1, size - 1, size + 1, len(data), 100_000_001, 1 << 31, 1 << 62, (1 << 64) - 1])
            path.write_bytes(claimed.to_bytes(8, "little") + data[8:])
        case 2:
            path.write_bytes(draw.choice(DISGUISES))
        case 3:  # a number that is none, or too much
            word = struct.pack("<f", draw.choice([math.nan, math.inf, -math.inf, 3.4e38, 1.4e-45, 7e19]))
            first, count = 4 * draw.randrange(len(body) // 4), draw.choice([1, 3, len(body)])
            count = min(count, (len(body) - first) // 4)
            body[first : first + 4 * count] = word * count
            write_tensors(path, head, body)
        case 4:  # claims far more than there is, and the file has holes to make it true
            huge = 1 << draw.choice([20, 33, 40])
            head[draw.choice(NAMES)] = {
                "dtype": "U8", "shape": [huge], "data_offsets": [len(body), len(body) + huge],
            }  # fmt: skip
            write_tensors(path, head, body)
            with suppress(OSError):
                os.truncate(path, path.stat().st_size + huge)
        case _:
            for _ in range(draw.choice([1, 1, 1, 2, 5])):
                _break_head(head, body, draw)
            write_tensors(path, head, body, twice=draw.randrange(8) == 0)


def write_tensors(path: Path, head: dict[str, Any], body: bytes | bytearray, *, twice: bool = False) -> None:
    """Write a file of safetensors' form from a head, sound or not, in which the first tensor may be named twice."""
    text = json.dumps(head)
    if twice and head:
        name = next(iter(head))
        text = f"{{{json.dumps(name)}: {json.dumps(head[name])}, {text[1:]}"
    coded = text.encode("utf-8", "surrogatepass")
    path.write_bytes(len(coded).to_bytes(8, "little") + coded + body)


def _break_head(head: dict[str, Any], body: bytearray, draw: Random) -> None:
    entries = [name for name in head if name != "__metadata__"]
    if not entries:
        return
    name = draw.choice(entries)
    entry = head[name]
    match draw.randrange(9):
        case 0:
            kinds = ["F64", "F32", "F16", "BF16", "F8_E4M3", "F4", "C64", "BOOL", "I8", "U8", "I64", "F33", "f32"]
            entry["dtype"] = draw.choice([*kinds, "", 1, None])
        case 1:  # the same bytes as other numbers
            kind, times = draw.choice([("F16", 2), ("BF16", 2), ("U8", 4), ("I32", 1), ("F64", 0.5)])
            entry["dtype"], shape = kind, entry.get("shape")
            if isinstance(shape, list) and shape and isinstance(shape[-1], int):
                shape[-1] = int(shape[-1] * times)
        case 2:
            shapes = [[], [0], [-1], [1 << 40], [1 << 32, 1 << 32], [1] * 500, [1.5], ["2"], None, [[2]], 3]
            entry["shape"] = draw.choice(shapes)
        case 3:
            end = len(body)
            offsets = [[0, end], [0, 0], [-4, 0], [end, end + 4], [4, 0], [0, 1 << 63], [0], [0.5, 4], [2, 6]]
            entry["data_offsets"] = draw.choice([*offsets, ["0", "4"], None])
        case 4:
            head[draw.choice(NAMES)] = head.pop(name)
        case 5:
            head.pop(name)
        case 6:
            head[draw.choice([*NAMES, name + "x", name.replace("lora_A", "lora_Z")])] = dict(entry)
        case 7:
            head["__metadata__"] = draw.choice([{"a": 1}, [], "x", {"format": "pt\n" * 1000}, {"a": {"b": "c"}}, None])
        case 8:
            if isinstance(entry.get("shape"), list):
                entry["shape"] = entry["shape"][::-1]


def is_large(folder: Path) -> bool:
    """Whether a file below a folder claims so much that whoever hashes it waits."""
    return any(path.stat().st_size > LARGE for path in folder.rglob("*.safetensors") if path.is_file())


def break_tree(path: Path, secret: Path, draw: Random) -> None:
    """Put something else in the place of a file, or beside it; `secret` is a file outside."""
    beside = path.with_name(
        draw.choice(["zero", "a\nb", "update-..x.safetensors", "gadget.py", "x" * 200, "\u202efile"])
    )
    match draw.randrange(9):
        case 0:
            path.unlink()
        case 1:
            ends = draw.choice([str(secret), "nowhere", path.name, "/dev/zero", ".", "/"])
            _replace(path, lambda: path.symlink_to(ends))
        case 2:
            _replace(path, lambda: os.mkfifo(path))
        case 3:
            _replace(path, path.mkdir)
        case 4:
            path.write_bytes(draw.choice(DISGUISES))
        case 5:
            _put(beside, f"import os; os.environ[{MARK!r}] = '1'".encode())
        case 6:
            path.rename(path.with_suffix(draw.choice([".bin", ".pt", ".npz", ".index.json", ".SAFETENSORS"])))
        case 7:
            _put(beside, pickle.dumps(Gadget()))
            _put(path.with_name("adapter_model.bin"), pickle.dumps(Gadget()))
        case 8:
            _replace(beside, lambda: os.mkfifo(beside))


def _put(path: Path, content: bytes) -> None:
    """Write a file, and not into what an earlier break has put there: a pipe would wait for a reader."""
    _replace(path, lambda: path.write_bytes(content))


def _replace(path: Path, put: Callable[[], Any]) -> None:
    path.unlink(missing_ok=True)
    put()


def seal_rounds(folder: Path) -> None:
    """Make every hash of recorded rounds that of what is there now, as an aggregator would who has not looked."""
    if is_large(folder):
        return
    with suppress(OSError, ValueError, AttributionError, TypeError, KeyError, IndexError, AttributeError):
        after = None
        for each in sorted(folder.glob("round-*")):
            document = read_json_object(each / "round.json", RoundsError)  # there may be a pipe
            whole = read_stored(each / "global.safetensors").sha256
            if after is None:
                document["global_sha256"] = whole
            else:
                document["before_sha256"], document["after_sha256"] = after, whole
                for update in document["updates"]:
                    update["sha256"] = read_stored(each / f"update-{update['client']}.safetensors").sha256
            after = whole
            (each / "round.json").write_text(json.dumps(document))
