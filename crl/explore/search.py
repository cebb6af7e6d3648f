"""Exact search: the images that are most similar under one criterion or several. R is computed by
parts and never stored. I may be a memory map; 4 bytes an image and query more."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from crl.explore.words import most
from crl.representations.weighted import weighted_similarity

ROWS_AT_ONCE = 2**12  # they fit into the processor's cache
SLACK = 1e-3  # by which float32 may misjudge a similarity; with most bases it is 1e-5


class Criterion(NamedTuple):
    transform: Callable[[np.ndarray], np.ndarray]  # I, (n, D) or (n, Q, D) -> (n, F) unit rows
    query: np.ndarray  # (queries, F) unit rows
    weight: float = 1.0  # beside other criteria; a negative one means "unlike"


class Matches(NamedTuple):
    rows: np.ndarray  # (queries, k) row numbers, the best first
    scores: np.ndarray  # (queries, k) float32


def search(image: np.ndarray, criteria: Sequence[Criterion], k: int) -> Matches:
    """The k rows of I, (N, D) or (N, Q, D), most similar to each query; fewer, if there are fewer.

    The scores are those of `weighted_similarity` in float64, rounded to float32; equal scores are
    ordered by row number. All rows are computed in float32 first, and those that come near the k-th
    best once more: so the result is exact, and takes half the time."""
    k, slack = min(k, len(image)), SLACK
    rough = _scores(image, np.arange(len(image)), criteria, np.float32)  # (queries, N)
    least = np.partition(rough, -k, axis=1)[:, [-k]]
    while True:
        near = np.flatnonzero((rough >= least - slack).any(axis=0))
        exact = _scores(image, near, criteria, np.float64)
        if not 10 * abs(exact - rough[:, near]).max() > slack:
            break
        slack *= 10  # rounding is larger here
    scores = exact.astype(np.float32)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return Matches(near[order], np.take_along_axis(scores, order, axis=1))


def _scores(
    image: np.ndarray, rows: np.ndarray, criteria: Sequence[Criterion], dtype: type
) -> np.ndarray:
    """(queries, rows) similarities of some rows of I, by parts."""
    queries = {str(n): np.asarray(c.query, dtype) for n, c in enumerate(criteria)}
    weights = {str(n): c.weight for n, c in enumerate(criteria)}
    scores = np.empty((len(criteria[0].query), len(rows)), dtype)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        x = np.asarray(image[rows[start : start + ROWS_AT_ONCE]], dtype)  # (n, D) or (n, Q, D)
        candidates = {str(n): c.transform(x) for n, c in enumerate(criteria)}  # (n, F) each
        scores[:, start : start + len(x)] = weighted_similarity(queries, candidates, weights)
    return scores


def neighbours(x: np.ndarray, count: int) -> np.ndarray:
    """The most similar other rows of each row of x (N, K): (N, count), the most similar first."""
    count = min(count, len(x) - 1)
    nearest = np.empty((len(x), count), int)
    for start in range(0, len(x) if count else 0, 1_000):
        similarity = x[start : start + 1_000] @ x.T
        np.fill_diagonal(similarity[:, start:], -np.inf)  # itself
        nearest[start : start + 1_000] = most(similarity, count)
    return nearest
