"""Values in Grafana's units, as near as a picture needs it."""

import math

_TIMES = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"), (1e-3, "ms"), (1e-6, "µs"))
_SIZES = ((1e9, " B"), (1e6, " M"), (1e3, " K"))


def shown(value: float, unit: str, decimals: int | None = None) -> str:
    """A value with its unit: `1.5 K`, `20 ms`, `33.3%`, `12 tokens/s`."""
    if math.isnan(value):
        return "NaN"
    if unit == "percentunit":
        return f"{_short(value * 100, decimals)}%"
    if unit == "s":
        return _ladder(value, _TIMES, decimals, " ", "0 s")
    if unit == "short":
        return _ladder(value, _SIZES, decimals, "", _short(value, decimals))
    if unit == "locale":
        return f"{value:,.0f}"
    suffix = " req/s" if unit == "reqps" else unit.removeprefix("suffix:") if unit.startswith("suffix:") else ""
    return f"{_short(value, decimals)}{suffix}"


def _ladder(value: float, steps: tuple[tuple[float, str], ...], decimals: int | None, gap: str, small: str) -> str:
    for size, name in steps:
        if abs(value) >= size:
            return f"{_short(value / size, decimals)}{gap}{name}"
    return small


def _short(value: float, decimals: int | None) -> str:
    if decimals is not None:
        return f"{value:.{decimals}f}"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
