"""Linear discriminant analysis: the directions that tell the labels apart. A ceiling, with labels.

    I -> l2((I - mean of the class means) Wᵀ), (N, C - 1)
    W: scikit-learn's LinearDiscriminantAnalysis, covariance shrunk by Ledoit and Wolf's rule

Labels y (N,): a class number per image, -1 where it is not known; only images with a label are
learned from. Where no class has two, nothing says how it spreads: W is then the class means, less
their mean. T is not used. Of Q query vectors per image the mean is taken. Supervision: labels.
"""

from typing import Any

import numpy as np
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from crl.projection import AxesProjection, labelled


class Representation(AxesProjection):
    supervision = "labels"

    def _axes(self, X: np.ndarray, y: Any) -> np.ndarray:
        known, y = labelled("lda", y, len(X))
        X, classes = X[known], np.unique(y)
        means = np.stack([X[y == name].mean(axis=0) for name in classes])  # (C, D)
        self.offset_ = means.mean(axis=0)
        if len(classes) == len(X):
            return means - self.offset_
        most = min(len(classes) - 1, X.shape[1])
        lda = LinearDiscriminantAnalysis("eigen", shrinkage="auto").fit(X, y)
        return lda.scalings_[:, :most].T
