"""Texts of finished responses, kept for the console where the service was told to: off unless `texts` names a folder.

What a response said, and what each client earned of it and of each token; no prompts. On this disk alone, never in the
ledger, and gone when its time is over. Knows no HTTP and no page.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployment.replica.messages import Finished, Job, TokenCredit
from deployment.retention.files import KeptFiles, find_kept


@dataclass(frozen=True)
class KeptText:
    """The text of a response and whose it is.

    Attributes:
        response_id: as the application was told it.
        application: the id of the key that asked.
        model: the consortium that answered.
        created_at_us: when it was asked for, in microseconds since 1970.
        text: as it was sent.
        shares: each client's share of the response; they sum to 1 with `base_share`.
        base_share: what no client earned.
        tokens: each token's part, where the request asked for it; else none.
    """

    response_id: str
    application: str
    model: str
    created_at_us: int
    text: str
    shares: Mapping[str, float]
    base_share: float
    tokens: tuple[TokenCredit, ...]

    @classmethod
    def of(cls, job: Job, model: str, text: str, end: Finished) -> "KeptText":
        """What is kept of a job's response that ended; its end tells the credit."""
        assert end.summary is not None, "where texts are kept every end waits for the score"
        return cls(
            response_id=job.response_id,
            application=job.application,
            model=model,
            created_at_us=job.created_at_us,
            text=text,
            shares=dict(end.summary.shares),
            base_share=end.summary.base_share,
            tokens=end.tokens,
        )


class Texts:
    """The texts in a folder; usable from several threads.

    Args:
        folder: is made when it is missing; only its owner may enter.
        window_s: how long a text is kept, in seconds. A file whose time is over is deleted within an hour.

    Raises:
        SpoolError: the folder cannot be made.
    """

    def __init__(self, folder: Path, window_s: float) -> None:
        self.window_s = window_s
        self._files = KeptFiles(folder, window_s)

    def keep(self, text: KeptText) -> None:
        """Keep a text; durable on return.

        Raises:
            SpoolError: the disk refuses; nothing is kept.
        """
        self._files.keep(text.response_id, asdict(text))

    def find(self, response_id: str) -> KeptText | None:
        """A text whose time is not over; None where there is none, whatever `response_id` is."""
        return self._files.find(response_id, _read)


def find_text(folder: Path, response_id: str) -> KeptText | None:
    """A text that lies in the folder of a service, which may run or not: reads alone, whenever its time ends."""
    return find_kept(folder, math.inf, response_id, _read)


def _read(fields: Mapping[str, Any]) -> KeptText:
    return KeptText(**{**fields, "tokens": tuple(TokenCredit(**token) for token in fields["tokens"])})
