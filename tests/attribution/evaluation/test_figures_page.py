"""The page of experiments' figures: every row from a stored result, and the page that is kept from those kept."""

from pathlib import Path

import pytest

from attribution.errors import RecipeError
from attribution.evaluation.figures_page import main, read_results, write_page
from attribution.evaluation.results import Figure, Result

EVALUATION = Path(__file__).parents[3] / "attribution" / "evaluation"


def _result(experiment: str, *figures: Figure, profile: str = "full") -> Result:
    return Result(
        experiment=experiment, title=f"about {experiment}", question="How | far?", profile=profile, model="m", data={},
        seeds=[0], coverage=None, settings={}, version="2", finished="2026-11-27T00:00:00+00:00", seconds=60,
        figures=list(figures), plots=[], notes=["why " * 60],
    )  # fmt: skip


def _store(folder: Path, *results: Result) -> None:
    for result in results:
        (folder / f"{result.experiment}.json").write_text(result.model_dump_json(), encoding="utf-8")


def test_a_row_tells_of_how_many_how_surely_and_whether_it_was_wanted(tmp_path):
    """In the order of the experiments' numbers, each with its command; what was missed is said to be."""
    near = Figure(name="near", value=0.01, n=5, unit="share", low=0.0, high=0.02, target=0.02)
    far = Figure(name="far", value=0.3, n=7, unit="share", target=0.02)
    _store(tmp_path, _result("E10", far), _result("E9", near))
    page = write_page(read_results(tmp_path))

    assert page.index("## E9 about E9") < page.index("## E10 about E10")
    assert "\nprotoken evaluate E9 --data FOLDER\n" in page
    assert "\nprotoken evaluate E10 --retrain --data FOLDER\n" in page
    assert "| near | 0.010 | 0.000 – 0.020 | 5 | ≤ 0.020 |" in page
    assert "| far | 0.300 |  | 7 | ≤ 0.020: **missed** |" in page
    assert "How \\| far?" in page
    assert max(map(len, page.splitlines())) <= 120


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no results; `protoken evaluate` writes them"),
        ("{", "no result of an experiment: "),
        (_result("E9", profile="quick").model_dump_json(), "E9 is of a quick run; run it without --quick"),
    ],
)
def test_what_is_no_whole_result_is_refused(tmp_path, content, named):
    """With the folder, and what is wrong."""
    if content is not None:
        (tmp_path / "E9.json").write_text(content)
    with pytest.raises(RecipeError, match=named):
        read_results(tmp_path)


def test_the_command_writes_the_page_and_nothing_else(capsys, monkeypatch, tmp_path):
    """Without results it ends in one line."""
    monkeypatch.setattr("sys.argv", ["figures_page", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    assert (2, True) == (end.value.code, "no results" in capsys.readouterr().err.splitlines()[-1])
    _store(tmp_path, _result("E9"))
    main()

    assert write_page(read_results(tmp_path)) == capsys.readouterr().out


def test_the_page_is_that_of_the_results_beside_it():
    """No figure of it was typed: it is written from the stored results, letter by letter."""
    stored = read_results(EVALUATION / "measured" / "experiments")
    assert (EVALUATION / "FIGURES.md").read_text(encoding="utf-8") == write_page(stored)
