"""Pages from templates: what every page knows, how figures are written, and who looks. Holds no rule of access."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from deployment.access.gate import caller
from deployment.access.permissions import visible_to
from deployment.console.charts import svg
from rewards import money
from rewards.credit import COMMONS, PENDING
from rewards.files.plain_text import many_lines
from rewards.keys.rules import Key
from rewards.moments import date_of
from rewards.store.reasons import MOST_CHARACTERS

HERE: Final = "/console"
FLASH: Final = "protoken_flash"
COLOURS: Final = 12
"""How many colours there are for clients; the thirteenth has the first one's again."""
PAGES: Final = (
    ("/", "Overview"),
    ("/clients", "Clients"),
    ("/responses", "Responses"),
    ("/periods", "Periods"),
    ("/statements", "Statements"),
    ("/rounds", "Rounds"),
    ("/trust", "Trust"),
    ("/playground", "Playground"),
)
_CREDIT_DIGITS = 6  # a micro-credit is a millionth of a token
_FINE_DIGITS = 4  # of them, set back where all six are shown
_JUST_NOW_S = 3
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
_STATIC = Path(__file__).with_name("static")


@dataclass(frozen=True)
class Viewer:
    """Who looks at a page.

    Attributes:
        key: of the session.
        csrf: the token that its forms carry.
    """

    key: Key
    csrf: str

    @property
    def visible(self) -> str | None:
        """The one client whose figures may be shown, for a member; None for whoever may see all of them.

        An application sees no figures at all: asked for one, this fails.
        """
        return visible_to(self.key)


def _viewer(request: Request) -> Viewer:
    return Viewer(caller(request), request.state.csrf)


TheViewer = Annotated[Viewer, Depends(_viewer)]


def render(request: Request, name: str, status: int = 200, **context: Any) -> HTMLResponse:
    """A page of a template, with what every page needs beside what it is given.

    Args:
        request: whose answer this is; signed in or not.
        name: of the template, as in "overview.html".
        status: of the answer.
        context: what the template is given besides `key`, `csrf`, `nav`, `path`, `flash`, `home`, `static` and the
            clients' `colours`, which are looked up once, however many tokens a page has.
    """
    state, sessions = request.state, request.app.state.sessions
    key: Key | None = getattr(state, "key", None)
    path = request.url.path.removeprefix(HERE) or "/"
    flash = sessions.read_flash(request.cookies.get(FLASH, ""))
    page = _ENVIRONMENT.get_template(name).render(
        key=key,
        csrf=getattr(state, "csrf", ""),
        nav=[] if key is None else request.app.state.navigation(key.role),
        path=path,
        flash=flash,
        home=HERE,
        static=_static,
        request=request,
        colours=cache(lambda: colours(request.app.state.figures.names(), None if key is None else key.client)),
        **context,
    )
    response = HTMLResponse(page, status)
    if flash is not None:
        response.delete_cookie(FLASH, path=HERE)
    return response


def redirect(request: Request, path: str, flash: str | None = None) -> RedirectResponse:
    """The way to another page of the console after a form was accepted, with a text for that page to show once.

    Args:
        request: whose answer this is.
        path: within the console, as in "/periods".
        flash: a sentence, or nothing.
    """
    response = RedirectResponse(HERE + path, status_code=303)
    if flash is not None:
        signed = request.app.state.sessions.flash(flash)
        response.set_cookie(FLASH, signed, path=HERE, httponly=True, samesite="strict", max_age=60)
    return response


def sentence(error: Exception) -> str:
    """What an error says, as a sentence of a page."""
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."


def credit(micro: int) -> str:
    """Micro-credits as tokens, exact, with at least two digits after the point."""
    whole, _, digits = tokens(micro).partition(".")
    return f"{whole}.{digits.rstrip('0').ljust(2, '0')}"


def tokens(micro: int) -> str:
    """Micro-credits as tokens with all six digits, so that the points of a column stand under one another."""
    return money.write_readable(micro, "", _CREDIT_DIGITS)


def exact(micro: int) -> Markup:
    """Micro-credits as tokens with all six digits, the last four of them set back: for columns that stand in line."""
    text = tokens(micro)
    return Markup('{}<span class="fine">{}</span>').format(text[:-_FINE_DIGITS], text[-_FINE_DIGITS:])


def whole_number(count: int) -> str:
    """A whole number with its thousands apart."""
    return money.write_readable(count, "", 0)


def percent(share: float) -> str:
    """A share as a percentage with one digit; what is more than nothing does not become 0."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    return f"{100 * share:.1f} %".replace("-", "−")


def moment(at_us: int | None) -> Markup:
    """Microseconds since 1970 as a `<time>` in UTC, to the second; a dash for no moment."""
    if at_us is None:
        return Markup("—")
    at = date_of(at_us)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        at.isoformat(timespec="microseconds"), at.strftime("%Y-%m-%d %H:%M:%S")
    )


def ago(at_us: int, now: int) -> Markup:
    """How long a moment is over, in words, as a `<time>`; both in microseconds since 1970."""
    seconds = max(0, (now - at_us) // 1_000_000)
    size, unit = next(each for each in _UNITS if seconds >= each[0] or each[0] == 1)
    count = seconds // size
    words = "just now" if seconds < _JUST_NOW_S else f"{count} {unit}{'' if count == 1 else 's'} ago"
    at = date_of(at_us).isoformat(timespec="microseconds")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(at, words)


def shorten(text: str) -> str:
    """A long id, cut after twelve characters."""
    return text if len(text) <= 14 else f"{text[:12]}…"


@pass_context
def _colour(context: Context, account: str) -> str:
    colours_of: Mapping[str, str] = context["colours"]()
    return colours_of.get(account, COMMONS)


def colours(clients: Mapping[str, str], visible: str | None) -> dict[str, str]:
    """Each client's CSS class, by the order of registration; the commons and what is pending have their own.

    Args:
        clients: id to name, in that order.
        visible: the only client that the viewer may see, whose place among the others would tell how many there are.
    """
    if visible is not None:
        return {COMMONS: COMMONS, visible: "c0"}
    return {COMMONS: COMMONS, PENDING: PENDING} | {
        client: f"c{place % COLOURS}" for place, client in enumerate(clients)
    }


@cache
def _static(name: str) -> str:
    """The address of a static file; another one when its content is another."""
    version = sha256((_STATIC / name).read_bytes()).hexdigest()[:12]
    return f"{HERE}/static/{name}?v={version}"


def _finalize(value: object) -> object:
    """What a page shows of a text: no control turns the direction of what follows. Escaping comes after it."""
    return many_lines(value) if type(value) is str else value


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).with_name("templates")),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=_finalize,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters |= {
    "credit": credit,
    "exact": exact,
    "compact": svg.compact,
    "whole": whole_number,
    "money": money.write_readable,
    "tokens": tokens,
    "percent": percent,
    "moment": moment,
    "ago": ago,
    "short": shorten,
    "colour": _colour,
}
_ENVIRONMENT.globals |= {"bar": svg.bar, "swatch": svg.swatch, "most_characters": MOST_CHARACTERS}
