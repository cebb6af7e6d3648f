"""The posterior over the texts of a criterion.

    R' = sqrt(softmax(sharpness * R / sigma)), row by row,   sigma: the mean spread of a row of R

A row of softmax(R / sigma) is a posterior over the K texts (a semantic multinomial, Rasiwasia et
al., 2007), and the dot product of two rows of R' is their Bhattacharyya coefficient. A level that
all similarities share cancels, and so does a scale: R' of a R + b is R'. No supervision.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from crl.projection import ConditionalProjection, l2, parts

ROWS_AT_ONCE = 2**12  # of R and I: what is computed from them row by row stays in the cache


class Representation(ConditionalProjection):
    """I (N, D) or (N, Q, D) -> R' (N, K), unit rows; `fit` learns sigma. With sharpness -> 0, R' is
    R with centred rows, up to a scale and a constant; with sharpness -> infinity, each row is the
    one-hot vector of the most similar text. 1 suits most VLMs, 0.7 weak ones."""

    _rows_at_once = ROWS_AT_ONCE

    def __init__(
        self, text_embeddings: Any, texts: Sequence[str] | None = None, sharpness: float = 1.0
    ) -> None:
        super().__init__(text_embeddings, texts)
        self.sharpness = sharpness

    def fit(self, X: Any, y: Any = None) -> "Representation":
        """Learn sigma from X, image embeddings of any length. A ValueError if shapes or sharpness
        are impossible, or if all similarities of each image are equal."""
        X = self._start(X)
        self.sigma_ = spread(lambda rows: self._similarities(X[rows]), len(X))
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        """R' of X, (N, K), as by `fit` and `transform`, but R = I Tᵀ is computed once."""
        X = self._start(X)
        r = self._empty(X)

        def similarities(rows: slice) -> np.ndarray:
            r[rows] = self._similarities(X[rows])
            return r[rows]

        self.sigma_ = spread(similarities, len(X))
        for rows in parts(len(X), ROWS_AT_ONCE):
            r[rows] = self._scaled(r[rows])
        return r

    def _start(self, X: Any) -> np.ndarray:
        if not 0 < self.sharpness < np.inf:
            raise ValueError(f"sharpness must be above 0 and finite, not {self.sharpness}")
        return super()._start(X)

    def _scaled(self, r: np.ndarray) -> np.ndarray:
        return posterior(r, self.sigma_, self.sharpness)


def posterior(r: np.ndarray, sigma: float, sharpness: float = 1.0) -> np.ndarray:
    """R' of R, (N, K): unit rows."""
    with np.errstate(over="ignore"):  # to minus infinity, of which exp is 0
        x = r - r.max(axis=1, keepdims=True)  # <= 0
        x *= min(sharpness / (2 * sigma), float(np.finfo(x.dtype).max))
        return l2(np.exp(x, out=x))


def spread(similarities: Callable[[slice], np.ndarray], images: int) -> float:
    """sigma: the mean over images of the standard deviation over texts of R. `similarities` maps
    some rows to their R (n, K), so R is never in memory as a whole."""
    total, largest = 0.0, 0.0
    for rows in parts(images, ROWS_AT_ONCE):
        r = similarities(rows)
        total += float(r.std(axis=1).mean()) * len(r)
        largest = max(largest, float(abs(r).max()))
    sigma = total / images
    if not sigma > 4 * np.finfo(r.dtype).eps * largest:  # rounding is no difference
        raise ValueError("all similarities of an image are equal; the basis needs other texts")
    return sigma
