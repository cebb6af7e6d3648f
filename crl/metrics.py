"""Pure functions from predictions to numbers, in percent."""

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix


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
