"""What a document of ours has in common with every other: it has the fields that we know, and stays as it was read."""

from pydantic import BaseModel, ConfigDict


class StrictDocument(BaseModel):
    """A document whose fields are all known and whose numbers are finite; frozen, as whoever reads it goes by it.

    Raises:
        pydantic.ValidationError: on creation, by the name of each field that is unknown, missing or of a wrong kind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
