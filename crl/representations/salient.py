"""The posterior, in which those texts count more that the collection varies in.

    R' as in `crl.representations.posterior`
    I -> l2(R' * v), (N, K),     v_k: the standard deviation over the images of column k of R'

A text that fits all images, or none, tells nothing apart, and a text that many others resemble adds
less each. Source: ours; weights for words by their use in a collection are old (tf-idf). The power
of v, 1, was chosen on the demo's Clevr4. Supervision: none; it learns sigma and v from the images.
"""

from typing import Any

import numpy as np

from crl.projection import l2, parts
from crl.representations.posterior import Representation as Posterior
from crl.representations.posterior import posterior


class Representation(Posterior):
    """`sharpness` as for the posterior. Images that are all the same vary in nothing: v is 1."""

    def fit(self, X: Any, y: Any = None) -> "Representation":
        super().fit(X)
        X = self._checked(X)
        total = square = np.zeros(len(self.text_))  # by parts: R' is never in memory as a whole
        for rows in parts(len(X)):
            r = posterior(self._similarities(X[rows]), self.sigma_, self.sharpness).astype(float)
            total, square = total + r.sum(axis=0), square + (r**2).sum(axis=0)
        variance = square / len(X) - (total / len(X)) ** 2
        spread = np.sqrt(variance.clip(0)).astype(self.text_.dtype)
        self.weight_ = spread if spread.max() > 1e-3 else np.ones_like(spread)  # less is rounding
        return self

    def fit_transform(self, X: Any, y: Any = None) -> np.ndarray:
        return self.fit(X).transform(X)  # v needs a second pass

    def _scaled(self, r: np.ndarray) -> np.ndarray:
        return l2(super()._scaled(r) * self.weight_)
