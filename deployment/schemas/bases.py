"""What every answer and every request of the operator API is built on. Knows no field."""

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    """What is told: made once, and never changed."""

    model_config = ConfigDict(frozen=True)


class Request(BaseModel):
    """What is asked for: a field that it does not have is refused, and so is a value of another type."""

    model_config = ConfigDict(extra="forbid", strict=True)
