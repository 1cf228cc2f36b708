"""Fresh environments with the wheel of this project, and with no more of its dependencies than are asked for.

A dependency is not downloaded anew, which for torch alone would take hundreds of megabytes: links lead to what is
installed already. But pip installs the wheel into the fresh environment with no index to turn to, so it succeeds only
where all that the wheel and its extras ask for is there, in versions that they accept; and what is not linked cannot
be imported.
"""

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

from tests.waiting import PATIENCE_S

__all__ = ["Environment", "built_wheel", "environment"]

ROOT = Path(__file__).parents[2]
_TREE = ("attribution", "rewards", "deployment", "configs", "pyproject.toml", "README.md", "LICENSE")
_OUTSIDE = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}


class Environment:
    """An environment of its own.

    Attributes:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(
        self, *command: str, cwd: Path, timeout_s: float = PATIENCE_S, **variables: str
    ) -> subprocess.CompletedProcess:
        """Run one of its programs in a folder, knowing of no other environment; what takes too long is asked to end."""
        words = [str(self.folder / "bin" / command[0]), *command[1:]]
        variables = _OUTSIDE | {"HOME": str(cwd)} | variables
        with subprocess.Popen(
            words, cwd=cwd, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                out, err = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.terminate()  # not killed: the demo then ends its service
                out, err = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, out, err)


def built_wheel(folder: Path) -> Path:
    """The wheel of the tree as it is, built from a copy, so that nothing is left in the tree; nothing is warned of."""
    for name in _TREE:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "tree" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            (folder / "tree").mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / "tree" / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run(
        [*command, "--wheel-dir", folder / "dist", folder / "tree"], check=True, capture_output=True, text=True
    )
    assert "Warning" not in built.stdout + built.stderr, built.stdout + built.stderr
    (wheel,) = (folder / "dist").glob("protoken-*.whl")
    return wheel


def environment(folder: Path, wheel: Path, extra: str | None = None, *, beside: Iterable[str] = ()) -> Environment:
    """A fresh environment with the wheel, its base requirements or those of an extra too.

    Args:
        folder: where it is made.
        wheel: what is installed.
        extra: of the wheel; None for the base alone.
        beside: packages that are there as well, without what they require.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    links = folder / "dependencies"
    links.mkdir()
    own = PathDistribution(zipfile.Path(wheel, f"{'-'.join(wheel.name.split('-')[:2])}.dist-info/"))
    for each in [*_required(own, extra, {own.name: own}, set()), *map(distribution, beside)]:
        _link(each, links)
    (site / "dependencies.pth").write_text(f"{links}\n")
    pip = [sys.executable, "-m", "pip", "--python", folder, "install", "--quiet", "--no-index"]
    what = f"{wheel}[{extra}]" if extra else str(wheel)
    installed = subprocess.run([*pip, what], env=_OUTSIDE, capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    return Environment(folder)


def _required(
    package: Distribution, extra: str | None, known: dict[str, Distribution], seen: set[tuple[str, str | None]]
) -> list[Distribution]:
    """What a package requires and that in turn; `known` are packages that are not looked for among the installed."""
    seen.add((package.name, extra))
    needed = []
    for line in package.requires or ():
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra or ""}):
            continue
        other = known.get(requirement.name) or distribution(requirement.name)
        needed += [] if requirement.name in known else [other]
        for each in (None, *sorted(requirement.extras)):
            if (other.name, each) not in seen:
                needed += _required(other, each, known, seen)
    return needed


def _link(package: Distribution, links: Path) -> None:
    """Lead to what a package has put beside the others."""
    tops = {file.parts[0] for file in package.files or () if file.parts[0] not in {"..", "__pycache__"}}
    for top in tops:
        if not (links / top).is_symlink():
            (links / top).symlink_to(Path(str(package.locate_file(top))).absolute())
