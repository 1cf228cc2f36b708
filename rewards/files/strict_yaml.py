"""YAML that people write, read so that it means what it seems to: nothing twice, and decimal numbers. Knows no file."""

from __future__ import annotations

import re
from typing import Any

import yaml

_DECIMAL = re.compile(r"[-+]?(0|[1-9][0-9_]*)")


def load(text: str) -> Any:
    """A YAML document.

    Raises:
        ValueError: in one line, which names that of the text, and repeats of it names and numbers alone: it is none,
            is nested without end, gives a name twice, of which YAML would silently take the last, or holds a number
            that is not decimal: YAML 1.1 reads 010 as eight, and 1:30 as ninety.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:  # whose own words repeat the line, in which there may be a password
        where = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ValueError(f"{where}{' '.join(str(error.problem).split())}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none, a number of too many digits
        raise ValueError(" ".join(str(error).split())) from error


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_number(self, node: yaml.ScalarNode) -> int | float:
        is_whole = node.tag.endswith(":int")
        if ":" in node.value or (is_whole and _DECIMAL.fullmatch(node.value) is None):
            what = f"{node.value} is no decimal number; write it with digits alone, and without a leading 0"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        return int(node.value) if is_whole else self.construct_yaml_float(node)


for _tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", _Loader.construct_number)
