"""How the command line shows things: JSON, lines of text, and a picture of them.

Does not know where the data came from.
"""

import json
import os
import re
from pathlib import Path

from rich.console import Console
from rich.text import Text

from attribution.files.destinations import prepare_folder, require_own_file, write_file
from deployment.schemas.fields import spell
from rewards.files.plain_text import json_lines, one_line

console = Console(highlight=False, markup=False, emoji=False)  # what is shown is text, whatever it looks like
_MAKER = b"Generated with Rich"


def print_json(document: object) -> None:
    """One JSON document on stdout; a number that not every reader keeps exact is decimal text."""
    text = json.dumps(spell(document), ensure_ascii=False, indent=2, allow_nan=False)
    print(json_lines(text))  # noqa: T201


def say(text: str, *, style: str = "", soft_wrap: bool = False) -> None:
    """One line of text from whomever: neither markup in it nor a control is obeyed."""
    console.print(Text(one_line(text)), style=style, soft_wrap=soft_wrap or not has_width())


def has_width() -> bool:
    """Whether lines are only so long: in a terminal, in a picture, and where COLUMNS says it; a pipe takes any."""
    return console.is_terminal or console.record or bool(os.environ.get("COLUMNS"))


def save_picture(path: Path, title: str) -> None:
    """Write what the recording console has shown as SVG, in the reader's own monospace font: nothing is fetched."""
    svg = console.export_svg(title=title)
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    write_file(path, svg.replace("<svg ", '<svg xml:space="preserve" ', 1).encode())


def require_picture_place(path: Path) -> None:
    """Refuse a place where `save_picture` could not write, or would write over anything but an earlier picture.

    Raises:
        DestinationError: naming what is there.
    """
    require_own_file(path, lambda content: content.startswith(b"<svg ") and _MAKER in content, "a picture of ours")
    prepare_folder(path.parent)
