"""Files that somebody else wrote, read in bounded time and memory; what is wrong is one line that names the file.

Knows text, JSON and YAML; tensors are read by `torch_tensors`. Does not know what the files are for: who reads says
which error is raised.
"""

import hashlib
import json
import re
import stat
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from attribution.errors import AttributionError

JsonObject = dict[str, Any]
"""A JSON object of somebody else's, which its reader checks."""
_MOST_BYTES = 1 << 28  # of a text: far more than any real one, and little enough to be held
_MOST_LETTERS = 300  # of a foreign message
_MOST_SHOWN = 80  # letters of a foreign value
_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
LFS_MARK = b"version https://git-lfs.github.com/spec/"
LFS_POINTER = "is a Git LFS pointer, not the file itself: `git lfs pull` fetches it"


def in_one_line(error: BaseException | str) -> str:
    """What a library says of a failure, or a stranger calls something, without line breaks and of bounded length.

    Of a failure that says nothing it is the class.
    """
    words = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, KeyError):
        words = f"{words} is not known"
    return words if len(words) <= _MOST_LETTERS else words[:_MOST_LETTERS] + "…"


def short_repr(value: object) -> str:
    """A foreign value as Python spells it, on one line and of bounded length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of too many digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"


def first_problem(error: ValidationError) -> str:
    """The first field that is not as it must be, and what is wrong with it, in one line of bounded length."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or "document"
    return f"{in_one_line(place)}: {in_one_line(first['msg'].removeprefix('Value error, '))}"


def require_file(path: Path, raised: type[AttributionError]) -> None:
    """Refuse a path that is no regular file, be it a folder, a pipe or a link that leads nowhere.

    Raises:
        AttributionError: of the class `raised`.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        missing = "it is a link that leads nowhere" if path.is_symlink() else "no such file"
        raise raised(f"{path}: cannot be read: {missing}") from None
    except (OSError, ValueError) as error:
        raise raised(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        raise raised(f"{path}: is {'a folder' if stat.S_ISDIR(mode) else 'not a regular file'}; a file is needed")


def file_sha256(path: Path, raised: type[AttributionError]) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        AttributionError: of the class `raised`: it is no regular file, or cannot be read.
    """
    require_file(path, raised)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise raised(f"{path}: cannot be read: {error.strerror}") from error


def read_text(path: Path, raised: type[AttributionError]) -> str:
    """The text of a file, which is UTF-8 with or without a byte order mark.

    Raises:
        AttributionError: of the class `raised`.
    """
    require_file(path, raised)
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise raised(f"{path}: is larger than {_MOST_BYTES >> 20} MiB")
        data = path.read_bytes()
    except OSError as error:
        raise raised(f"{path}: cannot be read: {error.strerror}") from error
    if data.startswith(LFS_MARK):
        raise raised(f"{path}: {LFS_POINTER}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise raised(f"{path}: cannot be read: it is UTF-16; save it as UTF-8")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise raised(
            f"{path}: cannot be read: it is not UTF-8, from byte {error.start} on; save it as UTF-8"
        ) from error


def read_json_object(path: Path, raised: type[AttributionError]) -> JsonObject:
    """The JSON object in a file.

    Raises:
        AttributionError: of the class `raised`.
    """
    text = read_text(path, raised)
    try:
        document = json.loads(text)
    except RecursionError as error:
        raise raised(f"{path}: is nested too deeply") from error
    except ValueError as error:  # also a number of too many digits
        raise raised(f"{path}: not readable as JSON: {in_one_line(error)}") from error
    if not isinstance(document, dict):
        raise raised(f"{path}: must hold a JSON object, not a {type(document).__name__}")
    return document


def read_yaml(path: Path, raised: type[AttributionError]) -> Any:
    """What a YAML file holds; a name that it gives twice is refused, and so is 010, which YAML reads as eight.

    Raises:
        AttributionError: of the class `raised`.
    """
    text = read_text(path, raised)
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except RecursionError as error:
        raise raised(f"{path}: is nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of too many digits
        raise raised(f"{path}: not YAML: {in_one_line(error)}") from error


class _Loader(yaml.SafeLoader):
    """What a member declares is its weight, so a file means what it seems to (likewise `rewards.files.strict_yaml`)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen |= {key.value} if isinstance(key, yaml.ScalarNode) else set()
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        is_whole = node.tag.endswith(":int")
        if ":" in node.value or (is_whole and _DECIMAL.fullmatch(node.value) is None):
            what = f"{node.value} is no decimal number; write it with digits alone, and without a leading 0"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return int(node.value) if is_whole else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)
