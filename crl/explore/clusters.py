"""Clusters of a representation, how many there are, and what they are called."""

import warnings
from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances, silhouette_score
from threadpoolctl import threadpool_limits

from crl.explore.maps import COMPUTED, kept_array

COMPONENTS = 50  # more change no silhouette of the demo by 0.002, and take 5 times as long
NUMBERS = range(3, 21)  # tried by `auto`; of 2 the silhouette is nearly always among the highest
SAMPLE = 2_000  # images whose silhouette is computed: its cost grows with their square
VERSION = 1  # of all that the silhouettes depend on
WEAK = 1.5  # standard deviations, see `Name`
STRUCTURE = {0.71: "strong", 0.51: "reasonable", 0.26: "weak"}  # Kaufman and Rousseeuw, 1990


class Clusters(NamedTuple):
    label: np.ndarray  # (N,) cluster of each image, 0 to k - 1, the largest first
    certainty: np.ndarray  # (N,) how much nearer the own centre is than the next one, 0 to 1
    distance: np.ndarray  # (N,) to the own centre
    note: str  # how the number was found, and how clear it is


def principal(x: np.ndarray) -> np.ndarray:
    """The first principal components of x (N, K): at most `COMPONENTS`, float32."""
    if np.ptp(x, axis=0).max() == 0:  # images that are all the same
        return np.zeros((len(x), 1), np.float32)
    components = min(COMPONENTS, *x.shape)
    return PCA(components, svd_solver="randomized", random_state=0).fit_transform(x)


def find_clusters(points: np.ndarray, number: int | None = None) -> Clusters:
    """k-means on principal components (N, components); every image gets a cluster. `number` of
    clusters, 1 or more; None: the one in `NUMBERS` with the highest mean silhouette. If there are
    fewer different images, there are fewer clusters."""
    scale = float(np.abs(points).max()) or 1.0
    different = len(np.unique((points / scale).round(4), axis=0))  # k-means tells no more apart
    if number is None:
        number, note = _choose_number(points, different)
    elif number <= different:
        note = f"{number} groups"
    else:
        number, note = different, f"{different} groups: there are no more different images"
    model = _kmeans(points, number, 5)
    used, sizes = np.unique(model.labels_, return_counts=True)  # of nearly equal images, fewer
    by_size = used[np.argsort(-sizes, kind="stable")]
    away = model.transform(points)[:, by_size]  # (N, k) distances
    label = np.argsort(by_size)[np.searchsorted(used, model.labels_)]
    own, *next_one = np.sort(away, axis=1)[:, :2].T  # (N,) distances
    certainty = 1 - own / next_one[0].clip(1e-12) if next_one else np.ones(len(points))
    return Clusters(label, certainty, own, note)


def regroup(points: np.ndarray, label: np.ndarray, note: str) -> Clusters:
    """Clusters that are known: label (N,), 0 to k - 1; distances are those to the means."""
    centres = np.stack([points[label == c].mean(axis=0) for c in range(label.max() + 1)])
    away, rows = pairwise_distances(points, centres), np.arange(len(points))  # (N, k)
    own = away[rows, label]
    away[rows, label] = np.inf
    return Clusters(label, 1 - own / away.min(axis=1).clip(1e-12), own, note)


def _kmeans(points: np.ndarray, number: int, starts: int) -> KMeans:
    """With one thread: more gain nothing at this size, and beside other work they cost much."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly equal images share a cluster
        return KMeans(number, n_init=starts, random_state=0).fit(points)


def _choose_number(points: np.ndarray, different: int) -> tuple[int, str]:
    """The number with the highest mean silhouette of a sample, and how clear it is."""
    some = points[np.random.default_rng(0).permutation(len(points))[:SAMPLE]]
    numbers = [number for number in NUMBERS if number <= min(different, len(some) - 1)]
    if not numbers:
        number = min(2, different)
        return number, f"{number} groups: there are too few different images to choose a number"

    def compute() -> np.ndarray:
        away = pairwise_distances(some)
        np.fill_diagonal(away, 0)  # rounding
        labels = [_kmeans(some, number, 3).labels_ for number in numbers]
        return np.array([silhouette_score(away, label, metric="precomputed") for label in labels])

    values = kept_array(f"silhouettes-{VERSION}-{len(numbers)}", some, compute, COMPUTED)
    order = np.argsort(-values, kind="stable")
    number, best = numbers[order[0]], values[order[0]]
    structure = next((word for least, word in STRUCTURE.items() if best >= least), "hardly any")
    note = f"{number} groups, chosen by silhouette ({best:.2f}: {structure} structure)"
    others = ", ".join(f"{numbers[i]} ({values[i]:.2f})" for i in order[1:3])
    return number, f"{note}; next best: {others}" if others else note


class Name(NamedTuple):
    """What a cluster is called, and by which texts it stands out from the rest."""

    words: list[int]  # numbers of texts, the name first; no two clusters share one
    strength: list[float]  # of each word, 0 to 1 of the most that any cluster has of any
    margin: float  # the name's lead over the next cluster, in deviations of it within clusters

    @property
    def weak(self) -> bool:  # the next cluster is too near for the name to be trusted
        return self.margin < WEAK


def name_clusters(standing: np.ndarray, label: np.ndarray, words: int = 3) -> list[Name]:
    """Names of clusters, from the texts of a criterion: standing (N, K), label (N,). The mean over
    a cluster says which texts fit it more than usual. The names are given one-to-one, so that their
    sum is the largest (the Hungarian method). The other words of a cluster, at most `words` in all,
    fit it more than any other cluster. Clusters without a text left have no name."""
    number = int(label.max()) + 1
    mean = np.stack([standing[label == c].mean(axis=0) for c in range(number)])  # (k, K)
    within = np.sqrt(np.mean((standing - mean[label]) ** 2, axis=0))  # (K,)
    first = dict(zip(*(places.tolist() for places in linear_sum_assignment(-mean)), strict=True))
    best, most = mean.argmax(axis=0), mean.max()
    names = []
    for cluster in range(number):
        if cluster not in first:
            names.append(Name([], [], 0.0))
            continue
        name, order = first[cluster], np.argsort(-mean[cluster], kind="stable")
        fits = (best == cluster) & (mean[cluster] > 0)
        fits[list(first.values())] = False
        chosen = [name, *order[fits[order]][: words - 1].tolist()]
        strength = (mean[cluster, chosen] / most).clip(0, 1) if most > 0 else np.zeros(len(chosen))
        lead = mean[cluster, name] - np.delete(mean[:, name], cluster).max() if number > 1 else 0.0
        names.append(Name(chosen, strength.tolist(), float(lead / max(within[name], 1e-12))))
    return names
