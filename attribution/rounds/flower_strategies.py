"""Strategies of Flower whose result is not the weighted average of what each member is seen to have sent.

They are known by the names of their classes, so that Flower need not be there.
"""

from typing import Any

from attribution.errors import RoundsError

_PICKS = "it takes some updates and leaves others out, and the record would pay for both"
_SERVER_NOISE = (
    "it adds noise on the server, so the model is not what members sent; noise that each client adds itself"
    " (DifferentialPrivacyClientSide…) can be recorded"
)
_MASKS = "secure aggregation hides what each member sent, so nothing can be credited to one of them"
_TREES = "it joins trees, and what is recorded are tensors that are averaged"
REASONS = {
    "SecAggWorkflow": _MASKS,
    "SecAggPlusWorkflow": _MASKS,
    "DifferentialPrivacyServerSideFixedClipping": _SERVER_NOISE,
    "DifferentialPrivacyServerSideAdaptiveClipping": _SERVER_NOISE,
    "MultiKrum": _PICKS,
    "Bulyan": _PICKS,
    "FedTrimmedAvg": _PICKS,
    "FedMedian": "it takes medians, and the record would pay by weights that were not used",
    "QFedAvg": "it weighs updates by their losses, and the record would pay by weights that were not used",
    "FedXgbBagging": _TREES,
    "FedXgbCyclic": _TREES,
}
"""Why rounds of a strategy, or of one that is made of it, cannot be recorded."""
_SECURE_AGGREGATION = "secaggplus_configs"  # Flower's name of the record that speaks to its clients' mod
_CALLS = ("configure_train", "aggregate_train", "configure_evaluate")


def require_average(strategy: Any) -> None:
    """Refuse a strategy whose rounds would be recorded, and later paid, as what they were not.

    Raises:
        RoundsError: saying why.
    """
    for each in layers(strategy):
        for kind in type(each).__mro__:
            if kind.__name__ in REASONS:
                raise RoundsError(f"{type(each).__name__} cannot be recorded: {REASONS[kind.__name__]}")
    if missing := [name for name in _CALLS if not callable(getattr(strategy, name, None))]:
        raise RoundsError(
            f"{type(strategy).__name__} cannot be recorded: it has no {missing[0]}, so it is no strategy of Flower's"
            " message API (flwr.serverapp.strategy)"
        )


def layers(strategy: Any) -> list[Any]:
    """A strategy, the one that it wraps, and so on inwards."""
    strategies = [strategy]
    while (inner := getattr(strategies[-1], "strategy", None)) is not None and inner not in strategies:
        strategies.append(inner)
    return strategies


def require_no_masks(content: Any) -> None:
    """Refuse a message that asks a client to mask what it sends.

    Raises:
        RoundsError: it does.
    """
    if _SECURE_AGGREGATION in content.config_records:
        raise RoundsError(f"rounds cannot be recorded: {_MASKS}")
