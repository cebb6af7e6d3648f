"""CLAY: directions in which the texts differ on the sphere, turned to where the images are.

    mu = l2(mean of T)         H: the reflection (Householder) that takes l2(mean of I) to mu
    log_mu(t) = arccos(t · mu) l2(t - (t · mu) mu)    the texts in the tangent plane at mu, (K, D)
    V_k (k, D): the first k right singular vectors of log_mu(T)
    I -> l2(I Wᵀ), (N, k),     W = V_k H, (k, D), orthonormal rows

CLAY also takes log_mu of the turned image, which only changes the length of a row: V_k is
orthogonal to mu. So this is linear, and exact. Source: Lim et al., CVPR 2026 (arXiv 2604.11539);
its text could not be read, only summaries; no code of it is published. Supervision: none; it learns
the mean of the images. Beyond the paper: k is at most what the texts have (its k is 50).
"""

from typing import Any

import numpy as np

from crl.projection import l2
from crl.representations.axes import AxesProjection, chosen, principal_axes


class Representation(AxesProjection):
    """`components` is k; None: 50, or as many as the texts have, at most K - 1 and D - 1."""

    def __init__(self, text_embeddings: Any, components: int | None = None) -> None:
        super().__init__(text_embeddings)
        self.components = components

    def _axes(self, X: np.ndarray, y: Any) -> np.ndarray:
        mu, tangent = log_map(self.text_)
        _, axes = principal_axes(tangent)
        most = min(len(axes), len(self.text_) - 1)
        axes = axes[: chosen(self.components, 50, most)]  # V_k
        return reflected(axes, l2(X.mean(axis=0)), mu)  # W = V_k H


def log_map(text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mu (D,) and log_mu(T) (K, D) of T (K, D), unit rows."""
    mu = l2(text.mean(axis=0))
    cosine = (text @ mu).clip(-1, 1)[:, None]  # (K, 1)
    return mu, np.arccos(cosine) * l2(text - cosine * mu)


def reflected(rows: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Rows (n, D) times H, the reflection that takes one unit vector (D,) to another."""
    normal = l2(start - end)  # H = 1 - 2 normal normalᵀ
    return rows - 2 * np.outer(rows @ normal, normal)
