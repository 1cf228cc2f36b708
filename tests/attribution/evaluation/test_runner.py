"""Running experiments: finished cases are never run again, changed ones are, and a malformed file is named."""

import json
from pathlib import Path

import pytest
import yaml

from attribution.errors import RecipeError
from attribution.evaluation.catalogue import CATALOGUE
from attribution.evaluation.experiment import Experiment, Settings
from attribution.evaluation.harness import Harness
from attribution.evaluation.results import Figure, Summary
from attribution.evaluation.runner import load_plan, load_results, run_plan
from attribution.progress import NoProgress
from tests.attribution import consortia

CONFIGS = Path(__file__).parents[3] / "configs" / "evaluation"


class Counting:
    """An experiment of one case a seed that remembers what it ran, and fails where it is told to."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        self.failing: str | None = None

    def cases(self, settings: Settings, _: Harness) -> list[str]:
        return [f"seed-{seed}" for seed in settings.seeds]

    def run(self, case: str, settings: Settings, _: Harness) -> list[dict[str, object]]:
        if case == self.failing:
            raise RuntimeError("the power went")
        self.ran.append(case)
        return [{"length": settings.max_new_tokens}]

    def summarise(self, _: Settings, cases) -> Summary:
        value = sum(row["length"] for rows in cases.values() for row in rows)
        return Summary(figures=[Figure(name="length", value=value, n=len(cases), unit="ratio")])


@pytest.fixture
def counting(monkeypatch) -> Counting:
    """The counting experiment in the place of E3."""
    counting = Counting()
    experiment = Experiment(Settings, counting.cases, counting.run, counting.summarise)
    monkeypatch.setitem(CATALOGUE, "E3", experiment)
    return counting


@pytest.fixture
def harness(tmp_path) -> Harness:
    """A harness over a random model; the experiment here never loads it."""
    base = consortia.save_base(consortia.base_model("llama"), tmp_path / "base")
    return Harness(base, {}, tmp_path / "work", NoProgress())


def _plan(folder: Path, **full: object) -> Path:
    path = folder / "e3.yaml"
    document = {"experiment": "E3", "title": "t", "question": "q", "full": full, "quick": {"seeds": [5]}}
    path.write_text(yaml.safe_dump(document))
    return path


def test_finished_cases_are_not_run_again(tmp_path, counting, harness):
    """After a failure in the second case the first is kept; more seeds run only what is new."""
    plan, out = _plan(tmp_path, seeds=[0, 1]), tmp_path / "out"
    counting.failing = "seed-1"
    with pytest.raises(RuntimeError):
        run_plan(plan, "full", harness, out, lambda _: None)
    counting.failing = None
    run_plan(plan, "full", harness, out, lambda _: None)
    result = run_plan(_plan(tmp_path, seeds=[0, 1, 2]), "full", harness, out, lambda _: None)

    assert counting.ran == ["seed-0", "seed-1", "seed-2"]
    assert result.figures[0].value == 3 * 32
    assert result.seeds == [0, 1, 2]
    assert [result] == load_results(out)
    assert not list(out.glob(".*"))


def test_what_decides_the_rows_decides_whether_they_are_kept(tmp_path, counting, harness):
    """Another setting, profile or base model runs the case anew."""
    out = tmp_path / "out"
    run_plan(_plan(tmp_path, seeds=[5]), "full", harness, out, lambda _: None)
    run_plan(_plan(tmp_path, seeds=[5], max_new_tokens=7), "full", harness, out, lambda _: None)
    other = consortia.save_base(consortia.base_model("llama", seed=1), tmp_path / "other")
    run_plan(_plan(tmp_path, seeds=[5]), "full", Harness(other, {}, harness.folder, NoProgress()), out, lambda _: None)

    assert counting.ran == ["seed-5"] * 3


def test_the_result_says_how_to_run_it_again(tmp_path, counting, harness):
    """A stored result has its profile, settings, seeds, model and version."""
    run_plan(_plan(tmp_path), "quick", harness, tmp_path / "out", lambda _: None)
    stored = json.loads((tmp_path / "out" / "E3.json").read_text())

    assert (stored["profile"], stored["seeds"], stored["model"]) == ("quick", [5], harness.base)
    assert stored["settings"]["max_new_tokens"] == 32
    assert stored["version"]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")) + sorted((CONFIGS / "paper").glob("*.yaml")), ids=str)
def test_every_experiment_s_file_is_valid(path):
    """The files that are shipped load, for both profiles."""
    assert load_plan(path).experiment in CATALOGUE


def test_every_experiment_has_a_file():
    """No experiment is left without settings."""
    assert {load_plan(path).experiment for path in CONFIGS.glob("*.yaml")} == set(CATALOGUE)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("experiment: [", "not YAML"),
        ("just words", "document"),
        ("experiment: E3\ntitle: t", "question"),
        ("experiment: E99\ntitle: t\nquestion: q", "'E99' is not one of E1"),
        ("experiment: E3\ntitle: t\nquestion: q\nfull: {prompts: 0}", "prompts"),
        ("experiment: E3\ntitle: t\nquestion: q\nquick: {training: {steps: 0}}", "training.steps"),
        ("experiment: E3\ntitle: t\nquestion: q\nfull: {surprise: 1}", "surprise"),
        (b"\xff\xfe", "cannot be read|not YAML"),
    ],
)
def test_a_malformed_file_is_named(tmp_path, content, named):
    """A file that is no YAML, or has a field missing, unknown or out of range, is refused by file and field."""
    path = tmp_path / "e.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError, match=f"e.yaml: .*({named})"):
        load_plan(path)
