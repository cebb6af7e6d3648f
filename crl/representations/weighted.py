"""Several criteria at once: one representation of them all, or "like this, unlike that"."""

import math
from collections.abc import Mapping

import numpy as np


def weighted(parts: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """One representation for several criteria: the dot product of two rows is the weighted mean of
    their similarities under each criterion. It can be clustered or searched like any R.

    The parts R (N, K_c), unit rows, times the root of their weight, 0 or above, side by side:
    (N, sum of K_c), unit rows. Criteria that are not named have weight 0.

    >>> parts = {"color": np.array([[1.0, 0.0]]), "shape": np.array([[0.0, 1.0]])}
    >>> weighted(parts, {"color": 9, "shape": 16})
    array([[0.6, 0. , 0. , 0.8]])
    """
    shares = _shares(parts, weights)
    if min(shares.values()) < 0:
        raise ValueError("a negative weight cannot be clustered; use weighted_similarity")
    return np.concatenate([math.sqrt(w) * parts[c] for c, w in shares.items()], axis=1)


def weighted_similarity(
    queries: Mapping[str, np.ndarray],
    candidates: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
) -> np.ndarray:
    """Similarity of queries to candidates under several criteria; a negative weight means "unlike".

    (Q, C): the sum of weight * similarity over criteria, divided by the sum of |weight|. Queries
    and candidates are representations, (Q, K_c) and (C, K_c), unit rows.
    """
    shares = _shares({c: x for c, x in queries.items() if c in candidates}, weights)
    return np.sum([w * (queries[c] @ candidates[c].T) for c, w in shares.items()], axis=0)


def _shares(parts: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> dict[str, float]:
    """The weights that are not 0, scaled so that their absolute values add up to 1."""
    for criterion, weight in weights.items():
        if criterion not in parts:
            raise ValueError(f"unknown criterion {criterion!r}; known: {', '.join(parts)}")
        if not np.isfinite(weight):
            raise ValueError(f"the weight of {criterion!r} must be finite, not {weight}")
    largest = max(map(abs, weights.values()), default=0)
    if not largest > 0:
        raise ValueError("all weights are 0; give one criterion another weight")
    scaled = {criterion: float(weight / largest) for criterion, weight in weights.items()}
    total = sum(map(abs, scaled.values()))
    return {criterion: weight / total for criterion, weight in scaled.items() if weight}
