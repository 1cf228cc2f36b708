"""The settlement policy as a YAML file, and the schema by which editors help to write one. Knows no rule of it."""

from __future__ import annotations

from pathlib import Path

from rewards.errors import PolicyError
from rewards.files import strict_yaml
from rewards.files.strict_json import JsonObject
from rewards.settlement.policy import Policy


def load_policy(path: str | Path) -> Policy:
    """The policy in a YAML file.

    Raises:
        PolicyError: the file cannot be read, is not YAML, gives a field twice, or is not a policy; names the file, the
            field and what would be right.
    """
    try:
        document = strict_yaml.load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise PolicyError(f"{path}: not YAML: {error}") from error
    return Policy.from_mapping(document, source=str(path))


def policy_schema() -> JsonObject:
    """The JSON schema of the YAML file, for editors; `configs/policy.schema.json` is what it returns."""
    schema = Policy.model_json_schema()
    del schema["description"]  # the attributes, said again
    for field in schema["properties"].values():
        if {"type": "null"} in field.get("anyOf", ()):  # no value is a line left out, not a line left empty
            kind, _ = field.pop("anyOf")
            del field["default"]
            field.update(kind)
    schema["oneOf"] = [{"required": [source]} for source in ("pool", "price_per_million_tokens", "fees")]
    by_application = [{"required": [field]} for field in ("fees", "max_price_per_million_tokens")]
    schema["if"] = {"properties": {"allocation": {"const": "user_centric"}}, "required": ["allocation"]}
    schema["then"] = {"required": ["fees"]}
    schema["else"] = {"not": {"anyOf": by_application}}
    return schema
