"""`protoken evaluate --bundle`: a bundle's own shares held against Shapley values, and the report of it booked."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from attribution.bundle.bundle import manifest_sha256
from attribution.errors import PromptError, RecipeError
from attribution.evaluation.calibration import Prompts, calibrate, passes_needed
from attribution.evaluation.calibration_report import CalibrationReport, Measured
from attribution.evaluation.ground_truth import coalitions_asked
from attribution.files.destinations import prepare_folder, require_own_file, write_file
from attribution.model import FederatedModel
from attribution.progress import Progress
from attribution.records import Generation
from attribution.teacher_forcing import require_response, response_to
from deployment.cli.models.questions import Question, read_questions, token_ids_of
from deployment.cli.number_format import percent
from deployment.cli.options import ACTOR
from deployment.cli.output import print_json, say
from deployment.cli.progress import ProgressBar
from deployment.cli.tables import print_table
from rewards.errors import CalibrationError
from rewards.ledger.ledger import Ledger
from rewards.store import calibrations
from rewards.store.database import Connection

_NAMES = {
    "distance": "goes to others, mean of the responses",
    "distance_p95": "goes to others, 95 % of the responses at most",
    "settled_distance": "goes to others, all responses together",
    "largest_difference": "largest difference of a client's share",
    "correlation": "Pearson's r of the shares",
    "completeness_error": "gain that the scores leave unexplained",
    "small_gains_commons": "commons' part where little was gained",
    "truth_error": "of the first, by sampling the truth alone",
}
_OUR_FIELDS = (b'"prompts_sha256"', b'"least_gain"', b'"figures"')


@dataclass(frozen=True)
class Request:
    """What is calibrated, by which prompts, and where the report goes; where `ledger` is None it is not booked."""

    bundle: Path
    prompts: Path
    out: Path
    ledger: str | None
    pairs: int
    max_new_tokens: int


def calibrate_bundle(request: Request, *, as_json: bool) -> None:
    """Hold what a bundle pays for some responses against Shapley values; write the report, and book it where asked.

    Raises:
        RecipeError: a prompt cannot be read or asked; file, line and field are named.
        BundleError: the bundle is missing, altered or malformed.
        CalibrationError: the ledger does not know the bundle, or there was nothing to compare.
    """
    source = read_questions(request.prompts, "prompt")
    questions = source.questions
    model = FederatedModel.load(request.bundle)
    file = _place(request.out, model)
    if request.ledger is not None:
        with closing(Ledger(request.ledger)) as book, book.database.read() as connection:
            _require_known(connection, model)  # before hours of work
    _require_answerable(model, questions, request)
    if not as_json:
        say(_announcement(len(model.client_ids), len(questions), request.pairs), soft_wrap=True)
    with ProgressBar() as progress:
        generations = _responses(model, questions, request, progress)
        prompts = Prompts(source.sha256, request.max_new_tokens)
        report = calibrate(model, generations, prompts, request.pairs, progress)
    write_file(file, report.model_dump_json(indent=2).encode() + b"\n")
    if not as_json:
        _show(report, file)
    booked = None if request.ledger is None else _book(request.ledger, model, report)
    if as_json:
        print_json({"sequence": None if booked is None else booked[0], **report.model_dump(mode="json")})
    elif booked is not None:
        sequence, is_new = booked
        how = "booked as" if is_new else "the same was found before, and stands in the ledger as"
        say(f"{how} event {sequence}; the next checkpoint of the log covers it", soft_wrap=True)


def _place(folder: Path, model: FederatedModel) -> Path:
    """Where the report of a model goes, in a folder that is there."""
    prepare_folder(folder)
    file = folder / f"calibration-{model.global_sha256[:12]}.json"
    require_own_file(file, lambda content: all(field in content for field in _OUR_FIELDS), "a calibration's report")
    return file


def _require_known(connection: Connection, model: FederatedModel) -> None:
    calibrations.require_known_model(
        connection,
        model.name,
        bundle=str(model.bundle.path),
        model_sha256=model.global_sha256,
        manifest_sha256=manifest_sha256(model.bundle.path),
    )


def _book(ledger: str, model: FederatedModel, report: CalibrationReport) -> tuple[int, bool]:
    """The number of the report's event, and whether it is new.

    Raises:
        CalibrationError: nothing could be compared: the log would tell of a calibration, and it would be none.
    """
    if not report.compared_responses:
        raise CalibrationError(f"{report.verdict} Nothing was booked; give prompts that the clients' data answer")
    with closing(Ledger(ledger)) as book, book.database.write() as connection:
        _require_known(connection, model)
        document = report.model_dump(mode="json")
        return calibrations.book(connection, report.consortium, document, report.identity, ACTOR)


def _announcement(clients: int, responses: int, pairs: int) -> str:
    coalitions, passes = coalitions_asked(clients, pairs), passes_needed(clients, responses, pairs)
    return (
        f"{clients} clients and {responses} responses: about {passes:,} passes of the model, for {coalitions:,} "
        "coalitions and what credit takes of each response"
    )


def _require_answerable(model: FederatedModel, questions: Sequence[Question], request: Request) -> None:
    for question in questions:
        with _error_with_place(request.prompts, question):
            require_response(model, *token_ids_of(model, question, raw=False), request.max_new_tokens)


def _responses(
    model: FederatedModel, questions: Sequence[Question], request: Request, progress: Progress
) -> list[Generation]:
    progress.start("asking", len(questions))
    generations = []
    for question in questions:
        with _error_with_place(request.prompts, question):
            ids = token_ids_of(model, question, raw=False)
            generations.append(response_to(model, *ids, request.max_new_tokens))
        progress.advance()
    return generations


@contextmanager
def _error_with_place(path: Path, question: Question) -> Iterator[None]:
    """Say of a prompt that cannot be asked where it stands."""
    try:
        yield
    except PromptError as error:
        field = "prompt" if question.response is None else "prompt and response"
        raise RecipeError(f"{path}:{question.line}: {field}: {error}") from error


def _show(report: CalibrationReport, file: Path) -> None:
    figures = {name: getattr(report.figures, name) for name in _NAMES}
    rows = [
        (_NAMES[name], _value(name, measured), _interval(measured), f"{measured.n:,}")
        for name, measured in figures.items()
        if measured.n
    ]
    title = f"calibration of {report.consortium}, model {report.model_sha256[:12]}, by {report.truth_words}"
    print_table(title, ("figure", "value", "95 %", "N"), rows)
    say(
        f"{report.compared_responses} of {report.responses} responses were compared: {report.small_gains} gained no "
        f"more than {report.least_gain:g} nat over the base model, and of {report.without_shares} others no client is "
        "credited",
        soft_wrap=True,
    )
    say(report.verdict, style="bold", soft_wrap=True)
    say(f"report: {file}", soft_wrap=True)


def _value(name: str, measured: Measured) -> str:
    if measured.value is None:
        return "–"
    return f"{measured.value:.3f}" if name == "correlation" else percent(measured.value, 2)


def _interval(measured: Measured) -> str:
    if measured.low is None or measured.high is None:
        return ""
    return f"{percent(measured.low, 2)} – {percent(measured.high, 2)}"
