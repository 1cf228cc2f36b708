"""What a spool holds for the ledger: finished receipts, and the progress of streams, as records and back.

Knows the receipt and its fields; knows no model, so whoever starts without one can still book what is here.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from deployment.spool.lines import Record
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN, Receipt, pending_receipt
from rewards.errors import CreditError
from rewards.sampled_credit.rule import SamplingRule

UNATTRIBUTED = "none"
"""Method and version of a receipt for tokens that no model could attribute any more."""


RECOVERED: Final[Mapping[str, Any]] = {"cut": True, "recovered": True}
"""What a receipt says of a stream that another process made and this one booked."""


@dataclass(frozen=True)
class ProgressRecord:
    """A response without its receipt: what is needed to score and book its tokens, should somebody else have to.

    `created_at_us` is when it was asked for, in microseconds since 1970; `duration_us` how long it has taken since.
    `finish_reason` is why it ended, and None of one that is on its way.
    """

    response_id: str
    application: str
    created_at_us: int
    consortium: str
    model_sha256: str
    prompt_ids: tuple[int, ...] = field(repr=False)
    token_ids: tuple[int, ...] = field(repr=False)
    temperature: float
    duration_us: int
    finish_reason: Literal["stop", "length"] | None = None

    def record(self) -> Record:
        """The form in which it is spooled."""
        return {"id": self.response_id, "kind": "progress", "progress": asdict(self)}

    @classmethod
    def from_record(cls, record: Record) -> "ProgressRecord":
        """The progress that a record of that kind holds.

        Raises:
            CreditError: it holds something else.
        """
        try:
            # From JSON, where strict types still know a list as a tuple. What another version wrote must be set aside
            # here: further on it would stop whoever takes it over, one replica after the other.
            return _PROGRESS.validate_json(json.dumps(_fields(record, "progress")), strict=True)
        except (ValidationError, TypeError) as error:
            why = _problems(error) if isinstance(error, ValidationError) else type(error).__name__
            raise CreditError(f"record {record['id']!r} is no progress of a stream: {why}") from None


_PROGRESS = TypeAdapter(ProgressRecord)


def record_of(receipt: Receipt) -> Record:
    """The form in which a receipt is spooled."""
    return {"id": receipt.response_id, "kind": "receipt", "receipt": asdict(receipt)}


def receipt_from(record: Record) -> Receipt:
    """The receipt that a record of that kind holds, equal to the one that was spooled, payload hash included.

    Raises:
        CreditError: it holds something else.
    """
    try:
        return Receipt(**_fields(record, "receipt"))
    except (AttributeError, TypeError, ValueError) as error:
        raise CreditError(f"record {record['id']!r} is no receipt: {error}") from error


def unscored_receipt(
    progress: ProgressRecord, rule: SamplingRule, why: str, marks: Mapping[str, Any] = RECOVERED
) -> Receipt:
    """The receipt of tokens without a score: of a response that is not to be measured, else of one that cannot be.

    The first waits as pending for its period; the other is all the commons'.

    Args:
        progress: the tokens.
        rule: whether they are to be measured.
        why: why they cannot be, where they are.
        marks: what else the receipt says, as that of one that could be scored would.

    Raises:
        CreditError: there are no tokens, or a field cannot be booked.
    """
    measurement = {**marks, **rule.evidence(progress.response_id)}
    tokens = len(progress.token_ids)
    if not rule.is_measured(progress.response_id):
        return pending_receipt(
            response_id=progress.response_id,
            created_at_us=progress.created_at_us,
            application=progress.application,
            consortium=progress.consortium,
            model_sha256=progress.model_sha256,
            tokens=tokens,
            measurement=measurement,
            duration_us=progress.duration_us,
        )
    return Receipt(
        response_id=progress.response_id,
        created_at_us=progress.created_at_us,
        application=progress.application,
        consortium=progress.consortium,
        model_sha256=progress.model_sha256,
        method=UNATTRIBUTED,
        settings={},
        version=UNATTRIBUTED,
        tokens=tokens,
        amounts={COMMONS: tokens * MICRO_CREDITS_PER_TOKEN},
        measurement={"base_share": 1.0, **measurement, "unattributed": why},
        duration_us=progress.duration_us,
    )


def _problems(error: ValidationError) -> str:
    """What is wrong, without what was given: there may be tokens in it, and this is kept and logged."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in problems[:3])


def _fields(record: Record, name: str) -> dict[str, Any]:
    fields = record.get(name)
    if not isinstance(fields, Mapping):
        raise CreditError(f"record {record['id']!r} holds no {name}")
    return dict(fields)
