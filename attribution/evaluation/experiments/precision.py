"""E23: responses that gained little, and scores in half precision: what the commons gets, and what rounding pays.

The consortium of ordinary knowledge (`domains`) is trained a little and much, so that its answers to what nobody
trained on gain from nothing to many nats. Some of them are scored in half precision too, from the same token ids.
"""

from collections.abc import Mapping, Sequence

from pydantic import Field

from attribution.attribute import attribute
from attribution.evaluation.experiment import Experiment, ResultRow, ResultRows
from attribution.evaluation.experiments.domains import GAIN, NaturalSettings, commons_of_small_gains, natural_bundle
from attribution.evaluation.harness import Harness, answers
from attribution.evaluation.results import Figure, Plot, Summary
from attribution.evaluation.statistics import mean, median, total_variation
from attribution.model import DType, FederatedModel
from attribution.records import Generation

_EXACT: DType = "float32"
_COMMONS = "commons"


class PrecisionSettings(NaturalSettings):
    """How strongly consortia are taught, how they are asked, and which dtypes are compared with float32.

    Each of `local_steps` is one consortium, which trains so many steps a round; every question is asked at each
    temperature, with `top_p` where that is above 0. Of each consortium's answers `compared`, evenly spread, are scored
    in the other `dtypes` too, which takes very long where the machine has no units for them.
    """

    local_steps: tuple[int, ...] = Field(default=(1, 2, 10), min_length=1)
    temperatures: tuple[float, ...] = Field(default=(0.0, 1.0), min_length=1)
    top_p: float = Field(default=0.95, gt=0, le=1)
    compared: int = Field(default=8, ge=1)
    dtypes: tuple[DType, ...] = Field(default=("float16", "bfloat16"), min_length=1)


def _cases(settings: PrecisionSettings, _: Harness) -> list[str]:
    return [f"seed-{seed}/steps-{steps}" for seed in settings.seeds for steps in settings.local_steps]


def _run(case: str, settings: PrecisionSettings, harness: Harness) -> ResultRows:
    """Each answer's gain and split of credit, and of some in half precision."""
    seed, steps = (int(part.rpartition("-")[2]) for part in case.split("/"))
    training = settings.training.model_copy(update={"steps": steps})
    bundle, held_out = natural_bundle(settings.model_copy(update={"training": training}), harness, seed)
    model = FederatedModel.load(bundle.path)
    prompts = [(domain, example.prompt) for domain, examples in held_out.items() for example in examples]
    rows: ResultRows = []
    generations = []
    harness.progress.start("asking", len(settings.temperatures))
    for temperature in settings.temperatures:
        sampled = {"temperature": temperature, "top_p": settings.top_p} if temperature else {}
        generations += answers(model, [prompt for _, prompt in prompts], settings.max_new_tokens, **sampled)
        rows += [{"domain": domain, "temperature": temperature} for domain, _ in prompts]
        harness.progress.advance()
    _score(_EXACT, model, rows, generations, harness)
    stride = -(-len(rows) // settings.compared)
    for dtype in settings.dtypes:
        scored = FederatedModel.load(bundle.path, score_dtype=dtype)
        _score(dtype, scored, rows[::stride], generations[::stride], harness)
    return rows


def _score(
    dtype: DType, model: FederatedModel, rows: ResultRows, generations: Sequence[Generation], harness: Harness
) -> None:
    harness.progress.start(f"scoring in {dtype}", len(rows))
    for row, generation in zip(rows, generations, strict=True):
        credit = attribute(model, generation)
        row["tokens"] = len(generation.token_ids)
        row[dtype] = {
            "gain": credit.gain,
            "completeness_error": credit.completeness_error,
            "credit": dict(credit.shares) | {_COMMONS: credit.base_share},
        }
        harness.progress.advance()


def _is_small(row: ResultRow) -> bool:
    return bool(row[_EXACT]["gain"] <= GAIN)


def _summarise(settings: PrecisionSettings, cases: Mapping[str, ResultRows]) -> Summary:
    rows = [row for each in cases.values() for row in each]
    small = [row for row in rows if _is_small(row)]
    figures = [
        Figure(name=f"responses up to {GAIN:g} nat", value=len(small), n=len(rows), unit="ratio", target=100,
               at_least=True)
    ]  # fmt: skip
    figures.append(_commons(rows))
    for dtype in settings.dtypes:
        figures += _dtype_errors(rows, dtype)
    for temperature in settings.temperatures:
        figures += _at_temperature([row for row in rows if row["temperature"] == temperature], temperature)
    plots = [
        Plot(
            name="gain-and-commons", title="What the commons gets of a response", kind="scatter",
            x_label="gain, nats", y_label="share of the commons",
            series={f"temperature {temperature:g}": [
                (row[_EXACT]["gain"], row[_EXACT]["credit"][_COMMONS])
                for row in rows if row["temperature"] == temperature
            ] for temperature in settings.temperatures},
        ),
        Plot(
            name="gain-and-rounding", title="How far a response's credit is from that of float32", kind="scatter",
            x_label="gain, nats", y_label="total variation, commons included", log_y=True,
            series={dtype: [(row[_EXACT]["gain"], distance) for row, distance in _distances(rows, dtype) if distance]
                    for dtype in settings.dtypes},
        ),
    ]  # fmt: skip
    notes = [
        (
            f"{len(small)} of {len(rows)} responses gained up to {GAIN:g} nat over the base model. A short response may"
            " gain less than that in all and much on each token, which is then paid."
        )
    ]
    return Summary(figures=figures, plots=plots, notes=notes)


def _commons(rows: ResultRows) -> Figure:
    exact = [{"gain": row[_EXACT]["gain"], "tokens": row["tokens"], "base_share": row[_EXACT]["credit"][_COMMONS]}
             for row in rows]  # fmt: skip
    return commons_of_small_gains(exact).model_copy(update={"target": 0.95})


def _distances(rows: ResultRows, dtype: DType) -> list[tuple[ResultRow, float]]:
    both = [row for row in rows if dtype in row]
    return [(row, total_variation(row[_EXACT]["credit"], row[dtype]["credit"])) for row in both]


def _dtype_errors(rows: ResultRows, dtype: DType) -> list[Figure]:
    """How far credit in a dtype is from that in float32, and what more clients are paid, by small and usual gains."""
    figures = []
    for name, own in (
        (f"up to {GAIN:g} nat", [row for row in rows if _is_small(row)]),
        (f"above {GAIN:g} nat", [row for row in rows if not _is_small(row)]),
    ):
        compared = _distances(own, dtype)
        distances = [distance for _, distance in compared]
        more = [row[_EXACT]["credit"][_COMMONS] - row[dtype]["credit"][_COMMONS] for row, _ in compared]
        target = 0.01 if dtype == "float16" else None  # what GPUs score in
        figures.append(mean(f"distance from float32's credit, {dtype}, {name}", distances, "share", target=target))
        figures.append(mean(f"paid to clients beyond float32, {dtype}, {name}", more, "share"))
    return figures


def _at_temperature(rows: Sequence[ResultRow], temperature: float) -> list[Figure]:
    gained = [row[_EXACT] for row in rows if not _is_small(row)]
    errors = [abs(each["completeness_error"] / each["gain"]) for each in gained]
    return [
        median(f"gain, temperature {temperature:g}", [row[_EXACT]["gain"] for row in rows], "nats"),
        mean(f"completeness error, temperature {temperature:g}", errors, "relative error"),
    ]


PRECISION = Experiment(PrecisionSettings, _cases, _run, _summarise)
