"""`protoken dashboards`: the Grafana boards as files."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from attribution.files.destinations import prepare_folder, require_own_file, write_file
from deployment.cli.options import Json
from deployment.cli.output import print_json
from deployment.metrics.dashboards.board_files import documents


def dashboards(
    out: Annotated[Path, typer.Option("--out", help="Folder for the files; made when missing.")] = Path(
        "configs/grafana/dashboards"
    ),
    as_json: Json = False,
) -> None:
    """Write the Grafana boards as JSON files, the same on every machine."""
    prepare_folder(out)
    boards = documents()
    for name, document in boards.items():
        require_own_file(out / name, partial(_is_board, json.loads(document)["uid"]), "an earlier file of this board")
    for name, document in boards.items():
        write_file(out / name, document.encode())
    written = [str(out / name) for name in boards]
    if as_json:
        print_json(written)
        return
    for path in written:
        typer.echo(path)


def _is_board(uid: str, content: bytes) -> bool:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and document.get("uid") == uid
