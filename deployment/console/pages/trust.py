"""`/trust`: the signed log, what was kept of it against what it is now, proofs to take away, and the audit on demand.

Whoever does not trust this service checks the same offline; each part says by which command.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Form, Query, Request
from fastapi.responses import HTMLResponse, Response

from deployment.access.permissions import READERS
from deployment.books.books import Books
from deployment.books.calibrations import list_calibrations, list_uncalibrated
from deployment.books.log import latest_checkpoint, prove_consistency, prove_entry, verify_keys
from deployment.books.settlement_table import names_in
from deployment.console.dependencies import TheBooks
from deployment.console.figures.audits import Audits
from deployment.console.rendering import TheViewer, Viewer, redirect, render, sentence
from deployment.errors import ApiError
from deployment.schemas.log import Size
from rewards.credit import canonical_bytes
from rewards.errors import LogError, SignatureError
from rewards.log import proofs, sealer
from rewards.signing.keys import VerifyKey as PublicKey
from rewards.signing.notes import Checkpoint as SignedCheckpoint
from rewards.signing.notes import open_note

router = APIRouter()

_NOTE_LENGTH: Final = 20_000

Asked = Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$")]


def _audits(request: Request) -> Audits:
    audits: Audits = request.app.state.audits
    return audits


TheAudits = Annotated[Audits, Depends(_audits)]


@dataclass(frozen=True)
class Check:
    """One thing that was checked of a checkpoint.

    Attributes:
        holds: whether it does.
        text: what it is, as a sentence.
        extended: where the log was found to extend the checkpoint, the size of that; else None.
    """

    holds: bool
    text: str
    extended: int | None = None


@router.get("/trust")
def trust_page(request: Request, viewer: TheViewer, books: TheBooks) -> HTMLResponse:
    """The latest checkpoint, the keys, what is not sealed yet, how right shares are, and what can be checked here."""
    return _page(request, viewer, books)


@router.post("/trust/consistency")
def consistency(
    request: Request,
    viewer: TheViewer,
    books: TheBooks,
    note: Annotated[str, Form(max_length=_NOTE_LENGTH)] = "",
) -> HTMLResponse:
    """Whether the log extends a checkpoint that the viewer kept."""
    return _page(request, viewer, books, note=note, checks=compare(books, _as_kept(note)))


@router.get("/trust/consistency.json")
def consistency_file(books: TheBooks, first: Size) -> Response:
    """The proof of that, to be checked elsewhere."""
    proof = prove_consistency(books, first)
    return _file(proof.model_dump(mode="json"), f"consistency-{proof.first}-{proof.second}.json")


@router.get("/trust/proof")
def proof_page(
    request: Request, viewer: TheViewer, books: TheBooks, response: Asked = "", client: Asked = ""
) -> HTMLResponse:
    """Whether a client's entry of a response is in the signed books, and the proof of it."""
    shown: dict[str, Any] = {"response": response, "client": client}
    try:
        proof = prove_entry(books, viewer.visible, response, client or None)
    except ApiError as error:
        return _page(request, viewer, books, problem=error.message, status=error.status, **shown)
    return _page(request, viewer, books, proof=proof, **shown)


@router.get("/trust/proof.json")
def proof_file(viewer: TheViewer, books: TheBooks, response: Asked, client: Asked = "") -> Response:
    """That proof, to be checked elsewhere."""
    proof = prove_entry(books, viewer.visible, response, client or None)
    return _file(proof.model_dump(mode="json"), "proof.json")


@router.post("/trust/verify")
def verify(request: Request, viewer: TheViewer, audits: TheAudits) -> Response:
    """Begin an audit of all of the books, unless one is under way."""
    begun = audits.begin(viewer.key.key_id)
    return redirect(
        request, "/trust/verify", None if begun else "An audit was under way already; this is how far it is."
    )


@router.get("/trust/verify")
def verify_page(request: Request, audits: TheAudits) -> HTMLResponse:
    """How far the audit is, and what the last one found."""
    return render(request, "verify.html", running=audits.current, last=audits.last)


def compare(books: Books, note: str) -> list[Check]:
    """What holds of a checkpoint that somebody kept, up to the first thing that does not.

    Args:
        books: whose log it should be of.
        note: the checkpoint, a signed note.
    """
    latest = latest_checkpoint(books)
    if latest is None:
        return [Check(False, "There is no log yet that could extend it: nothing is sealed.")]
    keys = [PublicKey.decode(key.public) for key in verify_keys(books)]
    checks = []
    try:
        text, signer = open_note(note, keys)
        held = SignedCheckpoint.parse(text)
        checks.append(Check(True, f"It is signed by {signer}, which is a key of these books."))
        if held.origin != latest.origin:
            return [*checks, Check(False, f"It is of log {held.origin!r}, and this is {latest.origin!r}.")]
        checks.append(Check(True, f"It is of this log, {held.origin}, and covers its first {held.size:,} leaves."))
        if held.size == 0:
            return [*checks, Check(True, "Any log extends one that has no leaf.")]
        if held.size > latest.size:
            return [*checks, Check(False, f"The log has {latest.size:,} leaves only: some of what it covered is gone.")]
        proof = prove_consistency(books, held.size, latest.size)
        proofs.verify_consistency(proof.model_dump(), note, keys, latest.origin)
    except (SignatureError, LogError, ApiError) as error:
        return [*checks, Check(False, sentence(error))]
    grown = latest.size - held.size
    added = f"{grown:,} leaves were added since" if grown else "nothing was added since"
    return [*checks, Check(True, f"Nothing that it covers was altered or taken away; {added}.", held.size)]


def _page(
    request: Request,
    viewer: Viewer,
    books: Books,
    *,
    note: str = "",
    checks: list[Check] | None = None,
    response: str = "",
    client: str = "",
    proof: Any = None,
    problem: str | None = None,
    status: int = 200,
) -> HTMLResponse:
    is_reader = viewer.key.role in READERS
    with books.ledger.database.read() as connection:
        receipts, events = sealer.count_unsealed(connection)
    audits: Audits = request.app.state.audits
    return render(
        request,
        "trust.html",
        status,
        checkpoint=latest_checkpoint(books),
        keys=verify_keys(books),
        unsealed_receipts=receipts,
        unsealed_events=events,
        note=note,
        checks=checks,
        response=response,
        client=client,
        names=names_in(books.ledger) if is_reader else {},
        proof=proof,
        problem=problem,
        is_reader=is_reader,
        calibrations=list_calibrations(books, viewer.visible)[::-1],
        uncalibrated=list_uncalibrated(books, viewer.visible),
        running=audits.current if is_reader else None,
        last=audits.last if is_reader else None,
    )


def _as_kept(note: str) -> str:
    """A note as it was before a browser's form ended its lines in another way."""
    return note.replace("\r\n", "\n").strip() + "\n"


def _file(document: dict[str, Any], name: str) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(canonical_bytes(document), media_type="application/json", headers=headers)
