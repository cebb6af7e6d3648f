"""Several criteria at once: one representation of them all, or "like this, unlike that"."""

import math
from collections.abc import Mapping

import numpy as np

Parts = Mapping[str, np.ndarray]  # criterion: its representation, (N, K_c), unit rows
Weights = Mapping[str, float]  # criterion: its weight; those that are not named have weight 0


def weighted(parts: Parts, weights: Weights) -> np.ndarray:
    """One representation for several criteria: the dot product of two rows is the weighted mean of
    their similarities under each criterion. It can be clustered or searched like any R.

    The parts times the root of their weight, 0 or above, side by side: (N, sum of K_c), unit rows.

    >>> parts = {"color": np.array([[1.0, 0.0]]), "shape": np.array([[0.0, 1.0]])}
    >>> weighted(parts, {"color": 9, "shape": 16})
    array([[0.6, 0. , 0. , 0.8]])
    """
    shares = _shares(parts, weights)
    if min(shares.values()) < 0:
        raise ValueError("a negative weight cannot be clustered; use weighted_similarity")
    return np.concatenate([math.sqrt(w) * parts[c] for c, w in shares.items()], axis=1)


def weighted_similarity(queries: Parts, candidates: Parts, weights: Weights) -> np.ndarray:
    """Similarity of queries to candidates under several criteria, (Q, C): the sum of weight *
    similarity over criteria, divided by the sum of |weight|. A negative weight means "unlike"."""
    shares = _shares({c: x for c, x in queries.items() if c in candidates}, weights)
    return np.sum([w * (queries[c] @ candidates[c].T) for c, w in shares.items()], axis=0)


def _shares(parts: Parts, weights: Weights) -> dict[str, float]:
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
