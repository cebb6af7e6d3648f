"""OD-CRL: orthonormal axes of the texts; the images lose what other criteria explain.

    V (k, D): the first k right singular vectors of the centred T, singular values s_1 >= s_2 ...
    U (d, D): `crl.representations.null_space` of the texts of other criteria
    I -> l2((I - I Uᵀ U) Vᵀ), (N, k)

k by `rule`: `energy`, the fewest with 95 % of the sum of s²; `curvature`, where the curve of the
s_i / s_1 bends most, that is, where its second difference is largest.

Source: Wang et al. (arXiv 2602.05464), no code found. We could read its abstract, not its text: a
singular value decomposition cut by curvature, and a null space of other criteria. So the rules
for k, the centring and U are ours. Supervision: the texts of other criteria.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from crl.representations.axes import AxesProjection, principal_axes
from crl.representations.null_space import null_space
from crl.run.errors import UserError


class Representation(AxesProjection):
    """`others` are T of other criteria, (K_b, D) each; or `directions` is U (d, D), found already.
    A UserError without either."""

    supervision = "other criteria"

    def __init__(
        self, text_embeddings: Any, others: Sequence[np.ndarray] = (),
        directions: np.ndarray | None = None, rule: str = "energy",
    ) -> None:  # fmt: skip
        super().__init__(text_embeddings)
        self.others, self.directions, self.rule = others, directions, rule

    def _axes(self, X: np.ndarray, y: Any) -> np.ndarray:
        if self.directions is None and not len(self.others):
            raise UserError("od_crl needs the texts of other criteria: null_space=[basis, ...], or "
                            "others=[T, ...] in Python")  # fmt: skip
        u = null_space(self.others) if self.directions is None else self.directions
        s, axes = principal_axes(self.text_ - self.text_.mean(axis=0))
        v = axes[: kept(s, self.rule)]
        return v - (v @ u.T) @ u  # I without U, times Vᵀ


def kept(s: np.ndarray, rule: str) -> int:
    """How many of the singular values s, largest first, `rule` keeps."""
    if rule == "energy":
        return int(np.searchsorted(np.cumsum(s**2) / np.sum(s**2), 0.95)) + 1
    if rule == "curvature":
        return int(np.diff(s, 2).argmax()) + 1 if len(s) > 2 else len(s)
    raise ValueError(f"unknown rule {rule!r}: 'energy' or 'curvature'")
