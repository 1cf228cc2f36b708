"""At how many points between the base and the global model slopes are taken, and with which weights they are summed.

The Gauss–Legendre rule: n points are exact for polynomials up to degree 2n − 1, so few are enough where the
log-probability bends little on its way. Knows no model, and nothing of torch.
"""

import numpy as np

DEFAULT_NODES = 2


def gauss_legendre(nodes: int) -> tuple[list[float], list[float]]:
    """So many points on [0, 1], 0 being the base model and 1 the global one, and their weights, which sum to 1."""
    points, weights = np.polynomial.legendre.leggauss(nodes)  # on [−1, 1]
    return ((points + 1) / 2).tolist(), (weights / 2).tolist()
