"""The import table of design 3 holds, and the test proves that it looked."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
STDLIB = set(sys.stdlib_module_names)
ALLOWED = {
    "attribution": {
        "attribution", "torch", "transformers", "tokenizers", "peft", "safetensors", "huggingface_hub",
        "numpy", "pydantic", "yaml", "jinja2", "matplotlib", "scipy",
    },
    "rewards": {
        "rewards", "sqlmodel", "sqlalchemy", "alembic", "pydantic", "pydantic_core", "yaml", "cryptography", "rfc8785",
        "iso4217",
    },
    "deployment": {
        "deployment", "attribution", "rewards", "ray", "fastapi", "starlette", "pydantic", "pydantic_core", "yaml",
        "typer", "rich", "httpx", "prometheus_client", "torch", "jinja2", "markupsafe",
        "itsdangerous", "grafana_foundation_sdk",
    },
}  # fmt: skip


def forbidden_imports(package: str, source: str) -> set[str]:
    """Top-level modules that `source` imports although `package` may not."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            found.add((node.module or "").split(".")[0])
    return found - ALLOWED[package] - STDLIB


@pytest.mark.parametrize("package", ALLOWED)
def test_each_package_imports_only_what_the_table_allows(package):
    """`attribution` and `rewards` do not know each other, nobody imports `deployment`, nothing imports tests."""
    files = sorted((ROOT / package).rglob("*.py"))

    assert len(files) >= 10, f"looked at only {len(files)} files of {package}: the check has gone blind"
    offences = {str(file): forbidden_imports(package, file.read_text(encoding="utf-8")) for file in files}
    assert {file: names for file, names in offences.items() if names} == {}


@pytest.mark.parametrize(
    ("package", "source"),
    [
        ("attribution", "from rewards import Ledger"),
        ("attribution", "import ray"),
        ("rewards", "import torch.nn"),
        ("rewards", "def f():\n    from attribution import attribute"),
        ("deployment", "from tests.attribution import consortia"),
    ],
)
def test_a_known_bad_sample_is_caught(package, source):
    """The guard would notice each kind of forbidden import, also inside a function."""
    assert forbidden_imports(package, source) != set()


def test_top_level_folders_are_the_ones_of_the_design():
    """A newcomer finds the three packages, tests and configs, and no other code beside them."""
    folders = {file.relative_to(ROOT).parts[0] for file in ROOT.rglob("*.py")}

    assert folders - {".venv", "var", "build"} == {"attribution", "rewards", "deployment", "tests"}
