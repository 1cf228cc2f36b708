"""The experiments, by the names that `protoken evaluate` and the files in configs/evaluation use."""

from collections.abc import Mapping

from attribution.evaluation.experiment import Experiment
from attribution.evaluation.experiments import cost, culprits, domains, fairness, mechanics, planted, robustness

CATALOGUE: Mapping[str, Experiment] = {
    "E1": culprits.BACKDOOR,
    "E2": culprits.TRIGGERS,
    "E3": domains.RIGHT_DOMAIN,
    "E4": culprits.MANY_CLIENTS,
    "E5": mechanics.GRADIENTS,
    "E6": mechanics.LAYERS,
    "E7": mechanics.PARITY,
    "E8": fairness.COMPLETENESS,
    "E9": fairness.SHAPLEY,
    "E10": fairness.RETRAINED,
    "E12": planted.OWNERS,
    "E13": domains.TWINS,
    "E14": robustness.RIDERS,
    "E15": robustness.ATTACKERS,
    "E16": planted.PAYABLE,
    "E17": fairness.CHUNKS,
    "E21": cost.COST,
}
