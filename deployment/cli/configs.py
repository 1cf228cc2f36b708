"""Where `configs/` is: beside the packages, in a checkout and in an installed wheel alike. Opens nothing."""

from pathlib import Path


def configs_folder() -> Path:
    """The settings, policy, demo, experiments, rules and boards that came with this program; not to be written to."""
    return Path(__file__).parents[2] / "configs"
