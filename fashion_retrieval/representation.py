"""The conditional representations of fashion retrieval: R = I T_aᵀ, and R through trained heads."""

from pathlib import Path

import numpy as np
import torch

from crl.basis import TextBasis
from crl.embed import embed_texts
from crl.run.errors import UserError, nearest
from crl.projection import align, l2, project
from crl.vlm import VLM
from fashion_retrieval.heads import Heads
from fashion_retrieval.scoring import Represent

CHUNK = 4096  # images at once


def text_bases(dataset: str, attributes: list[str], given: dict[str, str]) -> list[TextBasis]:
    """The basis of each attribute: `given`, or that named <dataset>_<attribute>.

    Raises:
        UserError: no such basis, or one given for an attribute that there is not.
    """
    for name in given:
        if name not in attributes:
            raise UserError(f"bases: unknown attribute {name!r}; {nearest(name, attributes)}")
    return [TextBasis.load(given.get(a, f"{dataset.lower()}_{a}")) for a in attributes]


def aligned_texts(vlm: VLM, bases: list[TextBasis], cache: Path | None) -> np.ndarray:
    """T_a of all attributes, (A, K, D), K being the number of texts of the smallest basis."""
    return align_all([embed_texts(vlm, basis.prompts, cache) for basis in bases])


def align_all(texts: list[np.ndarray]) -> np.ndarray:
    """(K_a, D) an attribute, of any length -> (A, K, D)."""
    return np.stack([align(l2(text), min(map(len, texts))) for text in texts])


def conditional(image: np.ndarray, text: np.ndarray) -> Represent:
    """x = l2(I @ T_a.T) of images (n,) and an attribute: (n, K) float32, unit rows.

    Args:
        image: (N, D), of any length.
        text: T_a, (A, K, D).
    """

    def represent(images: np.ndarray, attribute: int) -> np.ndarray:
        parts = np.array_split(images, len(images) // CHUNK + 1)
        return np.concatenate(
            [l2(project(l2(image[part]), text[attribute])) for part in parts]  # R = I Tᵀ, (n, K)
        )

    return represent


def headed(represent: Represent, heads: Heads) -> Represent:
    """Each representation through the head of its attribute: (n, out), unit rows."""
    device = heads.bias2.device

    @torch.inference_mode()
    def through(images: np.ndarray, attribute: int) -> np.ndarray:
        parts = []
        for part in np.array_split(images, len(images) // CHUNK + 1):
            x = torch.from_numpy(represent(part, attribute)).to(device)
            parts.append(heads(x, torch.full((len(x),), attribute, device=device)).cpu().numpy())
        return np.concatenate(parts)

    return through
