"""Mean average precision (mAP) of fashion retrieval, attribute by attribute (paper, Table 4)."""

from collections.abc import Callable, Iterator

import numpy as np

from crl.metrics import average_precision

CHUNK = 2**25  # bytes of similarities at once
Represent = Callable[[np.ndarray, int], np.ndarray]  # images (n,), attribute -> (n, W) unit rows


def retrieval_precision(
    represent: Represent, query: np.ndarray, candidate: np.ndarray
) -> np.ndarray:
    """Average precision (Q,) of each query (Q, 3) among the candidates (C, 3) of its attribute."""

    def similarity(q: np.ndarray, c: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        attribute = q[0, 1]
        near, far = represent(q[:, 0], attribute), represent(c[:, 0], attribute)
        return lambda rows: near[rows] @ far.T

    return _each_attribute(similarity, query, candidate)


def random_draw(query: np.ndarray, candidate: np.ndarray, seed: int) -> np.ndarray:
    """Average precision (Q,) of one random ranking a query."""
    rng = np.random.default_rng(seed)

    def similarity(q: np.ndarray, c: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda rows: rng.random((len(rows), len(c)), np.float32)

    return _each_attribute(similarity, query, candidate)


def random_expectation(query: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Exact mean (Q,) of average precision over all rankings: that of candidates all tied.

    With R of C candidates relevant and H = 1/1 + ... + 1/C it is
    (H + (R - 1) / (C - 1) * (C - H)) / C.
    """
    precision = np.zeros(len(query))
    for rows, values in by_attribute(query, candidate):
        distinct, inverse = np.unique(query[rows, 2], return_inverse=True)
        tied = np.zeros((len(distinct), len(values)), np.float32)
        precision[rows] = average_precision(tied, distinct, candidate[values, 2])[inverse]
    return precision


def by_attribute(query: np.ndarray, candidate: np.ndarray) -> Iterator[tuple]:
    """Which queries and which candidates belong to each attribute."""
    for attribute in np.unique(query[:, 1]):
        yield np.flatnonzero(query[:, 1] == attribute), np.flatnonzero(candidate[:, 1] == attribute)


def _each_attribute(similarity: Callable, query: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Queries by attribute and value, in chunks: the memory is bounded whatever their number."""
    precision = np.zeros(len(query))
    for rows, others in by_attribute(query, candidate):
        rows = rows[np.argsort(query[rows, 2], kind="stable")]  # few values in each chunk
        q, c = query[rows], candidate[others]
        of = similarity(q, c)
        step = max(1, CHUNK // (4 * len(c)))
        for start in range(0, len(q), step):
            part = np.arange(start, min(start + step, len(q)))
            precision[rows[part]] = average_precision(of(part), q[part, 2], c[:, 2])
    return precision


def mean_scores(
    precision: np.ndarray, query: np.ndarray, attributes: list[str]
) -> dict[str, float]:
    """mAP in percent: of each attribute, `overall` (every query counts alike), and `mean` (every
    attribute counts alike)."""
    each = [100 * float(precision[query[:, 1] == a].mean()) for a in range(len(attributes))]
    named = dict(zip(attributes, each, strict=True))
    return {**named, "overall": 100 * float(precision.mean()), "mean": float(np.mean(each))}


def without_relevant(query: np.ndarray, candidate: np.ndarray) -> int:
    """How many queries have no candidate of their attribute and value."""
    there = set(map(tuple, candidate[:, 1:].tolist()))
    return sum(asked not in there for asked in map(tuple, query[:, 1:].tolist()))
