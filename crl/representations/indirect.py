"""InDiReCT: the few dimensions from which the texts are rebuilt best.

    W (k, D), orthonormal rows: the least sum over the texts of the angle between t and Wᵀ W t
    I -> l2(I Wᵀ), (N, k)

Source: Kobs et al., WACV 2023 (arXiv 2211.12760), and the authors' code, `dimensionality_reduction
.py` of LSX-UniWue/InDiReCT (no license; read, not copied), which minimises the mean angle between t
and l2(Wᵀ l2(W t)). The texts are not centred. Supervision: none.

What differs: Adam starts there from random numbers, and W is any matrix. With orthonormal rows no
angle is larger, so we weight the texts and repeat a singular value decomposition, which ends in the
same subspace each time. k there is 128 of CLIP's 512 dimensions, so here D / 4.
"""

from typing import Any

import numpy as np

from crl.representations.axes import AxesProjection, chosen, principal_axes


class Representation(AxesProjection):
    """`components` is k; None: a quarter of D, or as many dimensions as the texts have."""

    def __init__(self, text_embeddings: Any, components: int | None = None) -> None:
        super().__init__(text_embeddings)
        self.components = components

    def _axes(self, X: np.ndarray, y: Any) -> np.ndarray:
        principal_axes(self.text_ - self.text_.mean(axis=0))  # do they differ?
        _, axes = principal_axes(self.text_)
        axes = axes[: chosen(self.components, max(1, len(X.T) // 4), len(axes))]
        for _ in range(100):
            square = np.sum((self.text_ @ axes.T) ** 2, axis=1).clip(1e-6, 1 - 1e-6)  # cos², (K,)
            slope = 1 / np.sqrt(square * (1 - square))  # of the angle by cos², up to a factor
            texts = np.sqrt(slope)[:, None] * self.text_
            new = np.linalg.svd(texts, full_matrices=False)[2][: len(axes)]
            if abs(np.linalg.det(new @ axes.T)) > 1 - 1e-12:
                break  # the same subspace
            axes = new
        return axes
