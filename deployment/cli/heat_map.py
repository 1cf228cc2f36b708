"""The heat map of a response in a terminal: each token in the colour of the client that taught it, and the legend.

Does not know where tokens and scores came from.
"""

from collections.abc import Mapping, Sequence

from rich.text import Text

from rewards.credit import top_client
from rewards.files.plain_text import many_lines, one_line

_PALETTE = ("deep_sky_blue1", "orange1", "spring_green2", "orchid1", "yellow1", "turquoise2", "light_coral", "tan")
_COMMONS_STYLE = "grey62"
_HALF_TINT = 0.5  # below this part of a token the clients' colour is not filled, only written


def tint(clients: Sequence[str]) -> dict[str, str]:
    """A colour for each client, in the order given."""
    return {client: _PALETTE[index % len(_PALETTE)] for index, client in enumerate(clients)}


def legend(colours: Mapping[str, str]) -> Text:
    """Which colour is whose."""
    text = Text("  ")
    for client, colour in colours.items():
        text.append(f" {one_line(client)} ", style=f"black on {colour}")
        text.append(" ")
    return text.append("commons", style=_COMMONS_STYLE).append("  (filled: more than half of the token was taught)")


def heat_map(
    tokens: Sequence[str],
    scores: Mapping[str, Sequence[float]],
    base_shares: Sequence[float],
    colours: Mapping[str, str],
) -> Text:
    """The text, each token in its top client's colour: filled where clients taught most of it, grey where none did."""
    text = Text()
    for index, token in enumerate(map(many_lines, tokens)):
        top = top_client({client: of_tokens[index] for client, of_tokens in scores.items()}, base_shares[index])
        if top is None:
            text.append(token, style=_COMMONS_STYLE)
        elif 1.0 - base_shares[index] < _HALF_TINT:
            text.append(token, style=colours[top])
        else:
            text.append(token, style=f"black on {colours[top]}")
    return text
