"""A linear probe: how sure logistic regression on I is of each label. A ceiling, with labels.

    I -> sqrt(p), (N, C),   p: the probabilities of LogisticRegression on (I - mean) / root of the
                            mean square length, C = 100, as in `crl.explore.labels`

Rows have unit length, since probabilities add up to 1; the product of two is their Bhattacharyya
coefficient, as for the posterior. Labels y (N,): a class number per image, -1 where it is not
known; only images with a label are learned from. T is not used. Of Q query vectors per image the
mean is taken. Supervision: labels.
"""

from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.utils.validation import check_is_fitted

from crl.projection import ConditionalProjection, l2, single_vector
from crl.representations.axes import labelled


class Representation(ConditionalProjection):
    supervision = "labels"

    def __init__(self, text_embeddings: Any) -> None:
        super().__init__(text_embeddings)

    def fit(self, X: Any, y: Any = None) -> "Representation":
        X = single_vector(l2(self._start(X)))
        known, y = labelled("probe", y, len(X))
        self.mean_ = X.mean(axis=0)
        self.scale_ = np.sqrt(np.mean(np.sum((X - self.mean_) ** 2, axis=1))).clip(1e-12)
        x = (X[known] - self.mean_) / self.scale_
        self.model_ = LogisticRegression(C=100, max_iter=2_000).fit(x, y)
        return self

    def transform(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        x = (single_vector(l2(self._checked(X))) - self.mean_) / self.scale_
        return l2(np.sqrt(self.model_.predict_proba(x)).astype(x.dtype))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        check_is_fitted(self)
        return np.array([f"class {name}" for name in self.model_.classes_], dtype=object)
