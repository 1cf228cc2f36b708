"""What experiments found when they were last run whole, as one page of tables.

`python -m attribution.evaluation.figures_page FOLDER` reads the results `E*.json` of a folder and writes the page.
Measures nothing.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from attribution.errors import RecipeError
from attribution.evaluation.report import circumstances_of, figure_cells, plain_text
from attribution.evaluation.results import Result
from attribution.evaluation.runner import load_results

_WIDTH = 120


def read_results(folder: Path) -> list[Result]:
    """The results of a folder, in the order of the experiments' numbers.

    Raises:
        RecipeError: there are none, one is malformed, or of a quick run, which shows no more than that it runs.
    """
    try:
        results = load_results(folder)
    except ValidationError as error:
        raise RecipeError(f"{folder}: no result of an experiment: {error.errors()[0]['msg']}") from error
    if not results:
        raise RecipeError(f"{folder}: no results; `protoken evaluate` writes them")
    for result in results:
        if result.profile != "full":
            raise RecipeError(f"{folder}: {result.experiment} is of a quick run; run it without --quick")
    return results


def write_page(results: Sequence[Result]) -> str:
    """The page in Markdown: each experiment with its figures, and by which command."""
    lines = [
        "# What experiments found",
        "",
        "Each was run whole, by the command above its table; `FOLDER` holds a `DOMAIN.jsonl` of questions and answers",
        "for each domain. The results as they were stored lie in `attribution/evaluation/measured/experiments`.",
    ]
    for result in results:
        lines += ["", *_section(result)]
    return "\n".join(lines) + "\n"


def _section(result: Result) -> Iterator[str]:
    option = " --retrain" if result.experiment == "E10" else ""
    yield f"## {result.experiment} {plain_text(result.title)}"
    yield ""
    yield from _paragraph(result.question)
    yield from ("", "```", f"protoken evaluate {result.experiment}{option} --data FOLDER", "```", "")
    yield from _paragraph(circumstances_of(result))
    yield from ("", "| figure | value | 95 % interval | N | target |", f"|{'---|' * 5}")
    for figure in result.figures:
        name, value, interval, target, met, count, _ = map(plain_text, figure_cells(figure))
        aim = f"{target}: **missed**" if met == "missed" else target
        yield f"| {name} | {value} | {interval} | {count} | {aim} |"
    for note in result.notes:
        yield ""
        yield from _paragraph(note)


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(plain_text(text), _WIDTH)


def main() -> None:
    """Write the page of a folder to stdout; what is no result ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="What experiments found, as Markdown.")
    parser.add_argument("folder", type=Path, help="results, a file E*.json for each experiment")
    try:
        sys.stdout.write(write_page(read_results(parser.parse_args().folder)))
    except RecipeError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
