"""Every interval, limit and default that can be set.

settings  what can be set, what each of it means, and its range
sources   where it comes from: YAML file, environment, command; the only reader of the first two
"""

from deployment.settings.settings import (
    ENVIRONMENT_PREFIX,
    DType,
    EngineSettings,
    Method,
    Settings,
    pepper_of,
    pepper_path,
    url_without_secrets,
)
from deployment.settings.sources import find_setting, load_settings, settings_of, values_given, variable_of

__all__ = [
    "ENVIRONMENT_PREFIX",
    "DType",
    "EngineSettings",
    "Method",
    "Settings",
    "find_setting",
    "load_settings",
    "pepper_of",
    "pepper_path",
    "settings_of",
    "url_without_secrets",
    "values_given",
    "variable_of",
]
