"""The report of an evaluation, as HTML that needs nothing else and as Markdown: every target, what was missed, plots.

Does not know how anything was measured; the same results give the same bytes.
"""

import html
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from attribution.evaluation.plots import draw
from attribution.evaluation.results import Figure, Result
from attribution.files.destinations import prepare_folder, require_own_file

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8883; --met: #0a7a4b; --missed: #c2410c; }
@media (prefers-color-scheme: dark) { :root { --met: #4ade9a; --missed: #fb923c; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; padding: .3rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.met { color: var(--met); } .missed { color: var(--missed); font-weight: 600; }
.quick { border-left: .3rem solid var(--missed); padding-left: .8rem; }
figure { margin: 1rem 0; background: #fff; border: 1px solid var(--line); }
figure svg { width: 100%; height: auto; display: block; }
pre { background: var(--soft); padding: .6rem; overflow-x: auto; } h2 { margin-top: 2.5rem; }
"""
_QUICK = "Quick profile: it shows that the experiment runs, not what it finds."
_COLUMNS = ("figure", "value", "95 % interval", "target", "", "N", "chance")


def write_report(results: Sequence[Result], folder: Path) -> tuple[Path, Path]:
    """Write `report.html`, `report.md` and `plots/*.svg` into `folder`; returns the first two."""
    for result in results:
        for plot in result.plots:
            draw(plot, folder / _plot_file(result, plot.name))
    page, text = folder / "report.html", folder / "report.md"
    page.write_text("\n".join(_html(results, folder)) + "\n", encoding="utf-8")
    text.write_text("\n".join(_markdown(results)) + "\n", encoding="utf-8")
    return page, text


def require_report_place(folder: Path, experiments: Iterable[str]) -> None:
    """Make the folder of results and report, and refuse one in which a file of others bears the name of ours.

    Raises:
        DestinationError: naming what is there.
    """
    prepare_folder(folder)
    prepare_folder(folder / "plots")
    require_own_file(folder / "report.html", lambda content: b"<h1>Attribution evaluated</h1>" in content, "a report")
    require_own_file(folder / "report.md", lambda content: content.startswith(b"# Attribution evaluated"), "a report")
    for name in experiments:
        require_own_file(folder / f"{name}.json", _is_result, f"a result of {name}")


def _is_result(content: bytes) -> bool:
    try:
        Result.model_validate_json(content)
    except ValidationError:
        return False
    return True


def _plot_file(result: Result, name: str) -> str:
    return f"plots/{result.experiment}-{name}.svg"


def _html(results: Sequence[Result], folder: Path) -> Iterator[str]:
    yield '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Attribution evaluated</title>'
    yield f"<style>{_STYLE}</style></head><body><h1>Attribution evaluated</h1>"
    aimed = _figures_with_target(results)
    met = sum(bool(figure.ok) for _, figure in aimed)
    yield f"<p>{met} of {len(aimed)} targets are met.</p><h2>Targets</h2>"
    yield from _html_table(("", *_COLUMNS), [[result.experiment, *figure_cells(figure)] for result, figure in aimed])
    yield "<h2>Missed</h2>"
    missed = [(result, figure) for result, figure in aimed if not figure.ok]
    yield (
        "<ul>"
        + "".join(f"<li>{html.escape(_describe_miss(result, figure))}</li>" for result, figure in missed)
        + "</ul>"
    )
    if not missed:
        yield "<p>Nothing.</p>"
    for result in results:
        yield f'<h2 id="{result.experiment}">{result.experiment} {html.escape(result.title)}</h2>'
        yield f"<p>{html.escape(result.question)}</p>"
        if result.profile == "quick":
            yield f'<p class="quick">{_QUICK}</p>'
        yield f"<p>{html.escape(circumstances_of(result))}</p>"
        yield from _html_table(_COLUMNS, [figure_cells(figure) for figure in result.figures])
        yield "".join(f"<p>{html.escape(note)}</p>" for note in result.notes)
        for plot in result.plots:
            drawn = (folder / _plot_file(result, plot.name)).read_text(encoding="utf-8")
            yield f"<figure>{drawn[drawn.index('<svg') :]}</figure>"
        settings = json.dumps({"settings": result.settings, "data": result.data}, indent=1, ensure_ascii=False)
        yield f"<details><summary>settings and data</summary><pre>{html.escape(settings)}</pre></details>"
    yield "</body></html>"


def _html_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    numbers = {"value", "95 % interval", "target", "N", "chance"}
    classes = ["number" if column in numbers else "" for column in columns]
    head = "".join(f'<th class="{kind}">{column}</th>' for column, kind in zip(columns, classes, strict=True))
    yield f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>'
    for row in rows:
        cells = (
            f'<td class="{cell if cell in {"met", "missed"} else kind}">{html.escape(cell)}</td>'
            for cell, kind in zip(row, classes, strict=True)
        )
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def _markdown(results: Sequence[Result]) -> Iterator[str]:
    aimed = _figures_with_target(results)
    met = sum(bool(figure.ok) for _, figure in aimed)
    yield f"# Attribution evaluated\n\n{met} of {len(aimed)} targets are met.\n\n## Targets\n"
    yield from _markdown_table(
        ("", *_COLUMNS), [[result.experiment, *figure_cells(figure)] for result, figure in aimed]
    )
    yield "\n## Missed\n"
    missed = [(result, figure) for result, figure in aimed if not figure.ok]
    yield from (f"- {plain_text(_describe_miss(result, figure))}" for result, figure in missed)
    if not missed:
        yield "Nothing."
    for result in results:
        yield f"\n## {result.experiment} {plain_text(result.title)}\n\n{plain_text(result.question)}\n"
        if result.profile == "quick":
            yield f"**{_QUICK}**\n"
        yield f"{plain_text(circumstances_of(result))}\n"
        yield from _markdown_table(_COLUMNS, [figure_cells(figure) for figure in result.figures])
        for note in result.notes:
            yield f"\n{plain_text(note)}"
        for plot in result.plots:
            yield f"\n![{plain_text(plot.title)}]({_plot_file(result, plot.name)})"


def _markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(map(plain_text, row))} |"


def plain_text(text: str) -> str:
    """Text that Markdown and a table cell of it show as it is."""
    return html.escape(text, quote=False).replace("|", "\\|").replace("\n", " ")


def _figures_with_target(results: Sequence[Result]) -> list[tuple[Result, Figure]]:
    return [(result, figure) for result in results for figure in result.figures if figure.target is not None]


def figure_cells(figure: Figure) -> list[str]:
    """A figure's row of a table: name, value, interval, target, whether it is met, N, chance; empty where none is."""
    interval = (
        ""
        if figure.low is None or figure.high is None
        else f"{_format_value(figure.low, figure)} – {_format_value(figure.high, figure)}"
    )
    sign = "≥" if figure.at_least else "≤"
    target = "" if figure.target is None else f"{sign} {_format_value(figure.target, figure)}"
    met = {None: "", True: "met", False: "missed"}[figure.ok]
    chance = "" if figure.chance is None else _format_value(figure.chance, figure)
    name = f"{figure.name} ({figure.note})" if figure.note else figure.name
    return [name, _format_value(figure.value, figure), interval, target, met, str(figure.n), chance]


def _format_value(value: float, figure: Figure) -> str:
    """A value as its unit is read."""
    match figure.unit:
        case "proportion":
            return f"{value:.1%}"
        case "relative error":
            return f"{value:.2g}"
        case "seconds" | "nats":
            return f"{value:.2f}"
        case _:
            return f"{value:.3f}"


def _describe_miss(result: Result, figure: Figure) -> str:
    cells = figure_cells(figure)
    return f"{result.experiment}, {cells[0]}: {cells[1]} where {cells[3]} was wanted"


def circumstances_of(result: Result) -> str:
    """On which model, with which seeds, when and how long, in one sentence or two."""
    coverage = "" if result.coverage is None else f" Coverage {result.coverage:.1%}."
    seeds = ", ".join(map(str, result.seeds))
    return (
        f"Model {result.model}, seeds {seeds}, attribution version {result.version}, {result.seconds:.0f} s,"
        f" finished {result.finished}.{coverage}"
    )
