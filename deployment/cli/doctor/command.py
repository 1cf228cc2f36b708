"""`protoken doctor`: whether the service would start here, and what of it should be otherwise."""

from dataclasses import asdict

import typer

from deployment.cli.doctor.examination import examine
from deployment.cli.doctor.findings import State
from deployment.cli.options import Config, Json
from deployment.cli.output import print_json, say

_STYLES = {State.OK: "green", State.WARNING: "yellow", State.WRONG: "red"}


def doctor(config: Config = None, as_json: Json = False) -> None:
    """Look at all that the service and the operator's commands use, and say what is wrong; changes nothing.

    Also beside a service that runs. Exit code 1 where something is wrong; a warning changes no exit code.
    """
    findings = []
    for finding in examine(config):
        findings.append(finding)
        if not as_json:
            say(f"{finding.state:<8} {finding.item}: {finding.message}", style=_STYLES[finding.state], soft_wrap=True)
    is_well = all(finding.state is not State.WRONG for finding in findings)
    if as_json:
        print_json({"ok": is_well, "findings": [asdict(finding) for finding in findings]})
    if not is_well:
        raise typer.Exit(1)
