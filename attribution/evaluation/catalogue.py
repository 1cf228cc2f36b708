"""The experiments, by the names that `protoken evaluate` and the files in configs/evaluation use."""

from collections.abc import Mapping

from attribution.evaluation.experiment import Experiment
from attribution.evaluation.experiments import (
    adaptive,
    axioms,
    cost,
    culprits,
    domains,
    fairness,
    mechanics,
    planted,
    precision,
    robustness,
)

CATALOGUE: Mapping[str, Experiment] = {
    "E1": culprits.BACKDOOR,
    "E2": culprits.TRIGGERS,
    "E3": domains.RIGHT_DOMAIN,
    "E4": culprits.MANY_CLIENTS,
    "E5": mechanics.GRADIENTS,
    "E6": mechanics.LAYERS,
    "E7": mechanics.PARITY,
    "E8": axioms.COMPLETENESS,
    "E9": fairness.SHAPLEY,
    "E10": fairness.RETRAINED,
    "E12": planted.OWNERS,
    "E13": domains.TWINS,
    "E14": robustness.RIDERS,
    "E15": robustness.ATTACKERS,
    "E16": planted.PAYABLE,
    "E17": axioms.CHUNKS,
    "E21": cost.COST,
    "E23": precision.PRECISION,
    "E24": adaptive.ADAPTIVE,
}
