"""How the command line shows things: JSON or tables, and the heat map of tokens.

Does not know where the data came from.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from attribution.files.destinations import prepare_folder, require_own_file, write_file
from deployment.schemas.fields import spell
from rewards.files.plain_text import json_lines, many_lines, one_line

console = Console(highlight=False, markup=False, emoji=False)  # what is shown is text, whatever it looks like
_PALETTE = ("deep_sky_blue1", "orange1", "spring_green2", "orchid1", "yellow1", "turquoise2", "light_coral", "tan")
_COMMONS_STYLE = "grey62"
_MAKER = b"Generated with Rich"
_HALF_TINT = 0.5  # below this part of a token the clients' colour is not filled, only written


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


def credit(micro_credits: int) -> str:
    """Micro-credits, grouped by thousands so that the last six digits read as parts of a token."""
    return f"{micro_credits:,}".replace(",", " ")


def tint(clients: Sequence[str]) -> dict[str, str]:
    """A colour for each client, in the order given."""
    return {client: _PALETTE[index % len(_PALETTE)] for index, client in enumerate(clients)}


def legend(colours: Mapping[str, str]) -> Text:
    """Which colour is whose."""
    text = Text("  ")
    for client, colour in colours.items():
        text.append(f" {one_line(client)} ", style=f"black on {colour}")
        text.append(" ")
    return text.append("commons", style=_COMMONS_STYLE).append("  (filled: more than half of the token was taught)")


def heat_map(
    tokens: Sequence[str],
    scores: Mapping[str, Sequence[float]],
    base_shares: Sequence[float],
    colours: Mapping[str, str],
) -> Text:
    """The text, each token in its top client's colour: filled where clients taught most of it, grey where none did."""
    text = Text()
    for index, token in enumerate(map(many_lines, tokens)):
        top = max(scores, key=lambda client: scores[client][index])
        taught = 1.0 - base_shares[index]
        if scores[top][index] <= 0 or taught <= 0:
            text.append(token, style=_COMMONS_STYLE)
        elif taught < _HALF_TINT:
            text.append(token, style=colours[top])
        else:
            text.append(token, style=f"black on {colours[top]}")
    return text
