"""CRL's fashion retrieval (paper, Table 4): aligned bases, triplets, loss, mean average precision.

Shapes: I (N, D) images; T_a (K, D) the text basis of attribute a; Q queries; C candidates. Queries
and candidates are tables of three columns: index of an image, attribute, value.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor

from crl.run.ranking import average_precision, query_parts

Represent = Callable[[np.ndarray, int], np.ndarray]  # images (n,), attribute -> (n, W) unit rows


def align(text: np.ndarray, width: int) -> np.ndarray:
    """Bring a basis to the width of a smaller one: T (K, D), unit rows -> (width, D).

    PCA with the D dimensions as samples and the K texts as features, as in the authors' code:
    `PCA(n_components=width).fit_transform(T.T).T`. A basis of `width` texts is not changed. The
    full SVD is computed, since scikit-learn might choose a randomised one without a seed. Each
    component's largest loading is made positive: signs change no cosine similarity, but a head's
    input. D samples have at most D components with any variance; further rows are zeros.
    """
    if width == len(text):
        return text
    components = min(width, text.shape[1])
    pca = PCA(n_components=components, svd_solver="full")
    # float64, so that rounding does not decide a sign; (D, K) -> (D, components)
    reduced = pca.fit_transform(text.T.astype(np.float64))
    # scikit-learn's own rule since 1.5, written here so that 1.4 gives the same result
    largest = np.abs(pca.components_).argmax(axis=1)[:, None]
    signs = np.sign(np.take_along_axis(pca.components_, largest, axis=1))  # (components, 1)
    return np.pad(signs * reduced.T, ((0, width - components), (0, 0))).astype(text.dtype)


class TripletSampler:
    """Draws triplets as ASEN (Ma et al., AAAI 2020) and the authors of CRL do: an attribute,
    uniformly; two of its values; two distinct images of the first value and one of the second.

    The first value needs two images: pairs where it has one, at which the authors' code stops, are
    never drawn. As in their code, a negative with several values may have the first value too.

    `labels`: (L, 3) int64; index of an image, attribute, value. Each attribute makes triplets, see
    `datasets.load`. They are kept as the distinct rows, sorted by attribute, value and image, so
    that no image is its own positive.
    """

    def __init__(self, labels: np.ndarray) -> None:
        self.labels = np.unique(labels[:, [1, 2, 0]], axis=0)[:, [2, 0, 1]]
        # A group is one value of one attribute: `_size` rows of `labels`, beginning at `_start`.
        groups, self._start, self._size = np.unique(
            self.labels[:, 1:], axis=0, return_index=True, return_counts=True
        )
        self._firsts = np.flatnonzero(self._size > 1)  # groups that can be a first value
        attributes = np.arange(groups[:, 0].max() + 2)
        # Attribute a has the groups _group[a] to _group[a + 1] - 1, and those of `_firsts` from
        # _first[a] to _first[a + 1] - 1.
        self._group = np.searchsorted(groups[:, 0], attributes)
        self._first = np.searchsorted(groups[self._firsts, 0], attributes)

    def draw(self, count: int, *seed: int) -> np.ndarray:
        """(count, 3) rows of `labels`: anchor, positive, negative; `seed`: seed, epoch, ..."""
        rng = np.random.default_rng(seed)
        attribute = rng.integers(len(self._group) - 1, size=count)
        first = self._firsts[rng.integers(self._first[attribute], self._first[attribute + 1])]
        # To draw one of n but not the one already taken: draw one of n - 1 and skip the taken one.
        second = rng.integers(self._group[attribute], self._group[attribute + 1] - 1)
        second += second >= first
        anchor = rng.integers(self._size[first])
        positive = rng.integers(self._size[first] - 1)
        positive += positive >= anchor
        negative = self._start[second] + rng.integers(self._size[second])
        start = self._start[first]
        return np.column_stack([start + anchor, start + positive, negative])


def triplet_loss(anchor: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """Mean of max(0, margin - anchor · positive + anchor · negative); (B, D) each, unit rows."""
    return F.relu(margin + (anchor * (negative - positive)).sum(1)).mean()


def stacked_triplet_loss(rows: Tensor, margin: float) -> Tensor:
    """`triplet_loss` of (3B, D), unit rows: the anchors, the positives, the negatives."""
    anchor, positive, negative = rows.unflatten(0, (3, -1))
    return triplet_loss(anchor, positive, negative, margin)


def retrieval_precision(
    represent: Represent, query: np.ndarray, candidate: np.ndarray
) -> np.ndarray:
    """Average precision (Q,) of each query (Q, 3) among the candidates (C, 3) of its attribute."""
    precision = np.zeros(len(query))
    for a, q, c in by_attribute(query, candidate):
        near, far = represent(query[q, 0], a), represent(candidate[c, 0], a)  # (q, W), (c, W)
        for part in query_parts(len(q), len(c)):
            similarity, values = near[part] @ far.T, query[q[part], 2]
            precision[q[part]] = average_precision(similarity, values, candidate[c, 2])
    return precision


def random_draw(query: np.ndarray, candidate: np.ndarray, seed: int) -> np.ndarray:
    """Average precision (Q,) of one random ranking per query."""
    rng = np.random.default_rng(seed)
    precision = np.zeros(len(query))
    for _, q, c in by_attribute(query, candidate):
        q = q[np.argsort(query[q, 2], kind="stable")]  # the order of the random draws
        for part in query_parts(len(q), len(c)):
            similarity = rng.random((len(part), len(c)), np.float32)
            precision[q[part]] = average_precision(similarity, query[q[part], 2], candidate[c, 2])
    return precision


def random_expectation(query: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Exact mean (Q,) of average precision over all rankings, computed with all candidates tied.
    With R of C candidates relevant and H = 1/1 + ... + 1/C: (H + (R - 1) / (C - 1) * (C - H)) / C.
    """
    tied = np.zeros((1, 1), np.float32)
    return retrieval_precision(lambda images, _: tied.repeat(len(images), 0), query, candidate)


def by_attribute(
    query: np.ndarray, candidate: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield each attribute, and the rows of its queries and of its candidates."""
    for a in np.unique(query[:, 1]).tolist():
        yield a, np.flatnonzero(query[:, 1] == a), np.flatnonzero(candidate[:, 1] == a)


def mean_scores(precision: np.ndarray, query: np.ndarray, attributes: list[str]) -> dict:
    """mAP in percent: per attribute; `overall` (each query has the same weight); and `mean` (each
    attribute has the same weight, as in the paper's Mean)."""
    each = [100 * float(precision[query[:, 1] == a].mean()) for a in range(len(attributes))]
    named = dict(zip(attributes, each, strict=True))
    return {**named, "overall": 100 * float(precision.mean()), "mean": float(np.mean(each))}


def without_relevant(query: np.ndarray, candidate: np.ndarray) -> int:
    """How many queries have no candidate of their attribute and value."""
    kinds = set(map(tuple, candidate[:, 1:].tolist()))
    return sum(kind not in kinds for kind in map(tuple, query[:, 1:].tolist()))
