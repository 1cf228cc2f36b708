"""The board *Contribution and payouts*: who earns what, what the open period would pay, and what was corrected."""

from typing import Final

from deployment.metrics.catalogue import series
from deployment.metrics.dashboards.board import Band, board
from deployment.metrics.dashboards.panels import WHOLE, figure, graph, listing
from deployment.metrics.dashboards.queries import Query, age, once, once_per_second, select

_DAY_S: Final = 86_400
_TOKENS_PER_SECOND: Final = "suffix: tokens/s"
_NO_PREVIEW: Final = "none: no policy is set, or a draft stands"
_SHARES: Final = once("protoken_share_ratio")
_POOL: Final = once("protoken_pool_preview_minor_units")
_PREVIEW: Final = once("protoken_payout_preview_minor_units", "client")


def contribution() -> str:
    """The board's JSON document."""
    return board(
        "protoken-contribution",
        "ProToken: contribution and payouts",
        "Who earned what: credit, shares, the open period's payouts, and what was held or reversed.",
        (_now(), _credit(), _shares(), _payouts(), _forecast(), _rounds(), _corrections()),
        (("client", "protoken_attributed_tokens_total"), ("model", "protoken_generated_tokens_total")),
    )


def _now() -> Band:
    tokens = figure(
        "Tokens of the open period",
        _help("protoken_open_period_tokens"),
        WHOLE,
        Query(once("protoken_open_period_tokens"), "tokens"),
    )
    since = figure(
        "Period open for",
        "How long ago the last period was closed.",
        "s",
        Query(age("protoken_open_period_start_timestamp_seconds"), "open for"),
        empty="no period closed yet",
    )
    commons = figure(
        "Commons now",
        _help("protoken_commons_share_ratio"),
        "percentunit",
        Query(once("protoken_commons_share_ratio"), "commons"),
        decimals=1,
    )
    top = figure(
        "Largest client now",
        "The client with the largest part of what all clients earned in the open period, and that part.",
        "percentunit",
        Query(f"topk(1, {_SHARES} / on (job) group_left () (sum by (job) ({_SHARES}) > 0))", "{{client}}"),
        names=True,
        decimals=1,
        steps=((0.5, "orange"), (0.75, "red")),
    )
    pool = figure(
        "Pool now, minor units",
        _help("protoken_pool_preview_minor_units"),
        WHOLE,
        Query(_POOL, "{{currency}}"),
        names=True,
        empty=_NO_PREVIEW,
    )
    held = figure(
        "Holds in force",
        _help("protoken_holds"),
        WHOLE,
        Query(f"sum({once('protoken_holds')})", "holds"),
        steps=((1, "orange"),),
        empty="0",
    )
    panels = (tokens, since, commons, top, pool, held)
    return Band("Now", ((4, tuple((panel, 4) for panel in panels)),))


def _credit() -> Band:
    rate = graph(
        "Credit per client",
        "Tokens credited to each client per second; what is reversed later is not taken off here.",
        _TOKENS_PER_SECOND,
        Query(
            f"sum by (client) ({once_per_second('protoken_attributed_tokens_total', 'client', 'model')})", "{{client}}"
        ),
        stacked=True,
    )
    net = graph(
        "Credit per client since the ledger began",
        "Tokens credited to each client in all, less those of reversed receipts.",
        "short",
        Query(_net(), "{{client}}"),
    )
    return Band("Credit", ((10, ((rate, 12), (net, 12))),))


def _shares() -> Band:
    shares = graph(
        "Shares of the open period",
        "Each client's part of the open period's credit, the commons' part, and what is pending as it was not "
        "measured; all of them sum to 1.",
        "percentunit",
        Query(once("protoken_share_ratio", "client"), "{{client}}"),
        Query(once("protoken_commons_share_ratio"), "commons"),
        Query(once("protoken_pending_share_ratio"), "pending"),
        stacked=True,
    )
    concentration = graph(
        "Concentration, 0 to 1",
        "Herfindahl index of what clients earned in the open period (1 / number of clients when all earn alike, 1 when "
        "one earns all), the largest client's part of it, and the part of all credit that no client earned.",
        "none",
        Query(f"sum by (job) (({_SHARES}) ^ 2) / (sum by (job) ({_SHARES}) > 0) ^ 2", "Herfindahl index"),
        Query(_largest(), "largest client"),
        Query(once("protoken_commons_share_ratio"), "commons"),
        steps=((0.5, "orange"),),
        up_to=1,
    )
    now = listing(
        "Clients now",
        "Each client's share of the open period and its credit in all, less what was reversed.",
        Query(_with_name(_net()), "credit"),
        Query(_with_name(f"max by (client) ({once('protoken_share_ratio', 'client')})"), "share"),
        columns=(
            ("name", "client", ""),
            ("client", "id", ""),
            ("credit", "credit in all, tokens", WHOLE),
            ("share", "share", "percentunit"),
        ),
    )
    return Band("Shares", ((10, ((shares, 9), (concentration, 8), (now, 7))),))


def _payouts() -> Band:
    pool = graph(
        "Payable pool of the open period",
        _help("protoken_pool_preview_minor_units") + _in_minor_units(),
        WHOLE,
        Query(_POOL, "{{currency}}"),
        empty=_NO_PREVIEW,
    )
    preview = graph(
        "Payout preview per client",
        _help("protoken_payout_preview_minor_units") + _in_minor_units(),
        WHOLE,
        Query(_PREVIEW, "{{client}} {{currency}}"),
        empty=_NO_PREVIEW,
        stacked=True,
    )
    final = listing(
        "Payouts per client, minor units",
        "What a client was awarded in periods that are final or paid, and what the open period would add to it now.",
        Query(f"sum by (client, currency) ({once('protoken_final_payout_minor_units_total', 'client')})", "final"),
        Query(f"sum by (client, currency) ({_PREVIEW})", "preview"),
        columns=(
            ("client", "client", ""),
            ("currency", "currency", ""),
            ("preview", "preview", WHOLE),
            ("final", "final", WHOLE),
        ),
        empty="no final period yet",
    )
    return Band("Payouts", ((10, ((pool, 8), (preview, 9), (final, 7))),))


def _forecast() -> Band:
    credit = graph(
        "Credit in the next 24 hours, at the present rate",
        "Tokens that each client will be credited in 24 hours if it earns as it did in the last hour.",
        "short",
        Query(f"{_DAY_S} * sum by (client) ({_recent_earnings()})", "{{client}}"),
        stacked=True,
    )
    pool = graph(
        "Pool in 24 hours, at the present rate",
        "The open period's pool if it grows for 24 hours as it did in the last hour; a fixed pool stays. For an hour "
        "after a close it is only what the pool is now." + _in_minor_units(),
        WHOLE,
        Query(f"{_POOL} + {_DAY_S} * clamp_min({_growth()}, 0)", "{{currency}}"),
        empty=_NO_PREVIEW,
    )
    return Band("Forecast", ((9, ((credit, 12), (pool, 12))),))


def _rounds() -> Band:
    now = listing(
        "Rounds now",
        "Which round of training is published for each model, since when, what the server did in it besides averaging "
        "as a part of what the clients changed, and how many of its bundle's updates nobody signed.",
        Query(f"max by (model) ({once('protoken_published_round', 'model')})", "round"),
        Query(f"time() - max by (model) ({once('protoken_published_timestamp_seconds', 'model')})", "since"),
        Query(f"max by (model) ({once('protoken_published_residual_ratio', 'model')})", "residual"),
        Query(f"max by (model) ({once('protoken_published_unsigned_updates', 'model')})", "unsigned"),
        columns=(
            ("model", "model", ""),
            ("round", "round", WHOLE),
            ("residual", "server's residual", "percentunit"),
            ("unsigned", "unsigned updates", WHOLE),
            ("since", "published for", "s"),
        ),
        empty="nothing is published",
    )
    published = graph(
        "Round published",
        _help("protoken_published_round"),
        WHOLE,
        Query(f"max by (model) ({once('protoken_published_round', 'model')})", "{{model}}"),
        empty="nothing is published",
    )
    return Band("Rounds of training", ((8, ((published, 12), (now, 12))),))


def _corrections() -> Band:
    periods = graph("Periods by state", _help("protoken_periods"), WHOLE, Query(once("protoken_periods"), "{{state}}"))
    holds = graph("Holds in force by scope", _help("protoken_holds"), WHOLE, Query(once("protoken_holds"), "{{scope}}"))
    reversals = graph(
        "Reversed receipts in all",
        _help("protoken_reversals_total"),
        WHOLE,
        Query(f"sum by (model) ({once('protoken_reversals_total', 'model')})", "{{model}}"),
    )
    tokens = graph(
        "Credit reversed per client",
        "Tokens of reversed receipts that each client had been credited, and all tokens of these receipts, which "
        "includes the commons' part.",
        "short",
        Query(f"sum by (client) ({once('protoken_reversed_client_tokens_total', 'client', 'model')})", "{{client}}"),
        Query(f"sum({once('protoken_reversed_tokens_total', 'model')})", "all, commons included"),
    )
    return Band("Periods, holds and reversals", ((8, ((periods, 6), (holds, 6), (reversals, 6), (tokens, 6))),))


def _help(name: str) -> str:
    return series(name).help


def _in_minor_units() -> str:
    return " In minor units of the currency, such as cents."


def _net() -> str:
    """Tokens of each client in all, less the reversed ones."""
    earned = select("protoken_attributed_tokens_total", "client", "model")
    reversed_ = select("protoken_reversed_client_tokens_total", "client", "model")
    return f"sum by (client) (max by (job, client, model) ({earned} - {reversed_}))"


def _with_name(by_client: str) -> str:
    """The same with what people call each client; of two names, as two ledgers may have them, one."""
    names = f"max by (client, name) ({select('protoken_client_info', 'client')})"
    return f"({by_client}) * on (client) group_left (name) topk by (client) (1, {names})"


def _largest() -> str:
    return f"max by (job) ({_SHARES}) / (sum by (job) ({_SHARES}) > 0)"


def _recent_earnings() -> str:
    """Tokens per second of each client and model in the last hour: a forecast does not depend on the zoom."""
    earned = select("protoken_attributed_tokens_total", "client", "model")
    return f"max by (job, client, model) (rate({earned}[1h]))"


def _growth() -> str:
    """Minor units per second by which the pool grew in the last hour."""
    return f"max by (job, currency) (deriv({select('protoken_pool_preview_minor_units')}[1h]))"
