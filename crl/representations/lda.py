"""Linear discriminant analysis: the directions that tell the labels apart. A ceiling, with labels.

    I -> l2((I - mean of the class means) Wᵀ), (N, C - 1)
    W: the largest w B wᵀ for w S wᵀ = 1; B: covariance of the class means, S: within the classes

S is shrunk by Ledoit and Wolf's rule over all classes at once (scikit-learn's own analysis shrinks
class by class, and fails for two images of each). With one image per class S is 0: W are then the
principal axes of the class means. Labels y (N,): a class number per image, -1 where it is not
known, and nothing is learned from the image. T is not used. Of Q query vectors per image the mean
is taken. Source: Fisher (1936). Supervision: labels.
"""

from typing import Any

import numpy as np
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf

from crl.representations.axes import AxesProjection, labelled


class Representation(AxesProjection):
    supervision = "labels"

    def _axes(self, X: np.ndarray, y: Any) -> np.ndarray:
        known, y = labelled("lda", y, len(X))
        X, (classes, place) = X[known], np.unique(y, return_inverse=True)
        means = np.stack([X[y == name].mean(axis=0) for name in classes])  # (C, D)
        self.offset_ = means.mean(axis=0)
        between = np.cov(means.T, bias=True)  # (D, D)
        within = ledoit_wolf(X - means[place], assume_centered=True)[0] + 1e-6 * np.eye(
            len(between)
        )
        axes = eigh(between, within)[1][:, ::-1]  # columns, the largest first
        return axes[:, : min(len(classes) - 1, len(between))].T.astype(X.dtype)
