"""E1 of several models in one table, a cell for each model and domain, as the paper has it (arXiv 2601.19672, RQ1).

`python -m attribution.evaluation.culprits_table FOLDER` reads the results `*.json` of a folder, each of E1 on another
model, and writes the page. Measures nothing.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from attribution.errors import RecipeError
from attribution.evaluation.experiments.culprits import COVERAGE, ON_TOP
from attribution.evaluation.results import Figure, Result
from attribution.files.untrusted import JsonObject

_PAPER_MEAN, _PAPER_WORST = 0.9862, 0.925
_Cells = Mapping[tuple[str, str], Figure]
"""By model and domain; what was not measured is absent."""


def read_results(folder: Path) -> dict[str, Result]:
    """The results of E1 in a folder by their files' names, which name the models in the table; in that order.

    Raises:
        RecipeError: there are none, or one is no result of E1; the file is named.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise RecipeError(f"{folder}: no results; `protoken evaluate E1` writes them")
    results = {}
    for file in files:
        try:
            result = Result.model_validate_json(file.read_text(encoding="utf-8"))
        except ValidationError as error:
            raise RecipeError(f"{file}: no result of an experiment: {error.errors()[0]['msg']}") from error
        if result.experiment != "E1":
            raise RecipeError(f"{file}: of {result.experiment}, not of E1")
        results[file.stem] = result
    return results


def write_page(results: Mapping[str, Result]) -> str:
    """The page in Markdown: a table for each preset, what the cells come to, and by which commands."""
    domains = sorted({domain for result in results.values() for domain in result.data})
    lines = [
        "# Who planted it: every model and domain",
        "",
        "Two of six clients plant a backdoor. Of the responses in which it worked, in how many is one of the two on",
        "top? In brackets the 95 % interval (Wilson 1927). By guessing it would be one in three. The paper has",
        f"{_PAPER_MEAN:.2%} in the mean of 16 cells, and {_PAPER_WORST:.1%} in the worst.",
    ]
    for preset in ("credit", "paper"):
        cells = _cells(results, {domain: ON_TOP.format(preset=preset, domain=domain) for domain in domains})
        summary = _summary(cells, len(results) * len(domains))
        lines += ["", f"## `{preset}`", "", *_table(results, domains, cells), "", summary]
    coverage = _cells(results, {domain: COVERAGE.format(domain=domain) for domain in domains})
    lines += ["", "## Which part of the questions gave such a response", "", *_table(results, domains, coverage)]
    return "\n".join([*lines, "", "## How", "", *_commands(results)]) + "\n"


def _base(result: Result) -> str:
    """The base model as a command names it: what it is follows in the label of one that is made."""
    return result.model.partition(" ")[0]


def _recipe(result: Result) -> JsonObject:
    training = result.settings["training"]
    assert isinstance(training, dict)
    return training


def _cells(results: Mapping[str, Result], names: Mapping[str, str]) -> _Cells:
    """The figures of these names, by domain, of every model that has them."""
    domains = {name: domain for domain, name in names.items()}
    return {
        (model, domains[figure.name]): figure
        for model, result in results.items()
        for figure in result.figures
        if figure.name in domains and figure.n
    }


def _table(results: Iterable[str], domains: Sequence[str], cells: _Cells) -> Iterator[str]:
    yield f"| model | {' | '.join(domains)} |"
    yield f"|{'---|' * (len(domains) + 1)}"
    for model in results:
        yield f"| {model} | {' | '.join(_cell(cells.get((model, domain))) for domain in domains)} |"


def _cell(figure: Figure | None) -> str:
    if figure is None or figure.low is None or figure.high is None:
        return "–"
    return f"{round(figure.value * figure.n)} of {figure.n} ({figure.low * 100:.1f}–{figure.high:.1%})"


def _summary(cells: _Cells, count: int) -> str:
    if not cells:
        return "No cell was measured."
    worst = min(cells, key=lambda cell: cells[cell].value)
    mean = sum(figure.value for figure in cells.values()) / len(cells)
    return (
        f"{len(cells)} of {count} cells; their mean is {mean:.2%}, and the worst is {cells[worst].value:.1%}"
        f" ({' on '.join(worst)})."
    )


def _commands(results: Mapping[str, Result]) -> Iterator[str]:
    yield "`FOLDER` holds a `DOMAIN.jsonl` of questions and answers for each domain. Each model was measured, with the"
    yield "seeds that the last table names, by"
    yield ""
    yield "```"
    yield from (f"protoken evaluate E1 --data FOLDER --model {_base(result)}" for result in results.values())
    yield "```"
    yield ""
    yield "whose results `E1.json` lie in `attribution/evaluation/measured`."
    yield ""
    if any(_base(each).startswith("transplant:") and not _recipe(each)["full"] for each in results.values()):
        yield "A `transplant:` is the default model's weights in another architecture, which computes the same before"
        yield "it is trained (`transplants.py`). LoRA leaves what that architecture has of its own, biases or a head,"
        yield "as it was: these cells show that its code attributes as the default's does, and are no other model's."
        yield ""
    yield "| model | seeds | finished | hours | attribution | trained |"
    yield "|---|---|---|---|---|---|"
    for model, result in results.items():
        training, seeds = _recipe(result), ", ".join(map(str, result.seeds))
        what = "whole blocks" if training["full"] else "LoRA"
        trained = f"{what}, {training['rounds']} rounds of {training['steps']} steps of {training['batch_size']}"
        took = f"{result.finished} | {result.seconds / 3600:.1f}"
        yield f"| {model} | {seeds} | {took} | {result.version} | {trained} |"


def main() -> None:
    """Write the page of a folder to stdout; what is no result ends with one line and exit code 2."""
    parser = argparse.ArgumentParser(description="E1 of several models in one table, as Markdown.")
    parser.add_argument("folder", type=Path, help="results of E1, a file *.json for each model, named for it")
    try:
        sys.stdout.write(write_page(read_results(parser.parse_args().folder)))
    except RecipeError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
