"""SpLiCE: few of the texts, with weights of 0 or above, that add up to an image.

    z = l2(I - mean of I),   C = l2(T - mean of T)
    w = argmin |z - w C|² / 2 + penalty * m * sum of w,   w >= 0,   m: the largest entry of z Cᵀ
    I -> l2(w), (N, K)

Source: Bhalla et al., NeurIPS 2024, and the authors' code AI4LIFE-GROUP/SpLiCE (no license found;
read, not copied). Supervision: none; it learns the mean of the images.

What differs: their penalty is a number for all images, ours a share of the penalty that leaves no
text at all (m), so that every image has texts with every VLM; their texts are 10,000 words, ours
those of the criterion; they take one mean of images for all data. Of Q query vectors per image the
mean is taken, since a sparse code is of one vector. The solver is scikit-learn's coordinate
descent.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.decomposition import sparse_encode
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from crl.projection import ConditionalProjection, l2, single_vector
from crl.representations.axes import principal_axes


class Representation(ConditionalProjection):
    """`penalty`: above 0, below 1. Above 0.9 few images have more than one text."""

    def __init__(
        self, text_embeddings: Any, texts: Sequence[str] | None = None, penalty: float = 0.5
    ) -> None:
        super().__init__(text_embeddings, texts)
        self.penalty = penalty

    def fit(self, X: Any, y: Any = None) -> "Representation":
        if not 0 < self.penalty < 1:
            raise ValueError(f"penalty must be above 0 and below 1, not {self.penalty}")
        self.mean_ = single_vector(l2(self._start(X))).mean(axis=0)
        centred = self.text_ - self.text_.mean(axis=0)
        principal_axes(centred)  # do they differ?
        self.concepts_ = l2(centred)
        return self

    def transform(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        z = l2(single_vector(l2(self._checked(X))) - self.mean_)  # (N, D)
        dtype = np.result_type(z, self.concepts_)
        z, concepts = z.astype(float), self.concepts_.astype(float)  # float32 does not converge
        largest = (z @ concepts.T).max(axis=1, keepdims=True)
        z = np.divide(z, largest, out=np.zeros_like(z), where=largest > 1e-6)  # m is 1
        how: dict[str, Any] = {"algorithm": "lasso_cd", "positive": True}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # what is missing is below 0.001
            return l2(sparse_encode(z, concepts, alpha=self.penalty, **how)).astype(dtype)
