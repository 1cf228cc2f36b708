"""Which of the exporter's two formats a scraper would rather have, by its `Accept` (RFC 9110, section 12.5.1).

prometheus-client takes OpenMetrics wherever the name occurs, whatever its weight; so it is shown the preferred one.
"""

from __future__ import annotations

from typing import Final

_FORMATS: Final = ("text/plain", "application/openmetrics-text")


def preferred_format(accept: str) -> str:
    """The media range of the format that is wanted most; empty where neither is, or nothing is said.

    Of ranges of equal weight the one that was named first is taken, as scrapers order them. Weight 0 means never.
    """
    best, highest = "", 0.0
    for given in accept.split(","):
        name, *parameters = (part.strip() for part in given.split(";"))
        weight = _weight(parameters)
        if name.lower() in _FORMATS and weight > highest:
            kept = [part for part in parameters if not part.lower().startswith("q=")]
            best, highest = ";".join([name.lower(), *kept]), weight
    return best


def _weight(parameters: list[str]) -> float:
    """`q`, from 0 to 1; 1 where it is missing or no number."""
    for part in parameters:
        name, _, value = part.partition("=")
        if name.strip().lower() == "q":
            try:
                return min(max(float(value), 0.0), 1.0)
            except ValueError:
                return 1.0
    return 1.0
