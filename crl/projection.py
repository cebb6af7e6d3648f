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


class ConditionalProjection(TransformerMixin, BaseEstimator):
    """R = I Tᵀ as a scikit-learn transformer: image embeddings in, conditional ones out.

    >>> text = np.eye(2, 3)
    >>> ConditionalProjection(text, ["red", "blue"]).fit_transform(np.array([[3.0, 4.0, 0.0]]))
    array([[0.6, 0.8]])

    Args:
        text_embeddings: T, (K, D), rows of any length: they are L2-normalised here.
        texts: the K texts; each names one dimension of R.
        normalise: `l2` (paper's clustering: unit rows), `standardise` (paper's few-shot; `fit`
            learns its scalar mean), or None (plain cosine similarities).
    """

    def __init__(self, text_embeddings, texts=None, normalise="l2"):
        self.text_embeddings = text_embeddings
        self.texts = texts
        self.normalise = normalise

    def fit(self, X, y=None):
        """Check X, (N, D) or (N, Q, D) image embeddings of any length, and learn the mean."""
        text = np.asarray(self.text_embeddings)
        if text.ndim != 2 or not len(text):
            raise ValueError(f"text_embeddings must be (K, D) with K > 0, not {text.shape}")
        if self.texts is not None and len(self.texts) != len(text):
            raise ValueError(f"{len(self.texts)} texts for {len(text)} text embeddings")
        if self.normalise not in ("l2", "standardise", None):
            raise ValueError(f"normalise must be 'l2', 'standardise' or None: {self.normalise!r}")
        self.text_ = l2(text)
        self.n_features_in_ = text.shape[1]
        X = self._checked(X)
        self.mean_ = project(l2(X), self.text_).mean() if self.normalise == "standardise" else None
        return self

    def transform(self, X):
        """R of X, (N, K)."""
        check_is_fitted(self)
        r = project(l2(self._checked(X)), self.text_)
        if self.normalise == "l2":
            return l2(r)
        if self.normalise == "standardise":
            return standardise(r, self.mean_)
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
