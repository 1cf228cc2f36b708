"""`protoken dashboards`: the Grafana boards as files."""

from pathlib import Path
from typing import Annotated

import typer

from deployment.cli.options import Json
from deployment.cli.output import print_json
from deployment.errors import StartError

__all__ = ["dashboards"]


def dashboards(
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; made when missing.")] = Path(
        "configs/grafana/dashboards"
    ),
    as_json: Json = False,
) -> None:
    """Write the Grafana boards as JSON files, the same on every machine."""
    from deployment.dashboards import documents  # noqa: PLC0415 - Grafana's types take a moment, no other command's

    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, document in documents().items():
            (out / name).write_text(document, encoding="utf-8")
            written.append(str(out / name))
    except OSError as error:
        raise StartError(f"the boards cannot be written to {out}: {error.strerror}") from error
    if as_json:
        print_json(written)
        return
    for path in written:
        typer.echo(path)
