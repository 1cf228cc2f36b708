"""The boards are the code's, and a reader of Grafana finds no trap in them."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from deployment.cli import app
from deployment.dashboards import documents

ROOT = Path(__file__).parents[3]
COMMITTED = ROOT / "configs" / "grafana" / "dashboards"


def test_the_committed_boards_are_those_of_the_code(tmp_path):
    """`protoken dashboards` writes exactly the files that are committed, and there are no others."""
    written = CliRunner().invoke(app, ["dashboards", "--out", str(tmp_path)])

    assert written.exit_code == 0, written.output
    assert {file.name: file.read_text() for file in COMMITTED.iterdir()} == {
        file.name: file.read_text() for file in tmp_path.iterdir()
    }
    assert set(documents()) == {"protoken-contribution.json", "protoken-service.json"}
