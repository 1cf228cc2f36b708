"""The heat map of a response: whose each token is, and how much of it was taught. Knows kept texts, and no page.

Colour follows the scores, which tell tokens apart; the shares within a token are in the proportions of the response.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from deployment.console.rendering import COLOURS
from deployment.replica.messages import TokenCredit
from rewards.credit import COMMONS

LEVELS = 5
"""How many strengths of a colour there are."""
MOST_PARTS = 20_000
"""How many parts a map tells of in all, so that a page stays some megabytes."""
FEWEST_PARTS = 5
"""How many of a token it tells of at least."""

Kind = Literal["text", "newline", "silent"]


@dataclass(frozen=True)
class Part:
    """A client's part in a token: its signed score in nats, and its share of the token's credit."""

    client: str
    score: float
    share: float


@dataclass(frozen=True)
class Token:
    """One token as it is drawn.

    Attributes:
        number: from 1.
        text: what it adds to the text.
        kind: "silent" when that is nothing, as of bytes of a character that a later token completes; "newline"
            when it is nothing but the end of lines.
        top: the client with the highest score, or the commons when no client raised the token's probability.
        level: from 1 to LEVELS by what was taught of it; 0 for the commons.
        base_share: what of its credit no client earned.
        parts: every client's, the highest score first; of very many only those with the highest.
        left_out: how many clients are not among the parts.
    """

    number: int
    text: str
    kind: Kind
    top: str
    level: int
    base_share: float
    parts: tuple[Part, ...]
    left_out: int

    @property
    def taught(self) -> float:
        """What of its credit the clients earned together."""
        return 1.0 - self.base_share


@dataclass(frozen=True)
class HeatMap:
    """The tokens of a response.

    Attributes:
        tokens: in their order.
        clients: of whom the scores speak, in the order of the bundle.
        on_top: how many tokens each account is on top of; accounts without one are not in it.
    """

    tokens: tuple[Token, ...]
    clients: tuple[str, ...]
    on_top: Mapping[str, int]

    @property
    def text(self) -> str:
        """The texts of the tokens, one after the other."""
        return "".join(token.text for token in self.tokens)


def heat_map(credits_: Sequence[TokenCredit]) -> HeatMap:
    """The map of a response's tokens; an empty one where none are kept."""
    most = max(FEWEST_PARTS, MOST_PARTS // max(1, len(credits_)))
    tokens = tuple(_token(number, each, most) for number, each in enumerate(credits_, 1))
    clients = tuple(dict.fromkeys(client for each in credits_ for client in each.shares))
    return HeatMap(tokens, clients, dict(Counter(token.top for token in tokens).most_common()))


def twins(clients: Iterable[str]) -> frozenset[str]:
    """The clients that have an earlier one's colour again, which the map tells apart by another line below the token.

    Args:
        clients: every client's id in the order of registration.
    """
    return frozenset(list(clients)[COLOURS:])


def _token(number: int, credit: TokenCredit, most: int) -> Token:
    parts = [Part(client, credit.scores.get(client, 0.0), share) for client, share in credit.shares.items()]
    parts.sort(key=lambda part: -part.score)
    shown = tuple(parts[:most])
    taught = 1.0 - credit.base_share
    top = credit.top_client
    return Token(
        number=number,
        text=credit.token,
        kind=_kind(credit.token),
        top=top or COMMONS,
        level=0 if top is None else min(LEVELS, 1 + int(taught * LEVELS)),
        base_share=credit.base_share,
        parts=shown,
        left_out=len(parts) - len(shown),
    )


def _kind(text: str) -> Kind:
    if not text:
        return "silent"
    return "text" if text.strip("\r\n") else "newline"
