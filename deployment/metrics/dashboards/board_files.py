"""Which boards there are, and the file that each is in."""

from deployment.metrics.dashboards.contribution import contribution
from deployment.metrics.dashboards.service import service


def documents() -> dict[str, str]:
    """The JSON of every board by the name of its file; the same on every machine."""
    return {"protoken-contribution.json": contribution(), "protoken-service.json": service()}
