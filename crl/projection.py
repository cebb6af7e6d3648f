"""The conditional representation R = I Tᵀ, and what is made of it.

project, standardise, l2         the paper
posterior, null_space, weighted  beyond the paper: sharper, without other criteria, of several
ConditionalProjection            all of it as a scikit-learn transformer
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

ROWS_AT_ONCE = 2**16  # of R


def l2(x: np.ndarray) -> np.ndarray:
    """Scale the last axis to unit length; rows of zeros stay zeros.

    >>> l2(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / length.clip(np.finfo(length.dtype).tiny)


def project(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """R = I Tᵀ: similarity of every image to every text of the basis.

    Args:
        image: I, (N, D) L2-normalised rows; or (N, Q, D) for a VLM that gives Q query vectors per
            image (BLIP-2); the similarity to a text is then the maximum over the Q vectors.
        text: T, (K, D) L2-normalised rows.

    Returns:
        R, (N, K).
    """
    if image.ndim == 3:
        # one query vector at a time: (N, Q, K) would need Q times the memory of the result
        return np.max([image[:, q] @ text.T for q in range(image.shape[1])], axis=0)
    return image @ text.T


def standardise(r: np.ndarray, mean: float | None = None) -> np.ndarray:
    """The paper's few-shot normalisation of R (N, K): (R - mean of all R) / std of each row.

    As in the authors' code, the mean is one scalar over the whole matrix (or `mean`, if given). The
    standard deviation is that of each row, unbiased (ddof = 1).
    """
    return (r - (r.mean() if mean is None else mean)) / r.std(axis=1, ddof=1, keepdims=True)


def spread(r: np.ndarray) -> float:
    """sigma: the mean over images of the standard deviation over texts of R (N, K).

    Raises:
        ValueError: all similarities of each image are equal, so that R says nothing.
    """
    return _spread(lambda rows: r[rows], len(r))


def _spread(similarities: Callable[[slice], np.ndarray], images: int) -> float:
    """`spread` of R, given by parts: rows -> their R."""
    total, largest = 0.0, 0.0
    for rows in parts(images):
        r = similarities(rows)
        total += float(r.std(axis=1).mean()) * len(r)
        largest = max(largest, float(abs(r).max()))
    sigma = total / images
    if not sigma > 4 * np.finfo(r.dtype).eps * largest:  # rounding is no difference
        raise ValueError("all similarities of an image are equal; the basis needs other texts")
    return sigma


def parts(images: int) -> Iterator[slice]:
    """Rows in parts, so that memory is bounded for any number of images."""
    return (slice(start, start + ROWS_AT_ONCE) for start in range(0, images, ROWS_AT_ONCE))


def posterior(r: np.ndarray, sigma: float, sharpness: float = 1.0) -> np.ndarray:
    """R' = sqrt(softmax(sharpness * R / sigma)), row by row: (N, K), unit rows.

    Beyond the paper. A row of softmax(R) is a posterior over the K texts (a semantic multinomial,
    Rasiwasia et al. 2007), and the dot product of two rows of R' is their Bhattacharyya
    coefficient. Adding a constant to R changes nothing, so a level that all similarities share
    cancels; with `sigma = spread(R)`, neither does a scale. With sharpness -> 0, R' is R with
    centred rows, up to a scale and a constant; with sharpness -> infinity, each row is the one-hot
    vector of the most similar text.

    >>> posterior(np.log([[1.0, 4.0, 4.0]]), sigma=1.0).round(3)
    array([[0.333, 0.667, 0.667]])
    """
    with np.errstate(over="ignore"):  # to minus infinity, of which exp is 0
        from_best = r - r.max(axis=1, keepdims=True)  # <= 0
        factor = min(sharpness / (2 * sigma), float(np.finfo(from_best.dtype).max))
        return l2(np.exp(from_best * factor))


def null_space(others: Sequence[np.ndarray], rank: int | None = None) -> np.ndarray:
    """Directions of the embedding space in which the texts of other criteria differ.

    Beyond the paper (OD-CRL, arXiv 2602.05464, has the same idea). `without` removes them from the
    images, so that R no longer follows what the other criteria explain.

    Args:
        others: T of each other criterion, (K_b, D), L2-normalised rows. Each is centred first:
            what all its texts share is no difference between images.
        rank: how many principal directions of each T to take; None: the fewest that explain half
            of its variance. More of them also remove what the own criterion needs.

    Returns:
        (d, D), orthonormal rows, d at most D.

    Raises:
        ValueError: no others, a rank below 1, or texts that are all the same.
    """
    if not len(others) or (rank is not None and rank < 1):
        raise ValueError("null_space needs one other criterion or more, and a rank of 1 or more")
    found = []
    for text in others:
        _, s, directions = np.linalg.svd(text - text.mean(axis=0), full_matrices=False)
        s = s[s > 1e-6 * len(text)]  # the others are rounding
        if not len(s):
            raise ValueError("the texts of another criterion are all the same to the VLM")
        explained = np.cumsum(s**2) / np.sum(s**2)
        half = int(np.searchsorted(explained, 0.5)) + 1
        found.append(directions[: half if rank is None else min(rank, len(s))])
    _, s, directions = np.linalg.svd(np.concatenate(found), full_matrices=False)
    return directions[s > 1e-3]  # the same direction, found in two criteria, counts once


def without(image: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """I without its part in the given directions, (N, D) or (N, Q, D), unit rows; a row that lies
    in them becomes zeros.

    Args:
        image: I, L2-normalised rows.
        directions: (d, D), orthonormal rows, of `null_space`.
    """
    rest = image - (image @ directions.T) @ directions
    rounding = np.linalg.norm(rest, axis=-1, keepdims=True) <= 100 * np.finfo(rest.dtype).eps
    return l2(np.where(rounding, 0, rest))


def overlap(text: np.ndarray, directions: np.ndarray) -> float:
    """Which fraction of the variance of a basis lies in the given directions, 0 to 1.

    It needs no images and no labels. If it is large, the criteria overlap, and `without` removes
    what the basis is about.

    Args:
        text: T, (K, D), L2-normalised rows.
        directions: (d, D), orthonormal rows, of `null_space`.
    """
    centred = text - text.mean(axis=0)
    return float(np.sum((centred @ directions.T) ** 2) / np.sum(centred**2))


def weighted(parts: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> np.ndarray:
    """One representation for several criteria: the dot product of two rows is the weighted mean of
    their similarities under each criterion.

    Args:
        parts: criterion: its representation R (N, K_c), unit rows.
        weights: criterion: its weight, 0 or above. Criteria that are not named have weight 0.

    Returns:
        The parts times the root of their weight, side by side: (N, sum of K_c), unit rows. They
        can be clustered or searched like any R.

    Raises:
        ValueError: an unknown criterion, a weight below 0 (see `weighted_similarity`) or not
            finite, or no weight above 0.

    >>> parts = {"color": np.array([[1.0, 0.0]]), "shape": np.array([[0.0, 1.0]])}
    >>> weighted(parts, {"color": 9, "shape": 16})
    array([[0.6, 0. , 0. , 0.8]])
    """
    shares = _shares(parts, weights)
    if min(shares.values()) < 0:
        raise ValueError(
            "a negative weight ranks, but cannot be clustered; use weighted_similarity"
        )
    return np.concatenate([math.sqrt(w) * parts[c] for c, w in shares.items()], axis=1)


def weighted_similarity(
    queries: Mapping[str, np.ndarray],
    candidates: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
) -> np.ndarray:
    """Similarity of queries to candidates under several criteria; a negative weight means "unlike".

    Args:
        queries, candidates: criterion: its representation, (Q, K_c) and (C, K_c), unit rows.
        weights: criterion: its weight, e.g. `{"shape": 1, "color": -1}`.

    Returns:
        (Q, C): the sum of weight * similarity over criteria, divided by the sum of |weight|.

    Raises:
        ValueError: an unknown criterion, a weight that is not finite, or no weight but 0.
    """
    shares = _shares({c: x for c, x in queries.items() if c in candidates}, weights)
    return np.sum([w * (queries[c] @ candidates[c].T) for c, w in shares.items()], axis=0)


def _shares(parts: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> dict[str, float]:
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


class ConditionalProjection(TransformerMixin, BaseEstimator):
    """R = I Tᵀ as a scikit-learn transformer: image embeddings in, conditional ones out.

    >>> text = np.eye(2, 3)
    >>> ConditionalProjection(text, ["red", "blue"]).fit_transform(np.array([[3.0, 4.0, 0.0]]))
    array([[0.6, 0.8]])

    Args:
        text_embeddings: T, (K, D), rows of any length: they are L2-normalised here.
        texts: the K texts; each names one dimension of R.
        normalise: `l2` (paper's clustering: unit rows), `standardise` (paper's few-shot; `fit`
            learns its scalar mean), `posterior` (beyond the paper, see `posterior`; `fit` learns
            sigma), or None (plain cosine similarities).
        sharpness: of the posterior; above 0.
        removed: (d, D), directions to remove from I first (beyond the paper, see `null_space`).
    """

    def __init__(self, text_embeddings, texts=None, normalise="l2", sharpness=1.0, removed=None):
        self.text_embeddings = text_embeddings
        self.texts = texts
        self.normalise = normalise
        self.sharpness = sharpness
        self.removed = removed

    def fit(self, X, y=None):
        """Check X, (N, D) or (N, Q, D) image embeddings of any length; learn the mean or sigma."""
        text = np.asarray(self.text_embeddings)
        if text.ndim != 2 or not len(text):
            raise ValueError(f"text_embeddings must be (K, D) with K > 0, not {text.shape}")
        if self.texts is not None and len(self.texts) != len(text):
            raise ValueError(f"{len(self.texts)} texts for {len(text)} text embeddings")
        if self.normalise not in ("l2", "standardise", "posterior", None):
            raise ValueError(
                "normalise must be 'l2', 'standardise', 'posterior' or None, not "
                f"{self.normalise!r}"
            )
        if not 0 < self.sharpness < np.inf:
            raise ValueError(f"sharpness must be above 0 and finite, not {self.sharpness}")
        if self.removed is not None and np.shape(self.removed)[1:] != text.shape[1:]:
            raise ValueError(
                f"removed must be (d, {text.shape[1]}) to fit the texts, not "
                f"{np.shape(self.removed)}"
            )
        self.text_ = l2(text)
        self.n_features_in_ = text.shape[1]
        X = self._checked(X)
        if not len(X):
            raise ValueError("fit needs one image or more")
        self.mean_ = self.sigma_ = None
        if self.normalise == "standardise":
            means = [(self._similarities(X[rows]).mean(), len(X[rows])) for rows in parts(len(X))]
            self.mean_ = sum(mean * (rows / len(X)) for mean, rows in means)
        if self.normalise == "posterior":
            self.sigma_ = _spread(lambda rows: self._similarities(X[rows]), len(X))
        return self

    def transform(self, X):
        """R of X, (N, K). Computed in parts: beside R itself, memory does not grow with N."""
        check_is_fitted(self)
        X = self._checked(X)
        r = np.empty((len(X), len(self.text_)), np.result_type(X, self.text_, np.float32))
        for rows in parts(len(X)):
            r[rows] = self._normalised(self._similarities(X[rows]))
        return r

    def get_feature_names_out(self, input_features=None):
        """The K texts: each dimension of R is the similarity to one of them."""
        check_is_fitted(self)
        texts = self.texts if self.texts is not None else range(len(self.text_))
        return np.array([str(text) for text in texts], dtype=object)

    def _similarities(self, X) -> np.ndarray:
        image = l2(X)
        if self.removed is not None:
            image = without(image, np.asarray(self.removed))
        return project(image, self.text_)  # R = I Tᵀ

    def _normalised(self, r: np.ndarray) -> np.ndarray:
        if self.normalise == "l2":
            return l2(r)
        if self.normalise == "standardise":
            return standardise(r, self.mean_)
        if self.normalise == "posterior":
            return posterior(r, self.sigma_, self.sharpness)
        return r

    def _checked(self, X) -> np.ndarray:
        X = np.asarray(X)
        if X.ndim not in (2, 3) or X.shape[-1] != self.n_features_in_:
            raise ValueError(
                f"image embeddings must be (N, {self.n_features_in_}) or "
                f"(N, Q, {self.n_features_in_}) to fit the texts, not {X.shape}"
            )
        return X
