"""Texts of finished responses, kept for a while on this disk so that a request that is repeated gets the same answer.

Only where the application sent an `Idempotency-Key`. Pieces of text and the end of a response, no prompts; gone when
their time is over. Knows no HTTP and no ledger.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deployment.replica.messages import Delta, Finished, LikelyToken, Summary, TokenCredit, TokenIds, TokenLogprob
from deployment.retention.files import KeptFiles


@dataclass(frozen=True)
class Replay:
    """A response as it was sent: when it was asked for, its text in the pieces it came in, and its end.

    `logprobs` and `token_ids` are those of each piece, where they were asked for; `others` are the further responses of
    its request.
    """

    created_at_us: int
    pieces: tuple[str, ...]
    end: Finished
    logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()
    others: tuple["Replay", ...] = ()
    token_ids: tuple[TokenIds | None, ...] = ()

    @property
    def deltas(self) -> list[Delta]:
        """The pieces, as they were told."""
        nothing = len(self.pieces)
        columns = self.pieces, self.logprobs or [()] * nothing, self.token_ids or [None] * nothing
        return [Delta(*piece) for piece in zip(*columns, strict=True)]


class Replays:
    """The replays in a folder; usable from several threads.

    Args:
        folder: is made when it is missing; only its owner may enter.
        window_s: how long a response is kept, in seconds. A file whose time is over is deleted soon after.

    Raises:
        SpoolError: the folder cannot be made.
    """

    def __init__(self, folder: Path, window_s: float) -> None:
        self.window_s = window_s
        self._files = KeptFiles(folder, window_s)

    def keep(self, response_id: str, replay: Replay) -> None:
        """Keep a response; durable on return.

        Raises:
            SpoolError: the disk refuses; nothing is kept.
        """
        self._files.keep(response_id, asdict(replay))

    def find(self, response_id: str) -> Replay | None:
        """A response whose time is not over, or None."""
        return self._files.find(response_id, _read)


def _read(fields: Mapping[str, Any]) -> Replay:
    end = fields["end"]
    return Replay(
        created_at_us=fields["created_at_us"],
        pieces=tuple(fields["pieces"]),
        end=Finished(
            **{
                **end,
                "summary": None if end["summary"] is None else Summary(**end["summary"]),
                "tokens": tuple(TokenCredit(**token) for token in end["tokens"]),
                "logprobs": _logprobs(end.get("logprobs", ())),
                "token_ids": _token_ids(end.get("token_ids")),
            }
        ),
        logprobs=tuple(map(_logprobs, fields.get("logprobs", ()))),  # these are not in a file of the first version
        others=tuple(map(_read, fields.get("others", ()))),
        token_ids=tuple(map(_token_ids, fields.get("token_ids", ()))),
    )


def _token_ids(told: Mapping[str, Any] | None) -> TokenIds | None:
    if told is None:
        return None
    return TokenIds(tuple(told["ids"]), None if told["prompt"] is None else tuple(told["prompt"]))


def _logprobs(tokens: Sequence[Mapping[str, Any]]) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            token["token"],
            tuple(token["bytes"]),
            token["logprob"],
            token.get("token_id"),
            tuple(
                LikelyToken(each["token"], tuple(each["bytes"]), each["logprob"], each.get("token_id"))
                for each in token["top"]
            ),
        )
        for token in tokens
    )
