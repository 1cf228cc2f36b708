"""Tables on the command line, in which no word is ever broken: an id can be copied from any.

Where a terminal is too narrow for a row's words side by side, each row is shown as lines, one a column; a pipe or a
file takes any width.
"""

from collections.abc import Collection, Sequence

from rich.cells import cell_len
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from deployment.cli.output import console, has_width, say
from rewards.files.plain_text import one_line

_FRAME = 3
"""What a column takes beside its text: a line and two spaces; and one line more ends the table."""


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    footer: Sequence[str] = (),
    texts: Collection[int] = (0,),
) -> None:
    """A table whose first column, or those of `texts`, are text and whose other columns are numbers.

    With an optional line of sums.
    """
    lines = [[one_line(cell) for cell in line] for line in (columns, *rows, *([footer] if footer else []))]
    widest = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]
    least = [max(_longest_word(cell) for cell in column) for column in zip(*lines, strict=True)]
    room = console.width - 1 - _FRAME * len(columns) if has_width() else sum(widest)
    say(title, style="italic")  # not the table's own title, which wraps at the table's width
    if sum(least) > room:
        _print_rows(lines[0], lines[1:])
        return
    table = Table(show_footer=bool(footer))
    for index, width in enumerate(_fit(widest, least, room)):
        table.add_column(
            lines[0][index],
            justify="left" if index in texts else "right",
            footer=lines[-1][index] if footer else "",
            width=width,
        )
    for line in lines[1 : len(rows) + 1]:
        table.add_row(*map(Text, line))
    options = console.options.update(width=sum(widest) + _FRAME * len(columns) + 1)
    console.print(Segments(console.render(table, options)), soft_wrap=True, end="")


def _longest_word(cell: str) -> int:
    return max(map(cell_len, cell.split()), default=0)


def _fit(widest: Sequence[int], least: Sequence[int], room: int) -> list[int]:
    """Widths of the columns, the widest of them narrowed until all fit; none to less than its longest word."""
    widths = list(widest)
    while sum(widths) > room:
        widths[max((width, index) for index, width in enumerate(widths) if width > least[index])[1]] -= 1
    return widths


def _print_rows(names: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    width = max(map(cell_len, names))
    for row in rows:
        say("")
        for name, cell in zip(names, row, strict=True):
            say(f"{name}{' ' * (width - cell_len(name))}  {cell}", soft_wrap=True)
