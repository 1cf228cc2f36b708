"""`/rounds`: which round of training was published when, and who contributed what to it. Reads only."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from deployment.api.dependencies import TheBooks, Visible
from deployment.api.paging import Limit, Listing, Paging, first_of
from deployment.books.rounds import list_publications, read_rounds
from deployment.http.cursors import place_of
from deployment.schemas.errors import failures
from deployment.schemas.fields import Count, Name
from deployment.schemas.rounds import Publication, RoundRecord

router = APIRouter(tags=["rounds"])
_LIST = "rounds"


class PublicationFilters(Paging):
    """Which publications are meant, and which page of them."""

    consortium: Name | None = Field(None, description="Of this consortium alone.")


class RoundFilters(BaseModel):
    """Which rounds of a bundle are meant."""

    model_config = ConfigDict(extra="forbid")

    limit: Limit = 100
    before: Count | None = Field(None, description="Rounds before this one alone; the last ones without it.")


@router.get("/rounds", summary="Publications of bundles, oldest first")
def rounds(books: TheBooks, visible: Visible, filters: Annotated[PublicationFilters, Query()]) -> Listing[Publication]:
    """Every bundle that was put in service, with the one that is served now. A member sees those of its consortia."""
    (after,) = place_of(_LIST, filters.cursor, int) or (0,)
    rest = [each for each in list_publications(books, visible, filters.consortium) if each.id > int(after)]
    shown, cursor = first_of(_LIST, rest, filters.limit, lambda publication: (publication.id,))
    return Listing(data=list(shown), next_cursor=cursor)


@router.get("/rounds/{publication}", summary="Who contributed what to a bundle's rounds", responses=failures(404))
def recorded_rounds(
    books: TheBooks,
    visible: Visible,
    publication: Annotated[Count, Path(description="The id of a publication.")],
    filters: Annotated[RoundFilters, Query()],
) -> RoundRecord:
    """Weights, norms, signatures and what the server did, the last round first. A member sees its own updates alone.

    The bundle is read from where it was published; `problem` says so where it is not there any more.
    """
    return read_rounds(books, visible, publication, before=filters.before, limit=filters.limit)
