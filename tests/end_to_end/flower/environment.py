"""Flower in an environment of its own, with the wheel of this project beside it; made once and kept under `var/`.

Of its own, since it pins libraries that the service has in later versions. A wheel of other content is installed anew,
under the eyes of pip, which refuses what does not stand beside Flower; the same one is left alone, since tests that run
at the same time share the environment.
"""

import fcntl
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.end_to_end.environments import ROOT

FLOWER = "flwr==1.42.*"
_FOLDER = ROOT / "var" / "flower"


def flower_environment(wheel: Path) -> Path:
    """The folder of the programs of an environment in which Flower and the wheel are installed together.

    Skips the test where it cannot be made, but not in CI.
    """
    pip = [str(_FOLDER / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    with zipfile.ZipFile(wheel) as archive:
        content = str(
            sorted((each.filename, each.CRC) for each in archive.infolist() if "dist-info" not in each.filename)
        )
    content += "".join(line for line in _metadata(wheel) if line.startswith("Requires-Dist"))
    installed = _FOLDER / ".installed"
    with _lock():
        if not installed.exists() or installed.read_text() != content:
            installed.unlink(missing_ok=True)
            if not (_FOLDER / "bin" / "flwr").exists():
                _run(sys.executable, "-m", "venv", "--clear", str(_FOLDER))
            _run(*pip, "uninstall", "--quiet", "--yes", "protoken")  # of the same version, and older
            _run(*pip, "install", "--quiet", "--prefer-binary", str(wheel), FLOWER)
            installed.write_text(content)
        _run(*pip, "check")
    return _FOLDER / "bin"


def _metadata(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(name).decode().splitlines(keepends=True)


@contextmanager
def _lock() -> Iterator[None]:
    """One installs at a time."""
    _FOLDER.parent.mkdir(exist_ok=True)
    with _FOLDER.with_suffix(".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=dict(os.environ))
    if done.returncode:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"Flower's environment cannot be made: `{' '.join(command)}`: {done.stdout}{done.stderr}")
