"""The null space of other criteria: the images lose what other criteria explain.

    I -> l2(I - I Vᵀ V),   V (d, D): the directions in which the texts of other criteria differ

It is a step on I before any representation. OD-CRL (arXiv 2602.05464, which we could not read in
full) has the same idea. Supervision: the texts of other criteria.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from crl.basis import TextBasis
from crl.embed import EMBEDDINGS, embed_basis
from crl.projection import l2
from crl.run.errors import UserError
from crl.vlm import VLM

MOST_OVERLAP = 0.5  # above it, most of what a basis says would be removed


def null_space(others: Sequence[np.ndarray], size: int | None = None) -> np.ndarray:
    """Directions of the embedding space in which the texts of other criteria differ: (d, D),
    orthonormal rows. A ValueError if the texts of one are all the same.

    Args:
        others: T of one or more other criteria, (K_b, D), unit rows. Each is centred first: what
            all its texts share is no difference between images.
        size: how many principal directions of each T to take; None: the fewest that explain half
            of its variance. More of them also remove what the own criterion needs.
    """
    principal = []
    for text in others:
        _, s, directions = np.linalg.svd(text - text.mean(axis=0), full_matrices=False)
        s = s[s > 1e-6 * len(text)]  # the others are rounding
        if not len(s):
            raise ValueError("the texts of another criterion are all the same to the VLM")
        explained = np.cumsum(s**2) / np.sum(s**2)
        half = int(np.searchsorted(explained, 0.5)) + 1
        principal.append(directions[: half if size is None else min(size, len(s))])
    _, s, directions = np.linalg.svd(np.concatenate(principal), full_matrices=False)
    return directions[s > 1e-3]  # the same direction, in two criteria, counts once


def without(image: np.ndarray, directions: np.ndarray | None) -> np.ndarray:
    """I, (N, D) or (N, Q, D) unit rows, without its part in the directions (d, D) of `null_space`;
    a row that lies in them becomes zeros. None: I stays as it is."""
    if directions is None:
        return image
    rest = image - (image @ directions.T) @ directions
    rounding = np.linalg.norm(rest, axis=-1, keepdims=True) <= 100 * np.finfo(rest.dtype).eps
    return l2(np.where(rounding, 0, rest))


def overlap(text: np.ndarray, directions: np.ndarray) -> float:
    """Which fraction of the variance of a basis T (K, D) lies in the directions (d, D), 0 to 1. If
    it is large, the criteria overlap, and `without` removes what the basis is about."""
    centred = text - text.mean(axis=0)
    return float(np.sum((centred @ directions.T) ** 2) / np.sum(centred**2))


def directions_of_others(
    vlm: VLM, own: TextBasis, others: Sequence[TextBasis], size: int | None = None,
    cache: Path | None = EMBEDDINGS,
) -> np.ndarray | None:  # fmt: skip
    """The directions that `null_space` finds in other criteria: (d, D), or None without others.
    The own basis may be among them, and is left out. Warns if it varies mostly in these directions:
    then their removal hurts. A UserError if the other texts are all the same, or fill all
    dimensions."""
    texts = [embed_basis(vlm, basis, cache) for basis in others if basis.digest != own.digest]
    if not texts:
        return None
    try:
        directions = null_space(texts, size)
    except ValueError as error:
        raise UserError(f"null_space: {error}") from error
    if len(directions) == directions.shape[1]:
        raise UserError("null_space leaves nothing of the images; name fewer bases, or a smaller "
                        "null_space_size")  # fmt: skip
    share = overlap(embed_basis(vlm, own, cache), directions)
    if share > MOST_OVERLAP:
        warning = f"null_space: {share:.0%} of what the basis for {own.criterion!r} says is said "
        warning += "by the other criteria too; removing it will probably hurt"
        warnings.warn(warning, stacklevel=2)
    return directions
