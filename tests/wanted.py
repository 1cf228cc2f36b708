"""What tests want of the machine: programs, and the checkout; where one is missing a test is skipped by name."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def program(name: str, package: str) -> str:
    """The path of a program that a package of Debian brings; in CI, where all are wanted, one that is missing fails."""
    path = shutil.which(name)
    if path is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{name} is not installed (Debian package {package})")
    return path


def tracked_files() -> list[Path]:
    """Every file that git knows and that is there. A tree may come without its checkout, into CI too."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    files = [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]
    if not files:
        pytest.skip("not a git checkout")
    return files
