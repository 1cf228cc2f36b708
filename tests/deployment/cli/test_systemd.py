"""The units of systemd: what they start, name and allow is there, and is what the pages say."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from deployment.cli.commands import app
from deployment.cli.configs import configs_folder
from deployment.settings import Settings
from tests.pages import faults_of_call

FOLDER = configs_folder() / "systemd"
PAGE = (FOLDER / "README.md").read_text(encoding="utf-8")
UNITS = sorted(FOLDER.glob("*.service"))
PROGRAM = "/opt/protoken/bin/protoken"
SPANS_S = {"": 1, "s": 1, "min": 60, "h": 3600}


def _values(unit: Path, name: str) -> list[str]:
    """What a unit says by that name, in its order, also in a comment that would be taken in."""
    return re.findall(rf"^(?:# )?{name}=(.*)$", unit.read_text(encoding="utf-8"), flags=re.MULTILINE)


def _commands(unit: Path) -> list[str]:
    return [*_values(unit, "ExecStartPre"), *_values(unit, "ExecStart")]


def _seconds(text: str) -> int:
    number, span = re.fullmatch(r"(\d+)(\w*)", text).groups()  # type: ignore[union-attr]
    return int(number) * SPANS_S[span]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_a_unit_starts_is_a_command(unit: Path) -> None:
    """Each has the program where the page installs it, and parses; the service asks the doctor first."""
    commands = [shlex.split(each) for each in _commands(unit)]
    faults = [fault for each in commands for fault in faults_of_call(typer.main.get_command(app), each[1:], whole=True)]

    assert [] == faults
    assert {PROGRAM} == {each[0] for each in commands}
    assert f"{PROGRAM.rpartition('/')[0]}/pip install" in PAGE
    assert (unit.name == "protoken.service") == ([PROGRAM, "doctor"] in commands)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_a_unit_names_is_there(unit: Path) -> None:
    """Variables are settings, files are those of the page, and the user is the one that is made."""
    variables = {
        each.partition("=")[0] for line in _values(unit, "Environment") for each in shlex.split(line) if "=" in each
    }
    ours = {each.removeprefix("PROTOKEN_").lower() for each in variables if each.startswith("PROTOKEN_")}
    engine = {f"engine_{name}" for name in type(Settings.model_fields["engine"].default).model_fields}
    (user,) = _values(unit, "User")
    (folder,) = _values(unit, "WorkingDirectory")

    assert ours <= {*Settings.model_fields, *engine, "config"}
    assert "PROTOKEN_CONFIG=/etc/protoken/serve.yaml" in _values(unit, "Environment")
    assert "/etc/protoken/serve.yaml" in PAGE
    assert [f"/var/lib/{name}" for name in _values(unit, "StateDirectory")] == [folder]
    assert re.search(rf'^u {user} - ".*" {folder}$', (FOLDER / "sysusers.conf").read_text(), flags=re.MULTILINE)
    assert f"systemd/{unit.name}" in PAGE


def test_a_stop_leaves_time_for_responses_under_way() -> None:
    """The service alone is told, has longer than it waits for its replicas, and the page says what goes together."""
    unit = FOLDER / "protoken.service"
    (stop,) = map(_seconds, _values(unit, "TimeoutStopSec"))

    assert Settings.model_fields["shutdown_timeout_s"].default + 30 <= stop
    assert f"the setting shutdown_timeout_s, which is {Settings.model_fields['shutdown_timeout_s'].default:g}." in (
        unit.read_text(encoding="utf-8")
    )
    assert ["mixed"] == _values(unit, "KillMode")


@pytest.mark.parametrize(("name", "exposure"), [("protoken", 1.7), ("protoken-exporter", 1.4)])
def test_systemd_takes_the_units(tmp_path: Path, name: str, exposure: float) -> None:
    """Every line of them is known to it, where it is installed, and they are as closed as the page says."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    program = tmp_path / "protoken"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / f"{name}.service"
    unit.write_text((FOLDER / unit.name).read_text(encoding="utf-8").replace(PROGRAM, str(program)))
    verified = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    asked = ["systemd-analyze", "security", "--offline=yes", "--no-pager", str(unit)]
    said = subprocess.run(asked, capture_output=True, text=True, check=False).stdout

    assert [] == [line for line in verified.stderr.splitlines() if str(unit) in line or unit.name in line]
    assert float(re.search(r"exposure level for \S+: ([0-9.]+)", said)[1]) <= exposure + 0.3  # versions differ
    assert f"{exposure} " in PAGE
