"""`protoken ledger recompute`: a booked response attributed again, and held against its receipt."""

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from attribution.model import FederatedModel
from deployment.cli.number_format import credit
from deployment.cli.options import AS_SET, Config, Json, LedgerUrl, is_typed, setting_option
from deployment.cli.output import print_json, say
from deployment.cli.progress import ProgressBar
from deployment.cli.tables import print_table
from deployment.errors import RecomputationError
from deployment.replica.bundles.publication_index import PublishedBundles
from deployment.replica.scoring.exchange import ReceivedAnswer, read_answer, read_request, read_text
from deployment.replica.scoring.recomputation import (
    Recomputation,
    recompute,
    require_bundle,
    require_recomputable,
    require_same_request,
)
from deployment.retention.texts import find_text
from rewards.credit import REVERSAL
from rewards.files.strict_json import JsonObject
from rewards.ledger.ledger import Ledger
from rewards.store.receipts import BookedReceipt

_UNPROVEN = "a receipt holds no hash of prompt and text: that they are the booked ones is not proven by one"


def recompute_response(
    ctx: typer.Context,
    response_id: Annotated[str, typer.Argument(metavar="RESPONSE_ID", help="Whose credit.")],
    request_file: Annotated[
        Path, typer.Option("--request-file", help="The request's body as it was sent (JSON): it holds the prompt.")
    ],
    answer_file: Annotated[
        Path | None,
        typer.Option("--answer-file", help="The answer's body as it came (JSON); else the text that the service kept."),
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", help="Instead: the text alone, as the pieces of a stream make it.")
    ] = None,
    ledger: LedgerUrl = AS_SET,
    texts: Annotated[Path | None, setting_option("texts", "--texts", "Folder of kept texts")] = AS_SET,
    bundle: Annotated[
        Path | None,
        setting_option("bundle", "--bundle", "Folder of the bundle that made it, if not where it was published"),
    ] = AS_SET,
    _config: Config = None,
    as_json: Json = False,
) -> None:
    """Attribute a booked response again, from its request and its answer; exit code 1 where it comes to other credit.

    It is scored by the bundle that made it, in the numbers that its receipt names, on this machine's processors. Credit
    and scores must be what was booked within bounds that were measured. Whether prompt and text are the booked ones no
    hash proves: a receipt holds none. Others come to other scores.
    """
    answer = _given_answer(response_id, answer_file, text_file, texts)
    request = read_request(request_file, response_id)
    with closing(Ledger(ledger)) as book:
        receipt = book.receipt(response_id)
        if receipt is None:
            raise RecomputationError(f"no response {response_id!r} is booked in this ledger")
        require_recomputable(receipt)
        require_same_request(receipt, request)
        folder = _bundle(book, receipt, bundle, is_meant=is_typed(ctx, "bundle"))
        is_reversed = book.is_booked(f"{REVERSAL}{response_id}")
    with ProgressBar() as progress:
        progress.start("loading the model", 2)
        model = FederatedModel.load(folder, dtype=receipt.settings["dtype"])
        progress.advance()
        made = recompute(model, receipt, request, answer)
        progress.advance()
    if as_json:
        print_json(_document(made, folder, is_reversed=is_reversed))
    else:
        _show(made, folder, is_reversed=is_reversed)
    if not made.agrees:
        tokens = "" if made.ids_told else ", or its tokens were not those of its text"
        raise RecomputationError(
            f"{response_id!r} does not come to what was booked: prompt or text are others{tokens}, "
            "or the credit is wrong"
        )


def _given_answer(
    response_id: str, answer_file: Path | None, text_file: Path | None, texts: Path | None
) -> ReceivedAnswer:
    """The answer, from the one place that is given.

    Raises:
        RecomputationError: the service kept none.
    """
    if answer_file is not None and text_file is not None:
        raise typer.BadParameter("give either --answer-file or --text-file")
    if answer_file is not None:
        return read_answer(answer_file, response_id)
    if text_file is not None:
        return read_text(text_file)
    if texts is None:
        raise typer.BadParameter("give --answer-file, --text-file, or with --texts where the service keeps texts")
    kept = find_text(texts, response_id)
    if kept is None:
        raise RecomputationError(f"no text of {response_id!r} is kept in {texts}")
    return ReceivedAnswer(kept.text, tuple(token.token_id for token in kept.tokens) or None)


def _bundle(book: Ledger, receipt: BookedReceipt, given: Path | None, *, is_meant: bool) -> Path:
    """The bundle that made a response, as it was named, or from where it was published.

    Args:
        book: the ledger.
        receipt: of the response.
        given: the folder of a bundle.
        is_meant: whether it is that one or none; else it is where the service's own lies, of whatever round.

    Raises:
        RecomputationError: it was published nowhere, and none is named.
        BundleError: it is another.
    """
    published = PublishedBundles(book.database, receipt.consortium, () if given is None else (given,))
    folders = [given] if given is not None and is_meant else published.folders(receipt.model_sha256)
    if not folders:
        raise RecomputationError(
            f"no bundle with model {receipt.model_sha256} was published in this ledger: name its folder by --bundle"
        )
    require_bundle(folders[0], receipt, published.manifests(receipt.model_sha256))
    return folders[0]


def _show(made: Recomputation, folder: Path, *, is_reversed: bool) -> None:
    receipt, settings = made.receipt, made.receipt.settings
    rows = [
        (account, credit(receipt.amounts.get(account, 0)), credit(made.amounts.get(account, 0)), f"{difference:+d}")
        for account, difference in made.differences.items()
    ]
    footer = ("sum", credit(sum(receipt.amounts.values())), credit(sum(made.amounts.values())), "")
    title = (
        f"{receipt.response_id}: {receipt.tokens} tokens, scored in {settings['dtype']} at {settings['nodes']} nodes"
    )
    print_table(title, ("account", "booked", "recomputed", "difference"), rows, footer=footer)
    say(
        f"credit: the greatest difference is {credit(made.credit_difference)} micro-credits; "
        f"the bound is {credit(made.credit_bound)}",
        soft_wrap=True,
    )
    say(
        f"scores: the greatest difference is {made.score_difference:.2g} nats; the bound is {made.score_bound:.2g}",
        soft_wrap=True,
    )
    say(f"bundle {folder}, the one that was booked", soft_wrap=True)
    whose = "the ids that the answer tells" if made.ids_told else "those that the tokenizer makes of the text"
    say(f"tokens: {whose}; {_UNPROVEN}", soft_wrap=True)
    if is_reversed:
        say("its credit was reversed since; this is what was booked first", soft_wrap=True)


def _document(made: Recomputation, folder: Path, *, is_reversed: bool) -> JsonObject:
    receipt = made.receipt
    return {
        "object": "recomputation",
        "response_id": receipt.response_id,
        "agrees": made.agrees,
        "tokens": receipt.tokens,
        "credit": {
            "booked": {account: str(amount) for account, amount in receipt.amounts.items()},
            "recomputed": {account: str(amount) for account, amount in made.amounts.items()},
            "greatest_difference": str(made.credit_difference),
            "bound": str(made.credit_bound),
        },
        "scores": {
            "booked": receipt.measurement["response_scores"],
            "recomputed": dict(made.response.response_scores),
            "gain_booked": receipt.measurement["gain"],
            "gain_recomputed": made.response.gain,
            "greatest_difference": made.score_difference,
            "bound": made.score_bound,
        },
        "settings": dict(receipt.settings),
        "bundle": str(folder),
        "ids_told": made.ids_told,
        "proven_by_hash": False,
        "reversed": is_reversed,
    }
