"""Which round of training was published when, and what its bundle records, for whoever may see it. Loads no model.

A member sees the publications of its consortia, and of the rounds what the server did and what is its own.
"""

from pathlib import Path

from deployment.books.books import Books
from deployment.errors import NotFoundError, PartLostError
from deployment.members import round_record
from deployment.schemas.rounds import Publication, Round, RoundAbsence, RoundRecord, RoundUpdate
from rewards.store import publications


def list_publications(books: Books, visible: str | None, consortium: str | None = None) -> list[Publication]:
    """Every bundle that was put in service, oldest first.

    Args:
        books: where that is written.
        visible: the only client of whose consortia it may be told; None is all of them.
        consortium: of this one alone.
    """
    listed = [
        _publication(name, each, publications.standing_since(told), visible)
        for name, told in _histories(books, visible, consortium).items()
        for each in told
    ]
    return sorted(listed, key=lambda each: each.id)


def read_rounds(
    books: Books, visible: str | None, publication_id: int, *, before: int | None = None, limit: int
) -> RoundRecord:
    """What the bundle of a publication records of its rounds, the last first; or why that cannot be read now.

    Args:
        books: where publications are written.
        visible: the only client whose updates may be shown; None is everybody.
        publication_id: of which publication.
        before: rounds before this one alone; None begins with the last.
        limit: how many rounds at most.

    Raises:
        NotFoundError: there is no such publication, or none for whoever may see `visible` alone.
    """
    for name, told in _histories(books, visible, None).items():
        for each in told:
            if each.sequence == publication_id:
                publication = _publication(name, each, publications.standing_since(told), visible)
                try:
                    record = round_record.read_record(
                        Path(each.bundle), each.manifest_sha256, before=before, limit=limit
                    )
                except PartLostError as error:
                    return _record(publication, str(error))
                return _record_for(visible, publication, record)
    raise NotFoundError(f"there is no publication {publication_id}", param="publication", code="publication_not_found")


def _histories(books: Books, visible: str | None, consortium: str | None) -> dict[str, list[publications.Publication]]:
    names = [
        name
        for name, members in books.ledger.clients().items()
        if (visible is None or visible in members) and consortium in (None, name)
    ]
    with books.ledger.database.read() as connection:
        return {name: publications.history(connection, name) for name in names}


def _publication(
    consortium: str,
    publication: publications.Publication,
    answering: tuple[publications.Publication, int] | None,
    visible: str | None,
) -> Publication:
    is_served = answering is not None and answering[0] == publication
    return Publication(
        id=publication.sequence,
        consortium=consortium,
        round=publication.round,
        model_sha256=publication.model_sha256,
        manifest_sha256=publication.manifest_sha256,
        bundle=publication.bundle if visible is None else None,
        published_at_us=publication.at_us,
        published_by=publication.actor,
        withdrawn_at_us=publication.withdrawn_at_us,
        withdrawn_by=publication.withdrawn_by,
        served_since_us=answering[1] if answering is not None and is_served else None,
    )


def _record(publication: Publication, problem: str) -> RoundRecord:
    return RoundRecord(
        publication=publication,
        problem=problem,
        recorded=None,
        start_norm=None,
        residual_norm=None,
        defences=None,
        unsigned={},
        absent=[],
        rounds=[],
        next_before=None,
    )


def _record_for(visible: str | None, publication: Publication, record: round_record.RoundRecord) -> RoundRecord:
    earliest = record.rounds[-1].number if record.rounds else 1
    return RoundRecord(
        publication=publication,
        problem=None,
        recorded=record.count,
        start_norm=record.start_norm,
        residual_norm=record.residual_norm,
        defences=None if record.defences is None else dict(record.defences),
        unsigned={client: count for client, count in record.unsigned.items() if visible in (None, client)},
        absent=[client for client in record.absent if visible in (None, client)],
        rounds=[_round_for(visible, each) for each in record.rounds],
        next_before=earliest if earliest > 1 else None,
    )


def _round_for(visible: str | None, each: round_record.RecordedRound) -> Round:
    return Round(
        round=each.number,
        before_sha256=each.before_sha256,
        after_sha256=each.after_sha256,
        residual_norm=each.residual_norm,
        residual_ratio=each.residual_ratio if visible is None else None,
        updates=[
            RoundUpdate.model_validate(vars(update))
            for update in each.contributions
            if visible in (None, update.client)
        ],
        missing=[
            RoundAbsence.model_validate(vars(absence)) for absence in each.missing if visible in (None, absence.client)
        ],
    )
