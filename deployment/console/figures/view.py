"""What of a reading somebody may see: for a member its own client alone. The one place where figures are narrowed.

The figures are read by the service, which sees everybody's; a member's other pages are read as that member.
"""

from dataclasses import dataclass, replace

from deployment.console.figures.snapshot import FiguresSnapshot
from deployment.console.rendering import colours
from rewards.credit import COMMONS, MICRO_CREDITS_PER_TOKEN, PENDING
from rewards.views.standing import ConsortiumTotals, Trend


@dataclass(frozen=True)
class ModelFigures:
    """What an account earned of one consortium's model, of all time and less what was reversed.

    Attributes:
        model: the consortium.
        credit: micro-credits.
        share: of the model's tokens.
    """

    model: str
    credit: int
    share: float


@dataclass(frozen=True)
class ClientFigures:
    """What an account earned: a client or the commons, or what is pending.

    Attributes:
        id: of the client, or `commons` or `pending`.
        name: its display name.
        colour: its CSS class.
        consortia: that it is registered in.
        credit: micro-credits of all time, less those reversed.
        open_credit: those of the open period.
        open_share: of the open period's tokens.
        models: those that it is registered for, or earned by.
    """

    id: str
    name: str
    colour: str
    consortia: tuple[str, ...]
    credit: int
    open_credit: int
    open_share: float
    models: tuple[ModelFigures, ...]


@dataclass(frozen=True)
class FiguresView:
    """A reading as a viewer may see it.

    Attributes:
        clients: by credit of the open period, the most first, then by that of all time, then by name.
        commons: what no client earned; None for a member.
        pending: what was not measured; None for a member, and where that is nothing.
        tokens: of the open period, less those reversed; None for a member, as the next three.
        receipts: responses of all time.
        reversals: those that were reversed.
        generated: tokens of all time, less those reversed.
        trend: credit over time of whoever is seen.
        reading: of everybody, for who is no member; None for one.
        previous: the last closed period; None before the first.
        opened_at_us: when that was closed, in microseconds since 1970.
        read_at_us: when all this was read.
        away_since_us: since when the ledger cannot be read; None while it can.
    """

    clients: tuple[ClientFigures, ...]
    commons: ClientFigures | None
    pending: ClientFigures | None
    tokens: int | None
    receipts: int | None
    reversals: int | None
    generated: int | None
    trend: Trend
    reading: FiguresSnapshot | None
    previous: str | None
    opened_at_us: int | None
    read_at_us: int
    away_since_us: int | None

    def client(self, client: str) -> ClientFigures | None:
        """One client's figures; None where there is no such client to be seen."""
        return next((each for each in self.clients if each.id == client), None)


def view_of(reading: FiguresSnapshot, visible: str | None) -> FiguresView:
    """What a viewer may see.

    Args:
        reading: of everybody.
        visible: the only client that the viewer may see; None is all of them.
    """
    standing, names = reading.standing, reading.names
    classes = colours(names, visible)
    clients = [
        _figures(reading, client, name, classes[client]) for client, name in names.items() if visible in (None, client)
    ]
    clients.sort(key=lambda client: (-client.open_credit, -client.credit, client.name))
    totals, is_whole = standing.models.values(), visible is None
    is_pending = bool(standing.open.credit.get(PENDING, 0))
    return FiguresView(
        clients=tuple(clients),
        commons=_figures(reading, COMMONS, "Commons", COMMONS) if is_whole else None,
        pending=_figures(reading, PENDING, "Pending", PENDING) if is_whole and is_pending else None,
        tokens=standing.open.tokens if is_whole else None,
        receipts=sum(each.receipts for each in totals) if is_whole else None,
        reversals=sum(each.reversals for each in totals) if is_whole else None,
        generated=sum(each.tokens - each.reversed_tokens for each in totals) if is_whole else None,
        trend=standing.trend if visible is None else _of(standing.trend, visible),
        reading=reading if is_whole else None,
        previous=standing.open.previous,
        opened_at_us=standing.open.opened_at_us,
        read_at_us=reading.read_at_us,
        away_since_us=reading.away_since_us,
    )


def _of(trend: Trend, account: str) -> Trend:
    buckets = {start_us: {account: credit[account]} for start_us, credit in trend.buckets.items() if account in credit}
    return replace(trend, buckets=buckets)


def _figures(reading: FiguresSnapshot, account: str, name: str, colour: str) -> ClientFigures:
    opened, models = reading.standing.open, reading.standing.models
    consortia = tuple(consortium for consortium, members in reading.clients.items() if account in members)
    by_model = tuple(
        ModelFigures(
            model, _net(totals, account), _share(_net(totals, account), totals.tokens - totals.reversed_tokens)
        )
        for model, totals in models.items()
        if model in consortia or account in totals.credit
    )
    credit = opened.credit.get(account, 0)
    return ClientFigures(
        id=account,
        name=name,
        colour=colour,
        consortia=consortia,
        credit=sum(model.credit for model in by_model),
        open_credit=credit,
        open_share=_share(credit, opened.tokens),
        models=by_model,
    )


def _net(totals: ConsortiumTotals, account: str) -> int:
    return totals.credit.get(account, 0) - totals.reversed_credit.get(account, 0)


def _share(credit: int, tokens: int) -> float:
    return credit / (tokens * MICRO_CREDITS_PER_TOKEN) if tokens else 0.0
