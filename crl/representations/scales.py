"""`salient` at several sharpnesses at once: broad words and exact words count alike.

    I -> l2([S_1, S_2, S_4]), (N, 3 K),     S_c: rows of `crl.representations.salient`, sharpness c

A soft posterior knows which texts are near, a sharp one which is the best. The similarity of two
rows is the mean of theirs at each sharpness. Source: ours; chosen by the retrieval on the demo's
Clevr4. Supervision: none; it learns from the collection, as `salient` does.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from crl.projection import ConditionalProjection, l2
from crl.representations.salient import Representation as Salient


class Representation(ConditionalProjection):
    """`scales` are the sharpnesses, each above 0."""

    def __init__(self, text_embeddings: Any, scales: Sequence[float] = (1.0, 2.0, 4.0)) -> None:
        super().__init__(text_embeddings)
        self.scales = scales

    def fit(self, X: Any, y: Any = None) -> "Representation":
        self._checked(X, reset=True)
        self.fitted_ = [Salient(self.text_embeddings, sharpness=c).fit(X) for c in self.scales]
        return self

    def transform(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return l2(np.concatenate([each.transform(X) for each in self.fitted_], axis=1))

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        check_is_fitted(self)
        texts = self.fitted_[0].get_feature_names_out()
        return np.array([f"{t}, {c:g}" for c in self.scales for t in texts], dtype=object)
