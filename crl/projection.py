"""The conditional representation R = I Tᵀ, and the normalisations that the paper applies to it."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted


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
    sigma = float(r.std(axis=1).mean())
    if not sigma > 0:
        raise ValueError("all similarities of an image are equal; the basis needs other texts")
    return sigma


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
        return l2(np.exp(from_best * (sharpness / (2 * sigma))))


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
    """

    def __init__(self, text_embeddings, texts=None, normalise="l2", sharpness=1.0):
        self.text_embeddings = text_embeddings
        self.texts = texts
        self.normalise = normalise
        self.sharpness = sharpness

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
        self.text_ = l2(text)
        self.n_features_in_ = text.shape[1]
        X = self._checked(X)
        self.mean_ = self.sigma_ = None
        if self.normalise == "standardise":
            self.mean_ = project(l2(X), self.text_).mean()
        if self.normalise == "posterior":
            self.sigma_ = spread(project(l2(X), self.text_))
        return self

    def transform(self, X):
        """R of X, (N, K)."""
        check_is_fitted(self)
        r = project(l2(self._checked(X)), self.text_)
        if self.normalise == "l2":
            return l2(r)
        if self.normalise == "standardise":
            return standardise(r, self.mean_)
        if self.normalise == "posterior":
            return posterior(r, self.sigma_, self.sharpness)
        return r

    def get_feature_names_out(self, input_features=None):
        """The K texts: each dimension of R is the similarity to one of them."""
        check_is_fitted(self)
        texts = self.texts if self.texts is not None else range(len(self.text_))
        return np.array([str(text) for text in texts], dtype=object)

    def _checked(self, X) -> np.ndarray:
        X = np.asarray(X)
        if X.ndim not in (2, 3) or X.shape[-1] != self.n_features_in_:
            raise ValueError(
                f"image embeddings must be (N, {self.n_features_in_}) or "
                f"(N, Q, {self.n_features_in_}) to fit the texts, not {X.shape}"
            )
        return X
