"""`protoken trace`: who is behind some responses; booked ones by their ids, from the books and kept texts alone."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib import import_module
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from deployment.books.traces import BookedTrace, TracedResponse, trace_booked
from deployment.cli.extras import require_extra
from deployment.cli.heat_map import heat_map, legend, tint
from deployment.cli.number_format import credit, percent
from deployment.cli.options import AS_SET, Config, Json, LedgerUrl, date, is_typed, setting_option
from deployment.cli.output import console, print_json, say
from deployment.cli.tables import print_table
from deployment.errors import SettingsError
from deployment.replica.messages import TokenCredit
from deployment.retention.texts import KeptText, find_text
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN
from rewards.files.plain_text import many_lines
from rewards.ledger.ledger import Ledger

Texts = Mapping[str, KeptText]
"""Kept texts by response id."""


def trace_responses(
    ctx: typer.Context,
    ids: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RESPONSE_ID]...", help="Booked responses: no model is needed, and shares are exact."),
    ] = None,
    ledger: LedgerUrl = AS_SET,
    texts: Annotated[Path | None, setting_option("texts", "--texts", "Folder of kept texts")] = AS_SET,
    bundle: Annotated[
        Path | None, setting_option("bundle", "--bundle", "Folder of the bundle that --responses asks")
    ] = AS_SET,
    _config: Config = None,
    responses: Annotated[
        Path | None,
        typer.Option(
            "--responses",
            help='JSON lines of {"prompt", "response"}; without a response the model is asked. In place of ids.',
        ),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Tokens to generate where a line has no response.")
    ] = 64,
    raw: Annotated[
        bool, typer.Option("--raw", help="Give prompts as they are, without the model's chat template.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Rank the clients by their responsibility for flagged responses: to debug, or to find who planted something.

    Of booked responses by their ids: by their booked credit, with the answers where the service keeps texts. Or of
    texts in a file, by a model that is loaded for it.
    """
    if (responses is None) == (not ids) or (is_typed(ctx, "bundle") if ids else bundle is None):
        raise typer.BadParameter("give ids of responses, or a file and the bundle", param_hint="--responses, --bundle")
    if ids:
        with closing(Ledger(ledger)) as book:
            _trace_ids(trace_booked(book, ids), _require_folder(texts), as_json=as_json)
        return
    require_extra("attribution", "`protoken trace --responses`")
    flagged = import_module("deployment.cli.models.flagged")
    flagged.trace_flagged(bundle, responses, max_new_tokens, raw=raw, as_json=as_json)


def _require_folder(folder: Path | None) -> Path | None:
    """Where texts are kept; None where they are not."""
    if folder is not None and not folder.is_dir():
        raise SettingsError(
            f"the folder of kept texts {folder} is not there; the setting `texts` of the service names it"
        )
    return folder


def _trace_ids(traced: BookedTrace, folder: Path | None, *, as_json: bool) -> None:
    texts = {} if folder is None else _kept_texts(traced, folder)
    if as_json:
        print_json(_document(traced, texts))
        return
    _show_ranking(traced)
    if folder is None:
        say("texts are not kept here (setting `texts`, --texts FOLDER): the ranking is by booked credit alone")
    clients = sorted({client for each in traced.responses for client in each.receipt.amounts} - {COMMONS})
    colours = tint(clients)
    for each in traced.responses:
        _show_response(each, texts.get(each.receipt.response_id), colours, is_kept_at_all=folder is not None)
    if any(kept.tokens for kept in texts.values()):
        console.print(legend(colours))


def _kept_texts(traced: BookedTrace, folder: Path) -> Texts:
    """The texts that lie there; one of another ledger that has the same folder is none."""
    texts = [(each.receipt, find_text(folder, each.receipt.response_id)) for each in traced.responses]
    return {
        receipt.response_id: kept
        for receipt, kept in texts
        if kept is not None and kept.application == receipt.application
    }


def _show_ranking(traced: BookedTrace) -> None:
    rows = [
        (each.client, each.name, percent(each.share), credit(each.credit), f"{each.top_in} of {len(traced.responses)}")
        for each in traced.earners
    ]
    columns = ("client", "name", "responsible", "credit", "on top in")
    print_table(f"{len(traced.responses)} responses, by booked credit", columns, rows, texts=(0, 1))
    say(f"of no client: {credit(traced.commons)}")
    for each in traced.responses:
        if each.reversed_by is not None:
            say(f"reversed: {each.receipt.response_id}, by {each.reversed_by}", soft_wrap=True)
        if not each.is_measured:
            say(f"not measured, and not in the ranking: {each.receipt.response_id}", soft_wrap=True)


def _show_response(
    each: TracedResponse, kept: KeptText | None, colours: Mapping[str, str], *, is_kept_at_all: bool
) -> None:
    receipt = each.receipt
    whole = receipt.tokens * MICRO_CREDITS_PER_TOKEN
    rows = [(account, credit(amount), percent(amount / whole)) for account, amount in receipt.amounts.items()]
    title = f"{receipt.response_id}: {receipt.tokens} tokens of {receipt.consortium}, {date(receipt.created_at_us)}"
    print_table(title, ("account", "credit", "share"), rows)
    if kept is None:
        if is_kept_at_all:
            say("its text is not kept, or no longer")
    elif not kept.tokens:
        console.print(Text(many_lines(kept.text)))
        say('whose each token is was not asked for (attribution: "tokens")')
    else:
        scores = {client: [token.scores.get(client, 0.0) for token in kept.tokens] for client in kept.tokens[0].scores}
        pieces, shares = [token.token for token in kept.tokens], [token.base_share for token in kept.tokens]
        console.print(heat_map(pieces, scores, shares, colours))
        columns = ("tokens", "whose", "nats", "taught", "text")
        print_table("whose tokens", columns, [*_runs(kept.tokens)], texts=(0, 1, 4))


def _runs(tokens: tuple[TokenCredit, ...]) -> Iterator[tuple[str, str, str, str, str]]:
    """Tokens that follow one another and that one client raised most: which, whose, by how much, what clients taught.

    As the heat map has it, here and on the console; by what each was paid every token of a response looks the same.
    """
    for top, run in groupby(enumerate(tokens, 1), lambda numbered: numbered[1].top_client):
        places, pieces = zip(*run, strict=True)
        numbers = f"{places[0]}–{places[-1]}" if len(places) > 1 else str(places[0])
        nats = "" if top is None else f"{sum(each.scores[top] for each in pieces):+.2f}"
        taught = 1 - sum(each.base_share for each in pieces) / len(pieces)
        yield numbers, top or COMMONS, nats, percent(taught, 0), "".join(each.token for each in pieces)


def _document(traced: BookedTrace, texts: Texts) -> dict[str, Any]:
    return {
        "clients": [
            {
                "client": each.client,
                "name": each.name,
                "credit": str(each.credit),
                "share": each.share,
                "top_in": each.top_in,
            }
            for each in traced.earners
        ],
        "commons": str(traced.commons),
        "responses": [_response_document(each, texts.get(each.receipt.response_id)) for each in traced.responses],
    }


def _response_document(each: TracedResponse, kept: KeptText | None) -> dict[str, Any]:
    receipt = each.receipt
    return {
        "response_id": receipt.response_id,
        "consortium": receipt.consortium,
        "model_sha256": receipt.model_sha256,
        "created_at_us": receipt.created_at_us,
        "tokens": str(receipt.tokens),
        "credit": {account: str(amount) for account, amount in receipt.amounts.items()},
        "is_measured": each.is_measured,
        "reversed_by": each.reversed_by,
        "text": None if kept is None else kept.text,
        "text_tokens": [
            {
                "token": token.token,
                "whose": token.top_client or COMMONS,
                "scores": token.scores,
                "shares": token.shares,
                "base_share": token.base_share,
            }
            for token in (() if kept is None else kept.tokens)
        ],
    }
