"""No process of the service leaves a core file, as that would be a copy of somebody's prompts."""

import resource


def forbid_core_files() -> None:
    """Let the system write none for this process, nor for those that it starts from now on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
