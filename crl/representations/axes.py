"""What some representations share: axes of their own in place of texts; learning from labels."""

from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from crl.projection import ConditionalProjection, l2, single_vector
from crl.run.errors import UserError


class AxesProjection(ConditionalProjection):
    """Base of the representations that are linear and have axes of their own in place of texts.

    I (N, D) -> l2((I - offset_) weights_ᵀ), (N, F); `_axes` of a subclass makes the weights (F, D).
    Of Q query vectors per image the mean is taken: the sign of an axis means nothing, and so a
    maximum over the Q would not either. A ValueError if the texts do not differ.
    """

    offset_: Any = 0.0  # (D,)

    def __init__(self, text_embeddings: Any) -> None:
        super().__init__(text_embeddings)

    def fit(self, X: Any, y: Any = None) -> "AxesProjection":
        X = single_vector(l2(self._start(X)))
        self.weights_ = self._axes(X, y)
        return self

    def transform(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return l2((single_vector(l2(self._checked(X))) - self.offset_) @ self.weights_.T)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        check_is_fitted(self)
        return np.array([f"axis {n}" for n in range(1, len(self.weights_) + 1)], dtype=object)

    def _axes(self, X: np.ndarray, y: Any) -> np.ndarray:
        raise NotImplementedError


def principal_axes(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The singular values (r,) of x (n, D), largest first, without those that are rounding, and the
    right singular vectors (r, D). A ValueError if there are none."""
    _, s, axes = np.linalg.svd(x, full_matrices=False)
    above = s > 1e-6 * len(x)
    if not above.any():
        raise ValueError("the texts do not differ to the VLM; give two or more that do")
    return s[above], axes[above]


def chosen(components: int | None, default: int, most: int) -> int:
    """How many axes: `components`, or `default` if it is None, of `most` that there are at most."""
    if components is not None and not 1 <= components <= most:
        raise ValueError(f"components must be 1 to {most} with these texts, not {components}")
    return min(default, most) if components is None else components


def labelled(name: str, y: Any, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Which images have a label, (n,) row numbers, and their labels (n,), of y (N,): class numbers,
    -1 where it is not known. A UserError, with the name of the representation, if there are none, a
    ValueError if they are not of these images."""
    if y is None:
        raise UserError(f"{name} learns from labels of some images, and there are none here")
    y = np.asarray(y)
    if y.shape != (images,):
        raise ValueError(f"there must be a label for each of the {images} images, not {y.shape}")
    known = np.flatnonzero(y != -1)
    if len(np.unique(y[known])) < 2:
        raise UserError(f"{name} needs labelled images of two classes or more")
    return known, y[known]
