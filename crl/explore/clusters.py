"""Clusters of a representation, how many there are, and what they are called.

x (N, K) --find_clusters--> clusters --name_clusters--> names, from the texts of the criterion
"""

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import pairwise_distances, silhouette_score
from threadpoolctl import threadpool_limits

from crl.explore.maps import COMPUTED, kept_array
from crl.run.errors import UserError

COMPONENTS = 50  # more change no silhouette of the demo by 0.002, and take 5 times as long
NUMBERS = range(3, 21)  # tried by `auto`; of 2 the silhouette is nearly always among the highest
SAMPLE = 2_000  # images whose silhouette is computed: its cost grows with their square
VERSION = 1  # of all that the silhouettes depend on
WEAK = 1.5  # standard deviations, see `Name`
STRUCTURE = {0.71: "strong", 0.51: "reasonable", 0.26: "weak"}  # Kaufman and Rousseeuw, 1990


@dataclass(frozen=True)
class Clusters:
    """The result of `find_clusters`.

    Attributes:
        label: (N,) the cluster of each image, 0 to k - 1, the largest cluster first.
        certainty: (N,) 0 to 1: how much nearer its own centre is than the next one; 0 is halfway.
        distance: (N,) to the own centre.
        silhouettes: number of clusters that was tried -> mean silhouette, the best first; empty if
            the number was given.
        note: how the number was found, and how clear it is, as a sentence.
    """

    label: np.ndarray
    certainty: np.ndarray
    distance: np.ndarray
    silhouettes: dict[int, float]
    note: str

    @property
    def number(self) -> int:
        return int(self.label.max()) + 1

    def typical(self, cluster: int) -> np.ndarray:
        """The images of a cluster, the nearest to its centre first."""
        return self._members(cluster, self.distance)

    def uncertain(self, cluster: int) -> np.ndarray:
        """The images of a cluster, those first that are nearly as near to another."""
        return self._members(cluster, self.certainty)

    def _members(self, cluster: int, order: np.ndarray) -> np.ndarray:
        members = np.flatnonzero(self.label == cluster)
        return members[np.argsort(order[members], kind="stable")]


def principal(x: np.ndarray) -> np.ndarray:
    """The first principal components of x (N, K): at most `COMPONENTS`, float32."""
    components = min(COMPONENTS, *x.shape)
    if np.ptp(x, axis=0).max() == 0:  # images that are all the same
        return np.zeros((len(x), 1), np.float32)
    return PCA(components, svd_solver="randomized", random_state=0).fit_transform(x)


def find_clusters(points: np.ndarray, number: int | None = None) -> Clusters:
    """k-means; every image gets a cluster.

    Args:
        points: the principal components of a representation, (N, components); see `principal`.
        number: of clusters; None: the number in `NUMBERS` with the highest mean silhouette, on a
            sample if there are many images. If there are fewer different images, they are fewer.

    Raises:
        UserError: a number below 1.
    """
    if number is not None and number < 1:
        raise UserError(f"the number of clusters must be 1 or more, not {number}")
    scale = float(np.abs(points).max()) or 1.0
    different = len(np.unique((points / scale).round(4), axis=0))  # k-means tells no more apart
    silhouettes: dict[int, float] = {}
    if number is None:
        silhouettes = _silhouettes(points, different)
        number = next(iter(silhouettes), min(2, different))
        note = _how_clear(silhouettes, number)
    else:
        note = f"{number} groups, as asked"
        if number > different:
            note = f"{different} groups: there are no more different images"
    model = _kmeans(points, min(number, different), 5)
    used, sizes = np.unique(model.labels_, return_counts=True)  # of nearly equal images, fewer
    by_size = used[np.argsort(-sizes, kind="stable")]
    away = model.transform(points)[:, by_size]  # (N, k) distances
    label = np.argsort(by_size)[np.searchsorted(used, model.labels_)]
    nearest = np.sort(away, axis=1)[:, :2]
    certainty = np.ones(len(points))
    if away.shape[1] > 1:
        certainty = 1 - nearest[:, 0] / nearest[:, 1].clip(1e-12)
    return Clusters(label, certainty, nearest[:, 0], silhouettes, note)


def _kmeans(points: np.ndarray, number: int, starts: int) -> KMeans:
    """With one thread: more gain nothing at this size, and beside other work they cost much."""
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # nearly equal images share a cluster
        return KMeans(number, n_init=starts, random_state=0).fit(points)


def _silhouettes(points: np.ndarray, different: int) -> dict[int, float]:
    """Number of clusters -> mean silhouette of a sample, the best first."""
    some = points[np.random.default_rng(0).permutation(len(points))[:SAMPLE]]
    numbers = [number for number in NUMBERS if number <= min(different, len(some) - 1)]

    def compute() -> np.ndarray:
        away = pairwise_distances(some)
        np.fill_diagonal(away, 0)  # rounding
        labels = [_kmeans(some, number, 3).labels_ for number in numbers]
        return np.array([silhouette_score(away, label, metric="precomputed") for label in labels])

    values = kept_array(f"silhouettes-{VERSION}-{len(numbers)}", some, compute, COMPUTED)
    silhouettes = zip(numbers, values.tolist(), strict=True)
    return dict(sorted(silhouettes, key=lambda item: -item[1]))


def _how_clear(silhouettes: dict[int, float], number: int) -> str:
    if not silhouettes:
        return f"{number} groups: there are too few different images to choose a number"
    best = silhouettes[number]
    structure = next((word for least, word in STRUCTURE.items() if best >= least), "hardly any")
    note = f"{number} groups, chosen by silhouette ({best:.2f}: {structure} structure)"
    others = [f"{other} ({value:.2f})" for other, value in list(silhouettes.items())[1:3]]
    return f"{note}; next best: {', '.join(others)}" if others else note


@dataclass(frozen=True)
class Name:
    """What a cluster is called.

    Attributes:
        words: the texts on which it stands out from the rest, as numbers of texts; the name first.
            No two clusters have a word in common.
        strength: of each word: how much the images of the cluster stand out on it, 0 to 1 of the
            most that any cluster does on any word.
        margin: how much more the name fits its cluster than the next one, in standard deviations
            of the name within clusters.
    """

    words: list[int]
    strength: list[float]
    margin: float

    @property
    def weak(self) -> bool:
        """Is another cluster so near on this word that the name should not be trusted?"""
        return self.margin < WEAK


def name_clusters(standing: np.ndarray, label: np.ndarray, words: int = 3) -> list[Name]:
    """Names of clusters, from the texts of a criterion, without classes.

    The mean over a cluster says which texts fit it more than usual (the texts that fit best can be
    the same for all clusters: to a VLM, some texts are near to everything). The names are given
    one-to-one, so that their sum is the largest (the Hungarian method). The other words of a
    cluster are texts that fit it more than any other cluster.

    Args:
        standing: (N, K), see `crl.explore.words`.
        label: (N,) clusters, 0 to k - 1, none of them empty.
        words: per cluster, at most; fewer if a cluster does not stand out on as many.

    Returns:
        One `Name` per cluster; clusters for which no text is left have no words.
    """
    number = int(label.max()) + 1
    mean = np.stack([standing[label == c].mean(axis=0) for c in range(number)])  # (k, K)
    within = np.sqrt(np.mean((standing - mean[label]) ** 2, axis=0))  # (K,)
    clusters, texts = linear_sum_assignment(-mean)
    name = dict(zip(clusters.tolist(), texts.tolist(), strict=True))
    best, most = mean.argmax(axis=0), mean.max()
    names = []
    for cluster in range(number):
        if cluster not in name:
            names.append(Name([], [], 0.0))
            continue
        first = name[cluster]
        others = [
            text
            for text in np.argsort(-mean[cluster], kind="stable").tolist()
            if best[text] == cluster and text not in name.values() and mean[cluster, text] > 0
        ]
        chosen = [first, *others[: words - 1]]
        strength = (mean[cluster, chosen] / most).clip(0, 1) if most > 0 else np.zeros(len(chosen))
        elsewhere = np.delete(mean[:, first], cluster)
        gap = mean[cluster, first] - elsewhere.max() if len(elsewhere) else 0.0
        names.append(Name(chosen, strength.tolist(), float(gap / max(within[first], 1e-12))))
    return names
