"""Pure functions from predictions to numbers, in percent."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

BINS = 2**14  # of scores; see `_places`


def clustering_scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """NMI, ACC and ARI of a clustering (paper, Table 2).

    Args:
        labels, clusters: (N,) integers; their numbering does not matter.

    Returns:
        `nmi`: arithmetic normalisation, `acc`: share of images whose cluster is matched to their
        class by the best one-to-one assignment (Hungarian), `ari`; all in percent.

    >>> clustering_scores([0, 0, 1, 1], [5, 5, 3, 5])["acc"]  # 5 is class 0, 3 is class 1
    75.0
    """
    counts = contingency_matrix(labels, clusters)  # (classes, clusters)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return {
        "nmi": 100 * float(normalized_mutual_info_score(labels, clusters)),
        "acc": 100 * float(matched / counts.sum()),
        "ari": 100 * float(adjusted_rand_score(labels, clusters)),
    }


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal entries of two (N,) arrays, in percent."""
    return 100 * float(np.mean(np.asarray(labels) == np.asarray(predicted)))


def average_precision(
    similarity: np.ndarray, query_value: np.ndarray, candidate_value: np.ndarray
) -> np.ndarray:
    """Average precision of each query's ranking (paper, Table 4), as a fraction.

    A candidate is relevant if it has the query's value. AP is the mean over the relevant ones of
    (relevant ones down to it) / (its rank); 0 where none is relevant. Candidates of equal
    similarity count as in the mean over all their orders. So a constant similarity gives the exact
    expectation of a random ranking.

    Beside `similarity` it takes little memory: pass a chunk of the queries at a time.

    Args:
        similarity: (q, c) finite floats, larger is nearer.
        query_value, candidate_value: (q,) and (c,) integers.

    Returns:
        (q,) float64, from 0 to 1.

    The relevant first and third of three, then tied with the second: (1/1 + 2/3) / 2, and the mean
    of that and (1/1 + 2/2) / 2.

    >>> values = np.array([7]), np.array([7, 1, 7])
    >>> average_precision(np.array([[0.9, 0.5, 0.1]]), *values).round(3)
    array([0.833])
    >>> average_precision(np.array([[0.9, 0.5, 0.5]]), *values).round(3)
    array([0.917])
    """
    precision = np.zeros(len(query_value))
    c = len(candidate_value)
    harmonic = np.append(0, np.cumsum(1 / np.arange(1, c + 1)))  # (c + 1,), 1/1 + ... + 1/n
    for value in np.unique(query_value):
        rows = np.flatnonzero(query_value == value)  # (b,)
        relevant = np.flatnonzero(candidate_value == value)  # (m,)
        if not len(relevant):
            continue
        # of all candidates and of the relevant ones: how many are above, how many tied, itself too
        places = [_places(similarity[row], relevant) for row in rows]
        above, tied, found_above, found_tied = np.stack(places, axis=1)  # (b, m) each
        # The relevant one stands at each rank above + i, i = 1..tied, equally often, and then has
        # found_above + 1 + (i - 1) * others relevant ones down to it: over the ranks, sums of
        # 1 / (above + i) and of (i - 1) / (above + i).
        inverse = harmonic[above + tied] - harmonic[above]
        others = (found_tied - 1) / np.maximum(tied - 1, 1)
        at = ((found_above + 1) * inverse + others * (tied - (above + 1) * inverse)) / tied
        precision[rows] = at.mean(axis=1)
    return precision


def _places(row: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Where the m relevant ones of a row of scores (c,) are, in ascending order.

    Sorting the row would take most of the time. So its scores are counted in equal bins, which
    keep their order, and only those that share a bin with a relevant one are sorted.

    Returns:
        (4, m): how many scores are above and equal to it, itself too; and how many relevant ones.
    """
    low = row.min()
    span = (row.max() - low) or 1  # all tied: all in the first bin
    bins = row - low
    bins /= span
    bins *= BINS
    bins = bins.astype(np.intp)  # (c,), 0 to BINS
    mine = np.sort(bins[relevant])  # (m,)
    shared = np.zeros(BINS + 1, bool)
    shared[mine] = True
    ranked, found = np.sort(row[shared[bins]]), np.sort(row[relevant])  # (n,), (m,)
    above, tied = _above_and_tied(ranked, found)  # of these n alone
    counts = np.bincount(bins, minlength=BINS + 1)
    counts[mine] = 0
    others = len(row) - len(ranked) - counts.cumsum()[mine]
    return np.stack([above + others, tied, *_above_and_tied(found, found)])


def _above_and_tied(ranked: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of `ranked` (n,), ascending, are above, and equal to, each of `scores` (m,)."""
    up_to = ranked.searchsorted(scores, "right")
    return len(ranked) - up_to, up_to - ranked.searchsorted(scores, "left")
