"""The extras of the installation: which modules each brings, and what to install where one is missing.

The base is what a member needs, to check statements and proofs and to read a ledger; and what records rounds.
"""

from importlib.util import find_spec

from deployment.errors import MissingExtraError

_ATTRIBUTION = ("torch", "transformers", "peft", "gguf", "numpy", "jinja2")
EXTRAS = {
    "attribution": _ATTRIBUTION,
    "serve": (
        *_ATTRIBUTION,
        "ray",
        "fastapi",
        "fastapi_offline",
        "httpx",
        "aiohttp",
        "prometheus_client",
        "markupsafe",
        "itsdangerous",
        "python_multipart",
    ),
    "evaluation": (*_ATTRIBUTION, "matplotlib", "scipy"),
    "dashboards": ("grafana_foundation_sdk",),
    "sepa": ("sepaxml", "stdnum", "text_unidecode"),
}
"""The modules that commands need of each extra; `postgresql` is asked for by a ledger's URL, and not by a command."""


def require_extra(extra: str, what: str) -> None:
    """Return where every module of an extra is installed; none of them is imported.

    Raises:
        MissingExtraError: says what to install.
    """
    missing = next((module for module in EXTRAS[extra] if find_spec(module) is None), None)
    if missing is not None:
        raise MissingExtraError(
            f"{what} needs the extra {extra!r}, of which {missing} is not installed: pip install 'protoken[{extra}]'"
        )
