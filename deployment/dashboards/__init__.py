"""Grafana's two boards as code, over the catalogue of series; `documents()` gives the JSON that Grafana reads."""

from deployment.dashboards.boards import documents

__all__ = ["documents"]
