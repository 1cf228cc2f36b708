"""Where settings come from: a YAML file, over it the environment, over both what a command was given.

The only reader of the two. Does not know what a setting means.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from reprlib import Repr
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from deployment.errors import SettingsError
from deployment.settings.settings import ENVIRONMENT_PREFIX, EngineSettings, Settings
from rewards.files import strict_yaml

_UNSHOWN = frozenset({"ledger", "replica_ledger", "engine"})
"""Settings whose value no error repeats, nor that of a part: there may be a password in it."""
_LOGIN = "@"  # of an URL; one may stand at the wrong name, or a line too far to the right
_shown = Repr()
_shown.maxstring = _shown.maxother = 60


@dataclass(frozen=True)
class _Sources:
    """What each place says of settings, the last one first."""

    given: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None

    def place_of(self, name: str) -> str:
        """Where the value of a known setting was found, in words; nothing where that is not known here."""
        if name.split(".", maxsplit=1)[0] in self.given:
            return "as given to the command"
        if self.environment.get(variable_of(name)):
            return "in the environment"
        return f"in {self.path}" if self.path else ""


def load_settings(
    path: Path | None = None, *, environment: Mapping[str, str] | None = None, **overrides: Any
) -> Settings:
    """Settings from a YAML file, over it `PROTOKEN_<NAME>` of the environment, over both the given overrides.

    The parts of a setting that has some are variables of their own, as in PROTOKEN_ENGINE_URL. An override of None, and
    an empty variable, count as not given.

    Raises:
        SettingsError: when the file cannot be read or a setting is missing, unknown or out of range.
    """
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in overrides.items() if value is not None}
    values = values_given(_from_file(path) if path else {}, environment) | given
    return settings_of(values, _Sources(given, environment, path))


def values_given(values: Mapping[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """Values by the name of their setting, over them `PROTOKEN_<NAME>` of an environment; an empty one is not given."""
    given = {**values, **_variables(Settings, environment)}
    engine, parts = given.get("engine") or {}, _variables(EngineSettings, environment, "engine.")
    return given | {"engine": {**engine, **parts}} if parts and isinstance(engine, Mapping) else given


def _variables(kind: type[BaseModel], environment: Mapping[str, str], before: str = "") -> dict[str, str]:
    """What an environment says of each setting of that kind."""
    values = {name: environment.get(variable_of(f"{before}{name}"), "") for name in kind.model_fields}
    return {name: value for name, value in values.items() if value}


def settings_of(values: Mapping[str, Any], sources: _Sources = _Sources()) -> Settings:
    """Settings from values by their name.

    Raises:
        SettingsError: a setting is missing, unknown or out of range.
    """
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(_explain(error, sources)) from error


def find_setting(name: str, given: object = None, path: Path | None = None) -> Any:
    """One setting, for who needs no other: what is given, else what `load_settings` would find; None where nothing is.

    What a file says is held to all rules, as `serve` does.

    Raises:
        SettingsError: as of `load_settings`, but for a bundle that nothing names.
    """
    parts = EngineSettings.model_fields if path else {}  # which alone has an engine that these may be parts of
    variables = [variable_of(name), *(variable_of(f"engine.{part}") for part in parts)]
    environment = {variable: os.environ.get(variable, "") for variable in variables}
    values = values_given(_from_file(path) if path else {}, environment)
    values |= {} if given is None else {name: given}
    sources = _Sources({} if given is None else {name: given}, environment, path)
    settings = settings_of({"bundle": Path(), **values}, sources)
    return None if name == "bundle" and name not in values else getattr(settings, name)


def _from_file(path: Path) -> dict[str, Any]:
    try:
        document = strict_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} cannot be read: {error}") from error
    except ValueError as error:
        raise SettingsError(f"settings file {path} is not YAML: {error}") from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise SettingsError(f"settings file {path} must hold `name: value` lines, not a {type(document).__name__}")
    return document


def _explain(error: ValidationError, sources: _Sources) -> str:
    """One clause for each setting at fault, with both names under which it may be given, where and what was found."""
    return "; ".join(_clause(problem, sources) for problem in error.errors())


def _clause(problem: ErrorDetails, sources: _Sources) -> str:
    where = [str(part) for part in problem["loc"]]
    message = problem["msg"].removeprefix("Value error, ")
    if not where:
        return message
    if problem["type"] == "extra_forbidden":  # of these, only a file may have any
        fields = EngineSettings.model_fields if where[0] == "engine" else Settings.model_fields
        place = f" (it stands in {sources.path})" if sources.path else ""
        return f"setting {'.'.join(where)!r} is not known; there are {', '.join(fields)}{place}"
    name = ".".join(where if where[0] == "engine" else where[:1])  # the items of a list have no variable each
    what = f"setting {name!r} (environment {variable_of(name)})"
    value, place = problem["input"], sources.place_of(name)
    if problem["type"] == "missing" or where[0] in _UNSHOWN:
        return f"{what}: {message}"
    if not isinstance(value, str | int | float) or _LOGIN in str(value):
        return f"{what}{place and f' {place}'}: {message}"
    return f"{what} is {' '.join([_shown.repr(value), place]).strip()}: {message}"


def variable_of(name: str) -> str:
    """The variable of the environment by which a setting may be given, or a part of one."""
    return f"{ENVIRONMENT_PREFIX}{name.upper().replace('.', '_')}"
