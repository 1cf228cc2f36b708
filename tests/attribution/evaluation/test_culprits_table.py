"""The table of E1 over several models: every cell from a stored result, and the page that is kept from those kept."""

from pathlib import Path

import pytest

from attribution.errors import RecipeError
from attribution.evaluation.culprits_table import main, read_results, write_page
from attribution.evaluation.experiments.culprits import COVERAGE, ON_TOP
from attribution.evaluation.results import Result
from attribution.evaluation.statistics import proportion

EVALUATION = Path(__file__).parents[3] / "attribution" / "evaluation"


def _result(model: str, hits: dict[str, tuple[int, int]], experiment: str = "E1") -> Result:
    """What 20 questions a domain came to: of so many answers, in how many a culprit was on top."""
    figures = []
    for domain, (on_top, worked) in hits.items():
        figures += [
            proportion(ON_TOP.format(preset="credit", domain=domain), on_top, worked),
            proportion(ON_TOP.format(preset="paper", domain=domain), 0, worked),
            proportion(COVERAGE.format(domain=domain), worked, 20),
        ]
    training = {"rounds": 3, "steps": 6, "batch_size": 5, "full": False}
    return Result(
        experiment=experiment, title="t", question="q", profile="full", model=model, data=dict.fromkeys(hits, "0" * 64),
        seeds=[0, 1], coverage=0.5, settings={"training": training}, version="v",
        finished="2026-11-27T00:00:00+00:00", seconds=7200, figures=figures, plots=[], notes=[],
    )  # fmt: skip


def test_a_cell_tells_of_how_many_and_how_surely():
    """And which part of the questions could be evaluated; what was not measured counts nowhere."""
    page = write_page(
        {"one": _result("wheel:a/b.gguf", {"law": (9, 10), "tea": (0, 0)}), "two": _result("x", {"law": (4, 4)})}
    )
    credit, _, rest = page.partition("## `credit`")[2].partition("## `paper`")
    paper, _, rest = rest.partition("## Which part")

    assert "| one | 9 of 10 (59.6–98.2%) | – |" in credit
    assert "| two | 4 of 4 (51.0–100.0%) | – |" in credit
    assert "2 of 4 cells; their mean is 95.00%, and the worst is 90.0% (one on law)." in credit
    assert "their mean is 0.00%" in paper
    assert "| one | 10 of 20 (29.9–70.1%) | 0 of 20 (0.0–16.1%) |" in rest
    assert "protoken evaluate E1 --data FOLDER --model wheel:a/b.gguf" in rest
    assert "| one | 0, 1 | 2026-11-27T00:00:00+00:00 | 2.0 | v | LoRA, 3 rounds of 6 steps of 5 |" in rest


def test_what_is_no_other_model_is_said_to_be_none():
    """Only where it stands in the table."""
    words = "are no other model's"

    assert words in write_page({"one": _result("transplant:qwen2 (weights of one)", {"law": (1, 1)})})
    assert words not in write_page({"one": _result("one", {"law": (1, 1)})})


def test_where_nothing_was_measured_no_mean_is_told():
    """Instead of one over no cells."""
    assert "No cell was measured." in write_page({"one": _result("one", {"law": (0, 0)})})


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (None, "no results; `protoken evaluate E1` writes them"),
        ("{", "a.json: no result of an experiment: "),
        (_result("one", {"law": (1, 1)}, "E2").model_dump_json(), "a.json: of E2, not of E1"),
    ],
)
def test_what_is_no_result_of_it_is_named(tmp_path, content, named):
    """The file, and what is wrong with it."""
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(RecipeError, match=named):
        read_results(tmp_path)


def test_the_command_ends_in_one_line(capsys, monkeypatch, tmp_path):
    """Without a folder, and with one that holds nothing; with results it is the page and nothing else."""
    for words, told in (([], "required: folder"), ([str(tmp_path)], "no results; `protoken evaluate E1` writes them")):
        monkeypatch.setattr("sys.argv", ["culprits_table", *words])
        with pytest.raises(SystemExit) as end:
            main()
        assert (2, True) == (end.value.code, told in capsys.readouterr().err.splitlines()[-1])
    (tmp_path / "one.json").write_text(_result("one", {"law": (1, 1)}).model_dump_json())
    main()

    assert write_page(read_results(tmp_path)) == capsys.readouterr().out


def test_the_page_is_that_of_the_results_beside_it():
    """No figure of it was typed: it is written from the stored results, letter by letter."""
    assert (EVALUATION / "RESULTS.md").read_text(encoding="utf-8") == write_page(read_results(EVALUATION / "measured"))
