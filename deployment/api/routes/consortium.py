"""`/consortium`: the consortia of the ledger, their models that answered, and the ledger's own figures. Reads only."""

from fastapi import APIRouter

from deployment.api.dependencies import TheBooks, Visible
from deployment.schemas.credit import Consortia, Consortium, Model
from rewards import periods
from rewards.views import oldest_first

router = APIRouter(tags=["consortium"])


@router.get("/consortium", summary="The consortia and their models")
def consortium(books: TheBooks, visible: Visible) -> Consortia:
    """Every consortium with its clients and the models that answered, as the ledger knows them.

    A member's key sees the consortia that its client is in, with itself as their only client, and no figures of all.
    """
    registered = books.ledger.clients()
    with books.ledger.database.read(member=visible) as connection:
        answered = oldest_first.models(connection)
    closed = periods.all(books.ledger)
    sees_all = visible is None
    models: dict[str, list[Model]] = {}
    for each in answered:
        shown = vars(each) if sees_all else {**vars(each), "receipts": None, "tokens": None}
        models.setdefault(each.consortium, []).append(Model.model_validate(shown))
    return Consortia(
        data=[
            Consortium(
                id=name,
                clients=[client for client in members if visible in (None, client)],
                models=models.get(name, []),
            )
            for name, members in registered.items()
            if sees_all or visible in members
        ],
        receipts=sum(each.receipts for each in answered) if sees_all else None,
        tokens=sum(each.tokens for each in answered) if sees_all else None,
        periods=len(closed),
        last_period=closed[-1].name if closed else None,
    )
