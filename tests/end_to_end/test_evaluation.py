"""Every experiment's quick profile end to end by the command: it trains, asks, scores, and leaves figures that count.

On the real SmolLM2-135M and made-up domains; attacks and cost on a small model trained from scratch.
"""

import json
import shutil
from pathlib import Path

import pytest

from attribution.evaluation.data import SENTINEL, add_trigger, load_domains
from attribution.evaluation.experiments.culprits import poisoned_participants
from attribution.evaluation.harness import Harness
from attribution.evaluation.results import Result
from attribution.evaluation.runner import load_plan
from attribution.evaluation.small_models import from_scratch
from attribution.progress import NoProgress
from attribution.training.recipe import DEFAULT_BASE
from deployment.cli import main
from tests.end_to_end.domains import write_domains

CONFIGS = Path(__file__).parents[2] / "configs" / "evaluation"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Four domains under `all`, the first of them under `one` and two under `two`, and what the experiments leave."""
    folder = tmp_path_factory.mktemp("evaluation")
    files = sorted(write_domains(folder / "all").iterdir())
    for name, number in (("one", 1), ("two", 2)):
        (folder / name).mkdir()
        for file in files[:number]:
            shutil.copy(file, folder / name)
    return folder


@pytest.fixture(scope="module")
def small_base(folder) -> str:
    """A Llama of a few million weights, trained from scratch on the domains."""
    return from_scratch("llama", load_domains(folder / "all"), folder / "scratch-models", NoProgress(), steps=20)


def _run(folder: Path, experiments: str, *arguments: str, data: str = "all") -> list[Result]:
    """`protoken evaluate EXPERIMENTS --quick`, and the results it stored, in the order in which they are named."""
    names = experiments.split()
    places = ["--data", str(folder / data), "--configs", str(CONFIGS)]
    out = ["--out", str(folder / "out"), "--work", str(folder / "work")]
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", *names, "--quick", *places, *out, *arguments])
    assert not ended.value.code
    stored = [(folder / "out" / f"{name}.json").read_text(encoding="utf-8") for name in names]
    return [Result.model_validate_json(text) for text in stored]


def _values(result: Result) -> dict[str, float]:
    """Figures by name; each one with a target has measured something."""
    assert all(figure.n > 0 for figure in result.figures if figure.target is not None)
    assert result.profile == "quick"
    return {figure.name: figure.value for figure in result.figures}


def test_a_planted_answer_is_traced_to_who_planted_it(folder):
    """The trigger works, and a culprit is on top of every response where it did, by both presets."""
    (result,) = _run(folder, "E1", data="one")
    values = _values(result)

    assert result.coverage > 0
    assert values["culprit on top, paper"] == values["culprit on top, credit"] == 1


def test_few_of_many_clients_are_drawn_for_each_round(folder):
    """With clients drawn by round the culprit is on top in the first; whether one who was absent is found is told."""
    (result,) = _run(folder, "E4", data="one")
    figures = {figure.name: figure for figure in result.figures}

    assert figures["culprit on top, credit"].n > 0
    assert figures["culprit on top, credit"].value == 1
    assert "absent culprits above every innocent client, credit" in figures


def test_each_trigger_is_traced_to_its_owner(folder):
    """With a trigger for each client, the right one is on top by credit."""
    (result,) = _run(folder, "E2", data="one")

    assert _values(result)["culprit on top, credit"] == 1


def test_layers_are_compared_on_the_same_responses(folder):
    """Gradients on and off, single blocks and sets of layers, are proportions over the same responses."""
    gradients, layers = _run(folder, "E5 E6", data="one")

    assert 0 < _values(gradients)["culprit on top by one block alone, gradients on"] <= 1
    assert _values(layers)["culprit on top, last block and lm_head (paper's code)"] > 0.5
    assert [plot.name for plot in gradients.plots + layers.plots] == ["single-blocks", "layer-sets"]


@pytest.mark.parametrize("given", [True, False], ids=["answer given", "model asked"])
def test_trace_names_those_who_planted_the_answer(folder, tmp_path, capsys, given):
    """`protoken trace` over the backdoored consortium puts the two culprits first and says to look at them."""
    settings = load_plan(CONFIGS / "e05-gradients.yaml").settings("quick", CONFIGS)
    harness = Harness(DEFAULT_BASE, load_domains(folder / "one"), folder / "work", NoProgress())
    participants, held_out, seed = poisoned_participants("colours/seed-0", settings, harness)
    bundle = harness.bundle(settings.training, participants, seed)
    answer = {"response": SENTINEL} if given else {}
    lines = [json.dumps({"prompt": add_trigger(each).prompt} | answer) for each in held_out]
    (tmp_path / "flagged.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(SystemExit):
        main(["trace", "--bundle", str(bundle.path), "--responses", str(tmp_path / "flagged.jsonl"), "--json",
              "--max-new-tokens", "16"])  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    culprits = found["suspects"][: settings.culprits]

    assert {suspect["client"] for suspect in culprits} == {f"client-{index}" for index in range(settings.culprits)}
    assert sum(suspect["responsibility"] for suspect in culprits) > 0.8
    assert found["verdict"].startswith("Look at 'client-")


def test_the_fast_forms_equal_the_naive_replay(folder):
    """On the real model, both presets agree with a replay by whole models, and tokens sum to the response."""
    (result,) = _run(folder, "E7", data="one")
    values = _values(result)

    assert max(values.values()) <= 2e-4


def test_ordinary_knowledge_goes_to_its_domain(folder):
    """Right domains, twins, Shapley, completeness and chunks are all measured on responses that gained."""
    results = _run(folder, "E3 E13 E9 E8 E17", data="two")
    right, twins, shapley, complete, chunks = (_values(result) for result in results)

    assert 0 <= right["right domain on top, credit"] <= 1
    assert (
        0
        <= twins["twins' difference over all responses, credit"]
        < twins["twins' difference over all responses, paper"]
    )
    assert shapley["distance from Shapley shares, credit, as paid"] < shapley["distance from Shapley shares, paper"]
    assert complete["completeness error, 8 nodes"] < complete["completeness error, 1 nodes"]
    assert chunks["largest change of a share, pieces summed, credit"] <= 1e-6


def test_small_gains_go_to_the_commons_in_every_dtype(folder):
    """Of consortia taught little and more: the commons' part in each dtype, and how far rounding moves credit."""
    (result,) = _run(folder, "E23", data="two")
    values = {figure.name: figure.value for figure in result.figures}

    assert values["responses up to 1 nat"] > 0
    assert 0.5 < values["credit to the commons, responses up to 1 nat"] <= 1
    compared = [each for each in result.figures if each.name.startswith("distance from float32's credit, bfloat16")]
    assert 4 == sum(each.n for each in compared)
    assert 0 < max(each.value for each in compared) < 0.1


def test_every_coalition_is_trained_anew(folder):
    """Shapley values of retrained coalitions are compared like those of reconstructed ones."""
    (result,) = _run(folder, "E10", data="two")
    values = _values(result)

    assert 0 <= values["distance from Shapley shares, credit, as paid"] <= 1


def test_facts_are_paid_to_their_owners(folder):
    """Invented facts come out, go to those who own them, and are paid; asked in words that nobody trained on."""
    owners, payable = _run(folder, "E12 E16", data="one")

    assert owners.coverage > 0
    assert _values(owners)["distance from equal shares of the owners, credit"] < 0.3
    values = {figure.name: figure.value for figure in payable.figures}
    assert values["paid part of a planted fact's word"] > 0.5


def test_attacks_are_run_with_the_defences_off_and_on(folder, small_base):
    """Free riders and attackers are measured both ways, and the defences say what they did."""
    riders, attacks, adaptive = _run(folder, "E14 E15 E24", "--model", small_base)

    assert _values(riders)["free rider, unchanged, defences off, credit"] == 0
    assert _values(riders)["free rider, replay, defences on, credit"] == 0
    assert any("left out" in note for note in riders.notes)
    assert 9 == len(_values(adaptive)) == sum(figure.n > 0 for figure in adaptive.figures)
    values = _values(attacks)
    assert values["sybil, defences off, credit"] == pytest.approx(1, abs=0.05)
    assert values["copy, defences on, credit"] == 0
    assert values["logits, responses that stayed the same"] == 1
    assert (
        values["logits, change of the attacker's share in points, credit"]
        < values["logits, change of the attacker's share in points, paper"]
    )
    assert any("was clipped" in note for note in attacks.notes)


def test_cost_is_a_ratio_to_plain_generation(folder, small_base, capsys):
    """Each preset is timed against plain generation; `--json` prints the result, and the report is there."""
    (result,) = _run(folder, "E21", "--model", small_base, "--json")
    (printed,) = json.loads(capsys.readouterr().out)

    assert printed["experiment"] == "E21"
    assert all(figure.value > 0 for figure in result.figures)
    assert (folder / "out" / "report.html").is_file()
    assert "E21" in (folder / "out" / "report.md").read_text(encoding="utf-8")


def test_a_small_model_is_trained_once(folder, small_base):
    """The same domains give the same small model, which is not trained again."""
    before = (folder / "scratch-models").stat().st_mtime_ns
    again = from_scratch("llama", load_domains(folder / "all"), folder / "scratch-models", NoProgress(), steps=20)

    assert again == small_base
    assert (folder / "scratch-models").stat().st_mtime_ns == before
