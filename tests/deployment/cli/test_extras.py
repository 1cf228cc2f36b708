"""The extras of the installation: what the code thinks of them is what `pyproject.toml` says."""

import re
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

from deployment.cli import extras, main
from deployment.cli.configs import configs_folder
from deployment.errors import MissingExtraError

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _name(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0].lower().replace("_", "-")


def _packages(extra: str) -> set[str]:
    """The packages of an extra, and of those that it includes."""
    packages = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        if included := re.fullmatch(r"protoken\[(.*)\]", requirement):
            packages |= {each for name in included[1].split(",") for each in _packages(name)}
        else:
            packages.add(_name(requirement))
    return packages


@pytest.mark.long
@pytest.mark.parametrize("extra", extras.EXTRAS)
def test_an_extra_is_looked_for_by_all_that_it_brings(extra):
    """One module for each package of the extra in `pyproject.toml`, so that none of them can be missing unnoticed."""
    shipped = packages_distributions()

    assert _packages(extra) == {_name(shipped[module][0]) for module in extras.EXTRAS[extra]}


def test_all_and_dev_are_all():
    """`all` includes every extra that is for use, and `dev`, which `make setup` installs, all of those."""
    others = set(PROJECT["optional-dependencies"]) - {"all", "dev"}

    assert {each for name in others for each in _packages(name)} == _packages("all") <= _packages("dev")
    assert set(extras.EXTRAS) | {"postgresql"} == others


def test_a_missing_extra_is_named(monkeypatch):
    """One line says what the command needs, what of it is not there, and what to install."""
    monkeypatch.setitem(extras.EXTRAS, "serve", ("json", "no_such_module"))
    with pytest.raises(MissingExtraError) as raised:
        extras.require_extra("serve", "`protoken serve`")

    assert "`protoken serve` needs the extra 'serve', of which no_such_module is not installed: " in str(raised.value)
    assert str(raised.value).endswith("pip install 'protoken[serve]'")


def test_the_command_tells_of_a_missing_extra(monkeypatch, capsys):
    """It ends with 1 before anything of the command is imported."""
    monkeypatch.setitem(extras.EXTRAS, "attribution", ("no_such_module",))
    with pytest.raises(SystemExit) as ended:
        main(["consortium", "show", "bundle"])

    assert 1 == ended.value.code
    assert capsys.readouterr().err.startswith("protoken: `protoken consortium` needs the extra 'attribution', of which")


def test_the_version_stands_in_one_place(capsys):
    """`protoken --version` says what was installed, which is what `pyproject.toml` says; no module repeats it."""
    with pytest.raises(SystemExit):
        main(["--version"])
    code = [file for name in ("attribution", "rewards", "deployment") for file in (ROOT / name).rglob("*.py")]

    assert f"protoken {version('protoken')}\n" == capsys.readouterr().out
    assert PROJECT["version"] == version("protoken"), "installed from an older tree: `make setup` again"
    assert [] == [file for file in code if f'"{PROJECT["version"]}"' in file.read_text(encoding="utf-8")]


def test_configs_are_found_from_anywhere(monkeypatch, tmp_path):
    """The demo, the experiments, the policy and the settings, whatever folder a command is run in."""
    monkeypatch.chdir(tmp_path)

    assert configs_folder().is_absolute()
    for name in ("demo/consortium.yaml", "evaluation/e01-backdoor.yaml", "policy.yaml", "serve.yaml"):
        assert (configs_folder() / name).is_file()
