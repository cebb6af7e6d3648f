"""The conditional representation R = I Tᵀ, and the normalisations that the paper applies to it."""

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.utils.validation import check_is_fitted

from crl.run.errors import UserError


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
        image: I, (N, D) L2-normalised rows; or (N, Q, D) for a VLM that gives Q query vectors an
            image (BLIP-2), whose similarity to a text is the maximum over the Q.
        text: T, (K, D) L2-normalised rows.

    Returns:
        R, (N, K).
    """
    if image.ndim == 3:
        # a query at a time: (N, Q, K) at once would need Q times the memory of the result
        return np.max([image[:, q] @ text.T for q in range(image.shape[1])], axis=0)
    return image @ text.T


def standardise(r: np.ndarray, mean: float | None = None) -> np.ndarray:
    """The paper's few-shot normalisation of R (N, K): (R - mean of all R) / std of each row.

    The mean is one scalar over the whole matrix (or `mean`, if given), the standard deviation is
    unbiased (ddof = 1) and belongs to each row, as in the authors' code.
    """
    return (r - (r.mean() if mean is None else mean)) / r.std(axis=1, ddof=1, keepdims=True)


def align(text: np.ndarray, width: int) -> np.ndarray:
    """Bring a basis to the width of a smaller one: (K, D) -> (width, D); fashion retrieval does.

    PCA with the D dimensions as samples and the K texts as features, as in the authors' code:
    `PCA(n_components=width).fit_transform(T.T).T`. A basis of `width` texts stays as it is. Rows
    of the result are principal mixtures of texts, not texts, and not of unit length.

    The singular values are computed in full: scikit-learn's automatic choice is a randomised,
    unseeded approximation for bases such as the paper's. The largest loading of each component is
    positive: signs change no cosine similarity of I @ align(T).T, but what a head is fed.

    Args:
        text: T, (K, D) L2-normalised rows.
        width: at most K and D.

    Raises:
        UserError: `width` is larger than K or D.
    """
    if width == len(text):
        return text
    if width > min(text.shape):
        raise UserError(
            f"{text.shape[0]} texts of {text.shape[1]} dimensions cannot be reduced to {width}; "
            "use a smaller basis for the attribute that has the fewest texts"
        )
    # float64: the signs then do not hang on the rounding of one machine
    samples = text.T.astype(np.float64)  # (D, K)
    pca = PCA(n_components=width, svd_solver="full")
    reduced = pca.fit_transform(samples)  # (D, width)
    # scikit-learn's own rule since 1.5, stated here so that 1.4 gives the same
    largest = np.abs(pca.components_).argmax(axis=1)[:, None]
    signs = np.sign(np.take_along_axis(pca.components_, largest, axis=1))  # (width, 1)
    return (signs * reduced.T).astype(text.dtype)


class ConditionalProjection(TransformerMixin, BaseEstimator):
    """R = I Tᵀ as a scikit-learn transformer: image embeddings in, conditional ones out.

    >>> text = np.eye(2, 3)
    >>> ConditionalProjection(text, ["red", "blue"]).fit_transform(np.array([[3.0, 4.0, 0.0]]))
    array([[0.6, 0.8]])

    Args:
        text_embeddings: T, (K, D), of any length: they are L2-normalised here.
        texts: the K texts; each names one dimension of R.
        normalise: `l2` (paper's clustering: unit rows), `standardise` (paper's few-shot; its one
            scalar mean is learnt by `fit`), or None (plain cosine similarities).
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
