"""Average precision of rankings, where ties are handled exactly. Q queries, C candidates."""

import numpy as np


def average_precision(
    similarity: np.ndarray, query_value: np.ndarray, candidate_value: np.ndarray
) -> np.ndarray:
    """Average precision of each query's ranking.

    A candidate is relevant if it has the query's value. AP is the mean of the precision at the rank
    of each relevant candidate: (relevant candidates down to this rank) / rank. It is 0 if no
    candidate is relevant. For candidates of equal similarity it is the exact mean over all their
    orders. So a constant similarity gives the expectation of a random ranking.

    `similarity` (Q, C), larger is nearer, without NaN; values (Q,) and (C,) -> (Q,) float64,
    from 0 to 1.

    Of three candidates the first and third are relevant: (1/1 + 2/3) / 2. If the third is tied with
    the second, the result is the mean of this and (1/1 + 2/2) / 2.

    >>> values = np.array([7]), np.array([7, 1, 7])
    >>> average_precision(np.array([[0.9, 0.5, 0.1]]), *values).round(3)
    array([0.833])
    >>> average_precision(np.array([[0.9, 0.5, 0.5]]), *values).round(3)
    array([0.917])
    """
    if np.isnan(similarity).any():
        raise ValueError("similarity holds NaN, which has no place in a ranking")
    C = len(candidate_value)
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, C + 1)))  # 1/1 + ... + 1/n, n = 0 to C
    relevant = {value: candidate_value == value for value in np.unique(query_value)}
    precision = np.zeros(len(query_value))
    for query, (row, value) in enumerate(zip(similarity, query_value, strict=True)):
        scores = np.sort(row[relevant[value]])  # (m,) of the relevant candidates
        if not len(scores):
            continue
        # For each relevant candidate: how many candidates, and how many relevant candidates, are
        # above it and tied with it (itself included).
        above, tied = _above_and_tied(np.sort(row), scores)  # (m,) each
        relevant_above, relevant_tied = _above_and_tied(scores, scores)
        # Over all orders its rank is above + i, i = 1..tied, equally often. Down to this rank there
        # are on average relevant_above + 1 + (i - 1) * others relevant candidates.
        others = (relevant_tied - 1) / np.maximum(tied - 1, 1)
        inverse = harmonic[above + tied] - harmonic[above]  # sum over i of 1 / (above + i)
        rest = tied - (above + 1) * inverse  # sum over i of (i - 1) / (above + i)
        precision[query] = np.mean(((relevant_above + 1) * inverse + others * rest) / tied)
    return precision


def _above_and_tied(ranked: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each of `scores` (m,): how many of `ranked` (n,), ascending, are above it, and equal."""
    up_to = ranked.searchsorted(scores, "right")
    return len(ranked) - up_to, up_to - ranked.searchsorted(scores, "left")


def query_parts(queries: int, candidates: int) -> list[np.ndarray]:
    """Query numbers in parts, so that the memory for the similarities is bounded."""
    step = max(1, 2**23 // candidates)
    return [np.arange(queries)[start : start + step] for start in range(0, queries, step)]
