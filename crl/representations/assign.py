"""One text per image: what a zero-shot classifier over the texts says, and nothing else.

    I -> one-hot of argmax of R = I Tᵀ, (N, K)

The floor: what is lost to it, similarities to the other texts held. With Q query vectors per image
R is their maximum. Source: Radford et al. (arXiv 2103.00020). Supervision: none.
"""

import numpy as np

from crl.projection import ConditionalProjection


class Representation(ConditionalProjection):
    def _scaled(self, r: np.ndarray) -> np.ndarray:
        return np.eye(r.shape[1], dtype=r.dtype)[r.argmax(axis=1)]
