"""Few-shot classification, clustering (paper, Tables 1 and 2), retrieval and metrics, as functions.

x is either representation, I (N, D) or R (N, K). All metrics are in percent. k-means and the
classifier run with one thread: the numbers would depend on how many there are.
"""

from collections.abc import Callable

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    adjusted_mutual_info_score,
    adjusted_rand_score,
    normalized_mutual_info_score,
    rand_score,
)
from sklearn.metrics.cluster import contingency_matrix
from threadpoolctl import threadpool_limits

from crl.projection import project
from crl.run.ranking import average_precision, query_parts

Rows = np.ndarray | Callable[[np.ndarray], np.ndarray]  # x (N, F), or labels (N,) -> x


def kmeans(x: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Cluster numbers (N,) of x (N, F), with the paper's settings."""
    with threadpool_limits(1):
        return KMeans(clusters, n_init="auto", random_state=seed).fit_predict(x)


def few_shot_split(labels: np.ndarray, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `shots` training images per class, and of all other images. The paper's protocol
    shuffles with NumPy's global generator, class after class: any other way draws other images."""
    np.random.seed(seed)
    train, test = [], []
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        np.random.shuffle(indices)
        train.append(indices[:shots])
        test.append(indices[shots:])
    return np.concatenate(train), np.concatenate(test)


def few_shot(x: Rows, labels: np.ndarray, shots: int, seed: int) -> float:
    """Test accuracy of logistic regression on x (N, F), trained on `shots` images per class. If x
    is a function, it makes the rows from the labels (N,) of the training images, -1 elsewhere."""
    train, test = few_shot_split(labels, shots, seed)
    if callable(x):
        given = np.full(len(labels), -1)
        given[train] = labels[train]
        x = x(given)
    with threadpool_limits(1):
        classifier = LogisticRegression(max_iter=1000).fit(x[train], labels[train])
        return accuracy(labels[test], classifier.predict(x[test]))


def zero_shot(image: np.ndarray, class_text: np.ndarray, labels: np.ndarray) -> float:
    """Accuracy of predicting the class whose name is most similar to the image: `image` (N, D) or
    (N, Q, D), `class_text` (C, D), unit rows; `labels` (N,), 0 to C - 1."""
    return accuracy(labels, project(image, class_text).argmax(axis=1))


def accuracy(labels: np.ndarray, predicted: np.ndarray) -> float:
    """Share of equal entries of two (N,) arrays."""
    return 100 * float(np.mean(np.asarray(labels) == np.asarray(predicted)))


def clustering_scores(labels: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """NMI, ACC and ARI of a clustering (paper, Table 2), both (N,); numbering does not matter.

    `nmi` is normalised by the arithmetic mean; `acc` is the share of images whose cluster is
    matched to their class by the best one-to-one assignment (Hungarian). `ri` (Rand index: the
    share of pairs of images that both put together, or both apart) and `ami` (mutual information
    minus that of chance) are not the paper's: other work on multiple clusterings reports them.

    >>> clustering_scores([0, 0, 1, 1], [5, 5, 3, 5])["acc"]  # 5 is class 0, 3 is class 1
    75.0
    """
    counts = contingency_matrix(labels, clusters)  # (classes, clusters)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return {
        "nmi": 100 * float(normalized_mutual_info_score(labels, clusters)),
        "acc": 100 * float(matched / counts.sum()),
        "ari": 100 * float(adjusted_rand_score(labels, clusters)),
        "ri": 100 * float(rand_score(labels, clusters)),
        "ami": 100 * float(adjusted_mutual_info_score(labels, clusters)),
    }


def retrieval_split(images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Places of the queries, a tenth of the images and at least one, and of the database, all
    others. Drawn at random, whatever their classes: CLAY (arXiv 2604.11539) says 1 : 9, and we do
    not know how it draws."""
    places = np.random.default_rng(seed).permutation(images)
    queries = max(1, images // 10)
    return places[:queries], places[queries:]


def mean_average_precision(x: np.ndarray, labels: np.ndarray, seed: int) -> float:
    """Mean over the queries of the average precision of the database, ranked by similarity; an
    image is relevant if its class is the query's. x (N, F) has unit rows, labels are (N,)."""
    queries, database = retrieval_split(len(x), seed)
    near, classes = x[database].T, labels[database]
    total = 0.0
    for part in query_parts(len(queries), len(database)):
        query = queries[part]
        total += average_precision(x[query] @ near, labels[query], classes).sum()
    return 100 * total / len(queries)
