"""Numbers as SVG: bars, columns over time, lines and sparklines. Pure; knows no ledger and no page.

A chart is as wide as its place and has its text in the size of the page: across, it is measured in percent. Colours are
classes of the stylesheet; columns have textures besides, so that no colour is needed to tell them apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from rewards.credit import MICRO_CREDITS_PER_TOKEN
from rewards.files.plain_text import one_line
from rewards.moments import DAY_US, date_of

HEIGHT = 190
_TOP = 18
_LABELS = 26
_TEXTURES = (
    "",
    '<path d="M-2 2L2 -2M0 8L8 0M6 10L10 6" class="ink"/>',
    '<circle cx="2" cy="2" r="1.2" class="dot"/><circle cx="6" cy="6" r="1.2" class="dot"/>',
    '<path d="M0 4H8" class="ink"/>',
    '<path d="M4 0V8" class="ink"/>',
    '<path d="M-2 6L2 10M0 0L8 8M6 -2L10 2" class="ink"/>',
)


@dataclass(frozen=True)
class Series:
    """One thing over time.

    Attributes:
        label: what it is called.
        colour: its CSS class.
        values: micro-credits, one for each column.
    """

    label: str
    colour: str
    values: Sequence[int]


def bar(part: float, colour: str) -> Markup:
    """A bar of a table, 0 to 1 of its cell; the number beside it says what it means."""
    return Markup(
        '<svg class="bar" width="100%" height="12" aria-hidden="true" focusable="false">'
        '<rect width="{:.2f}%" height="12" rx="2" class="fill {}"/></svg>'
    ).format(100 * min(max(part, 0.0), 1.0), colour)


def swatch(chart_id: str, place: int, colour: str) -> Markup:
    """The small square of a legend, as series number `place` of `columns` is drawn."""
    return Markup(
        '<svg class="key" width="14" height="14" aria-hidden="true" focusable="false">'
        '<rect width="14" height="14" rx="2" {}/></svg>'
    ).format(_fill(chart_id, place, colour))


def columns(
    chart_id: str, title: str, desc: str, starts_us: Sequence[int], width_us: int, series: Sequence[Series]
) -> Markup:
    """Stacked columns over time, the first series at the bottom; what was taken back hangs below the line.

    Args:
        chart_id: tells it from others on a page.
        title: what it shows.
        desc: what there is to see, in a sentence.
        starts_us: when each column begins, in microseconds since 1970.
        width_us: how long each is.
        series: what is stacked.
    """
    stacks = list(zip(*(each.values for each in series), strict=True))
    scale = _scale(
        min(sum(value for value in stack if value < 0) for stack in stacks),
        max(sum(value for value in stack if value > 0) for stack in stacks),
    )
    drawn = [
        _column(chart_id, place, len(stacks), stack, scale, series, _span(starts_us[place], width_us))
        for place, stack in enumerate(stacks)
        if any(stack)
    ]
    return _svg(
        chart_id,
        title,
        desc,
        _patterns(chart_id, series)
        + scale.lines()
        + Markup("").join(drawn)
        + scale.labels()
        + _times(starts_us, width_us),
    )


def line(chart_id: str, title: str, desc: str, starts_us: Sequence[int], width_us: int, series: Series) -> Markup:
    """One thing over time as a line with its area. As `columns`, with one value at the end of each column."""
    values = [0, *series.values]
    scale = _scale(min(values), max(values))
    points = " L".join(
        f"{place * 1000 / (len(values) - 1):.1f} {scale.at(value):.1f}" for place, value in enumerate(values)
    )
    drawn = Markup(
        '<svg y="0" width="100%" height="{bottom}" viewBox="0 0 1000 {bottom}" preserveAspectRatio="none">'
        '<path d="M0 {zero:.1f} L{points} L1000 {zero:.1f} Z" class="area {colour}"/>'
        '<path d="M{points}" class="line {colour}"/></svg>'
    ).format(bottom=HEIGHT, zero=scale.at(0), points=points, colour=series.colour)
    return _svg(chart_id, title, desc, scale.lines() + drawn + scale.labels() + _times(starts_us, width_us))


def spark(values: Sequence[int], colour: str) -> Markup:
    """A line without axes, for a table; decoration beside the numbers."""
    low, high = min(0, *values), max(1, *values)
    step = 100 / max(1, len(values) - 1)
    points = " L".join(
        f"{place * step:.1f} {22 - 20 * (value - low) / (high - low):.1f}" for place, value in enumerate(values)
    )
    return Markup(
        '<svg class="spark" width="100" height="24" viewBox="0 0 100 24" aria-hidden="true" focusable="false">'
        '<path d="M{}" class="line {}"/></svg>'
    ).format(points, colour)


def compact(micro: int) -> str:
    """Micro-credits as a short number of tokens with three digits that count, as in "1.24k"."""
    tokens = abs(micro) / MICRO_CREDITS_PER_TOKEN
    size, unit = next((each for each in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if tokens >= each[0]), (1, ""))
    number = tokens / size
    digits = 0 if number >= 100 else 1 if number >= 10 else 2 if number >= 1 else 3
    text = f"{number:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{'−' if micro < 0 else ''}{text}{unit}"


@dataclass(frozen=True)
class _Scale:
    """Which value lies at which height: from `low` at the bottom to `high`, with a line at each multiple of `step`."""

    low: int
    high: int
    step: int

    def at(self, value: int) -> float:
        """Pixels from the top."""
        return HEIGHT - (HEIGHT - _TOP) * (value - self.low) / (self.high - self.low)

    def lines(self) -> Markup:
        """Lines across."""
        return Markup("").join(
            Markup('<line x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}" class="{1}"/>').format(
                self.at(value), "grid" if value else "zero"
            )
            for value in self._values
        )

    def labels(self) -> Markup:
        """What each line stands for, at its left, in the margin that the stylesheet leaves there."""
        return Markup("").join(
            Markup('<text x="-8" y="{:.1f}" text-anchor="end">{}</text>').format(self.at(value) + 4, compact(value))
            for value in self._values
            if value
        )

    @property
    def _values(self) -> range:
        return range(self.low, self.high + 1, self.step)


def _scale(low: int, high: int) -> _Scale:
    """Round values around what is shown: three to six lines, at 1, 2 or 5 and zeros."""
    span = max(high - min(low, 0), 4)
    step = 1
    while span > 4 * step:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2  # 1, 2, 5, 10
    return _Scale(min(low, 0) // step * step, -(-max(high, step) // step) * step, step)


def _svg(chart_id: str, title: str, desc: str, inner: Markup) -> Markup:
    return Markup(
        '<svg class="chart" width="100%" height="{height}" role="img" aria-labelledby="{id}-title {id}-desc">'
        '<title id="{id}-title">{title}</title><desc id="{id}-desc">{desc}</desc>{inner}</svg>'
    ).format(height=HEIGHT + _LABELS, id=chart_id, title=one_line(title), desc=one_line(desc), inner=inner)


def _column(
    chart_id: str, place: int, count: int, stack: Sequence[int], scale: _Scale, series: Sequence[Series], span: str
) -> Markup:
    up = down = 0
    drawn = []
    for number, value in enumerate(stack):
        if value == 0:
            continue
        base = up if value > 0 else down
        top, bottom = sorted((scale.at(base), scale.at(base + value)))
        up, down = (up + value, down) if value > 0 else (up, down + value)
        drawn.append(
            Markup('<rect x="{:.2f}%" width="{:.2f}%" y="{:.2f}" height="{:.2f}" {}/>').format(
                100 * (place + 0.08) / count,
                84 / count,
                top,
                max(bottom - top, 0.4),
                _fill(chart_id, number, series[number].colour),
            )
        )
    told = "\n".join(
        f"{one_line(each.label)} {compact(value)}" for each, value in zip(series, stack, strict=True) if value
    )
    return Markup("<g><title>{}\n{}</title>{}</g>").format(span, told, Markup("").join(drawn))


def _fill(chart_id: str, place: int, colour: str) -> Markup:
    """How series number `place` is filled: by its colour, and by a texture that its neighbours do not have."""
    if place % len(_TEXTURES) == 0:
        return Markup('class="fill {}"').format(colour)
    return Markup('fill="url(#{}-{})"').format(chart_id, place)


def _patterns(chart_id: str, series: Sequence[Series]) -> Markup:
    return Markup("<defs>{}</defs>").format(
        Markup("").join(
            Markup(
                '<pattern id="{}-{}" width="8" height="8" patternUnits="userSpaceOnUse">'
                '<rect width="8" height="8" class="fill {}"/>{}</pattern>'
            ).format(chart_id, place, each.colour, Markup(_TEXTURES[place % len(_TEXTURES)]))  # noqa: S704 - our own
            for place, each in enumerate(series)
            if place % len(_TEXTURES)
        )
    )


def _times(starts_us: Sequence[int], width_us: int) -> Markup:
    """Five moments below the chart, of which a narrow one shows three."""
    begin_us, end_us = starts_us[0], starts_us[-1] + width_us
    labels = []
    before = ""
    for place in range(5):
        at = date_of(begin_us + (end_us - begin_us) * place // 4)
        label, before = _label(at, end_us - begin_us, before)
        anchor = "start" if place == 0 else "end" if place == 4 else "middle"
        labels.append(
            Markup('<text x="{}%" y="{}" text-anchor="{}"{}>{}</text>').format(
                25 * place, HEIGHT + 18, anchor, Markup(' class="minor"') if place % 2 else "", label
            )
        )
    return Markup("").join(labels)


def _label(at: datetime, span_us: int, before: str) -> tuple[str, str]:
    """A moment on the axis, as exact as the chart is long, and its day; a day is named once."""
    day = f"{at.day} {at:%b}"
    if span_us > 366 * DAY_US:
        return f"{at:%b %Y}", day
    if span_us > 4 * DAY_US:
        return day, day
    return (f"{at:%H:%M}" if day == before else f"{day} {at:%H:%M}"), day


def _span(start_us: int, width_us: int) -> str:
    begin, end = date_of(start_us), date_of(start_us + width_us)
    return f"{begin:%Y-%m-%d %H:%M} – {end:%H:%M}" if width_us < DAY_US else f"{begin:%Y-%m-%d} – {end:%Y-%m-%d}"
