"""The conditional representation R = I Tᵀ (paper, Section 3).

    criterion --LLM--> texts --VLM--> T (K, D);   images --VLM--> I (N, D);   R = I Tᵀ (N, K)

What goes beyond the paper is in `crl.representations`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

ROWS_AT_ONCE = 2**16  # of R


def l2(x: np.ndarray) -> np.ndarray:
    """Scale the last axis to unit length; rows of zeros stay zeros, unit rows stay to the bit.

    >>> l2(np.array([[3.0, 4.0]]))
    array([[0.6, 0.8]])
    """
    length = np.linalg.norm(x, axis=-1, keepdims=True)
    limits = np.finfo(length.dtype)
    unit = abs(length - 1) <= 8 * limits.eps  # rounding
    return x / np.where(unit, 1, length).clip(limits.tiny)


def project(image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """R = I Tᵀ, (N, K): cosine similarity of every image to every text of the basis.

    Args:
        image: I, (N, D) unit rows; or (N, Q, D) for a VLM that gives Q query vectors per image
            (BLIP-2): the similarity to a text is then the maximum over the Q vectors.
        text: T, (K, D) unit rows.
    """
    if image.ndim == 3:  # one query vector at a time: (N, Q, K) would need Q times the memory
        return np.max([image[:, q] @ text.T for q in range(image.shape[1])], axis=0)
    return image @ text.T


def single_vector(image: np.ndarray) -> np.ndarray:
    """The universal representation I of a VLM that gives Q query vectors per image: their mean.

    The paper does not say how it reduces the 32 vectors of BLIP-2; R needs no reduction.
    (N, Q, D) -> (N, D), unit rows; (N, D) is returned unchanged.
    """
    return image if image.ndim == 2 else l2(image.mean(axis=1))


def standardise(r: np.ndarray, mean: float | None = None) -> np.ndarray:
    """The paper's few-shot normalisation of R (N, K): (R - mean of all R) / std of each row.

    As in the authors' code, the mean is one scalar (or `mean`, if given), and ddof = 1. A row whose
    similarities are all the same (an image of zeros) says nothing, and becomes zeros. A single
    column, which no basis has but an axis may be, stays as it is.
    """
    if r.shape[1] == 1:
        return r
    spread = r.std(axis=1, ddof=1, keepdims=True)
    return (r - (r.mean() if mean is None else mean)) / np.where(spread > 0, spread, np.inf)


def parts(images: int, most: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Rows in parts of `most`, so that memory is bounded for any number of images."""
    most = min(most, ROWS_AT_ONCE)
    return (slice(start, start + most) for start in range(0, images, most))


class ConditionalProjection(TransformerMixin, BaseEstimator):
    """R = I Tᵀ as a scikit-learn transformer: image embeddings in, conditional ones out.

    >>> text = np.eye(2, 3)
    >>> ConditionalProjection(text, ["red", "blue"]).fit_transform(np.array([[3.0, 4.0, 0.0]]))
    array([[0.6, 0.8]])

    Args:
        text_embeddings: T, (K, D), rows of any length: they are scaled to unit length here.
        texts: the K texts; each names one dimension of R.
        normalise: `l2` (unit rows, as in the paper's clustering), `standardise` (as in its few-shot
            classification; `fit` learns the scalar mean), or None (plain cosine similarities).

    A ValueError for NaN, infinity, complex numbers, or another D than that of T. Rows of zeros stay
    zeros.
    """

    supervision = "none"  # beside T; see `crl.representations`
    _rows_at_once = ROWS_AT_ONCE

    def __init__(
        self, text_embeddings: Any, texts: Sequence[str] | None = None, normalise: str | None = "l2"
    ) -> None:
        self.text_embeddings = text_embeddings
        self.texts = texts
        self.normalise = normalise

    def fit(self, X: Any, y: Any = None) -> "ConditionalProjection":
        """Check X, (N, D) or (N, Q, D) image embeddings of any length; learn the mean."""
        if self.normalise not in ("l2", "standardise", None):
            raise ValueError(f"unknown normalise {self.normalise!r}: 'l2', 'standardise' or None")
        X = self._start(X)
        if self.normalise == "standardise":
            some = (X[rows] for rows in parts(len(X)))
            self.mean_ = sum(self._similarities(x).mean() * (len(x) / len(X)) for x in some)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """R of X, (N, K). Computed in parts: beside R itself, memory does not grow with N."""
        check_is_fitted(self)
        X = self._checked(X)
        r = self._empty(X)
        for rows in parts(len(X), self._rows_at_once):
            r[rows] = self._scaled(self._similarities(X[rows]))
        return r

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """The K texts: each dimension of R is the similarity to one of them. A text that comes
        again is numbered, `red (2)`: tables need distinct names."""
        check_is_fitted(self)
        counts: Counter[str] = Counter()
        names = []
        for text in map(str, range(len(self.text_)) if self.texts is None else self.texts):
            counts[text] += 1
            names.append(f"{text} ({counts[text]})" if counts[text] > 1 else text)
        return np.array(names, dtype=object)

    def _start(self, X: Any) -> np.ndarray:
        X = self._checked(X, reset=True)
        text = check_array(self.text_embeddings, input_name="text_embeddings")  # (K, D)
        if text.shape[1] != self.n_features_in_:
            d = text.shape[1]
            raise ValueError(f"image embeddings must be (N, {d}) or (N, Q, {d}), not {X.shape}")
        if self.texts is not None and len(self.texts) != len(text):
            raise ValueError(f"{len(self.texts)} texts for {len(text)} text embeddings")
        self.text_ = l2(text)
        return X

    def _empty(self, X: np.ndarray) -> np.ndarray:
        return np.empty((len(X), len(self.text_)), np.result_type(X, self.text_, np.float32))

    def _similarities(self, X: np.ndarray) -> np.ndarray:
        return project(l2(X), self.text_)  # R = I Tᵀ

    def _scaled(self, r: np.ndarray) -> np.ndarray:
        if self.normalise == "standardise":
            return standardise(r, self.mean_)
        return l2(r) if self.normalise == "l2" else r

    def _checked(self, X: Any, reset: bool = False) -> np.ndarray:
        """X as scikit-learn checks it; of (N, Q, D) each of the N Q vectors is a row."""
        X = np.asarray(X) if isinstance(X, (list, tuple)) else X
        if getattr(X, "ndim", 2) != 3:
            return validate_data(self, X, reset=reset)
        X = np.asarray(X)
        return validate_data(self, X.reshape(-1, X.shape[2]), reset=reset).reshape(X.shape)
