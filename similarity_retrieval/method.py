"""Scores of GeneCIS's candidates by the baselines and by CRL, and Recall@k from the scores (paper,
Table 3; the baselines are GeneCIS's, Vaze et al., CVPR 2023).

Shapes: M images, C conditions with P prompts each, D embedding width, B templates, G candidates
each, the target first.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch

from crl.projection import l2
from similarity_retrieval.combiner import Combiner
from similarity_retrieval.datasets import Templates

TiePolicy = Literal["fair", "paper"]
Balance = Literal["paper", "standard"]
CUTOFFS = (1, 2, 3)  # of Recall@k
BATCH = 256  # templates at a time: (BATCH, G, D) candidates are in memory


@dataclass(frozen=True)
class Features:
    """Embeddings of all images and conditions, float32 or float64, of any length.

    Attributes:
        image: (M, D), the distinct images.
        plain: (C, D), the conditions themselves.
        prompted: (C, P, D), the P prompts of each condition; P may be 0.
    """

    image: np.ndarray
    plain: np.ndarray
    prompted: np.ndarray

    @cached_property
    def unit_image(self) -> np.ndarray:
        """I, (M, D): `image` with unit rows."""
        return l2(self.image)

    @cached_property
    def first_alike(self) -> np.ndarray:
        """Index of the first image with the same embedding (mostly the image itself), (M,)."""
        rows = np.ascontiguousarray(self.image)
        whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
        _, first, place = np.unique(whole, return_index=True, return_inverse=True)
        return first[place]


def baseline_scores(
    features: Features, templates: Templates, combiner: Combiner | None = None
) -> dict[str, np.ndarray]:
    """Cosine similarity of each template's candidates to its query, for GeneCIS's baselines.

    Returns:
        `image`, `text`, `image+text` and, if there is one, `combiner`: (B, G) each.
    """
    reference, condition = features.image[templates.reference], features.plain[templates.condition]
    query = {
        "image": l2(reference),
        "text": l2(condition),
        # GeneCIS adds half of each, not normalised: the longer one weighs more. (The 1/2 cancels.)
        "image+text": l2(reference + condition),
    }
    if combiner is not None:
        query["combiner"] = _combined(combiner, reference, condition)
    return {
        method: _cosines(rows, features.unit_image, features, templates)
        for method, rows in query.items()
    }


def crl_scores(
    features: Features,
    templates: Templates,
    r: np.ndarray,
    weight: float = 10.0,
    balance: Balance = "paper",
) -> np.ndarray:
    """CRL for "the same scene, with the condition" (paper, Table 3).

    scene: similarity of candidate and reference in R.
    condition: mean similarity of the candidate to the condition's prompts; omitted without prompts
    (P = 0).

    Args:
        r: R = I Tᵀ of all images, (M, K), unit rows. In the paper the basis describes scenes.
        weight: the weight of `scene` in the balance `paper`; 10 in the paper.
        balance: `paper`: weight * scene + condition, each scaled to unit length over the candidates
            of a template. `standard` (beyond the paper): scene + condition, each standardised over
            the candidates, so that neither drowns the other, however far its scores are spread.

    Returns:
        (B, G).
    """
    scene = _cosines(r[templates.reference], r, features, templates)  # (B, G)
    scores = weight * l2(scene) if balance == "paper" else _standardised(scene)
    if features.prompted.shape[1]:
        prompt = l2(features.prompted).mean(axis=1)  # (C, D): u·mean(v) is the mean of u·v
        fit = _cosines(prompt[templates.condition], features.unit_image, features, templates)
        scores += l2(fit) if balance == "paper" else _standardised(fit)
    return scores


def target_ranks(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of a template's other candidates score above its target, and how many equal it.

    >>> target_ranks(np.array([[0.5, 0.9, 0.5, 0.1]]))
    (array([1]), array([1]))

    Args:
        scores: (B, G), the target in column 0.

    Returns:
        better and tied, both (B,) int64.

    Raises:
        ValueError: a score is NaN or infinite.
    """
    broken = ~np.isfinite(scores).all(axis=1)
    if broken.any():
        raise ValueError(
            f"the scores of {broken.sum()} templates are not finite, the first: {broken.argmax()}"
        )
    target, others = scores[:, :1], scores[:, 1:]
    return (others > target).sum(axis=1), (others == target).sum(axis=1)


def recall(better: np.ndarray, tied: np.ndarray, k: int, tie_policy: TiePolicy = "fair") -> float:
    """Recall@k in percent: how often the target is among the k best candidates.

    >>> recall(np.array([0]), np.array([14]), k=3)  # 15 candidates, all with the same score
    20.0

    Args:
        better, tied: (B,), see `target_ranks`.
        tie_policy: `fair` counts the share of all orders of the tied candidates in which the target
            is among the k best. `paper` puts the target first, as the stable sort in the authors'
            code does; constant scores then give 100.
    """
    fair = tie_policy == "fair"
    hits = np.clip((k - better) / (tied + 1), 0, 1) if fair else better < k
    return float(100 * hits.mean())


def chance(candidates: int, k: int) -> float:
    """Expected Recall@k in percent for a random order of the candidates."""
    return 100 * min(k / candidates, 1)


def _cosines(
    query: np.ndarray, rows: np.ndarray, features: Features, templates: Templates
) -> np.ndarray:
    """Dot products (B, G) of each query (B, F) and its candidates among `rows` (M, F).

    Matrix products may round equal rows differently. So candidates with the target's embedding (the
    same image, or a copy) get the target's score.
    """
    gallery = templates.gallery  # (B, G)
    scores = np.empty(gallery.shape, rows.dtype)
    for start in range(0, len(gallery), BATCH):
        some = slice(start, start + BATCH)
        scores[some] = (rows[gallery[some]] @ query[some, :, None])[:, :, 0]
    alike = features.first_alike[gallery]
    return np.where(alike == alike[:, :1], scores[:, :1], scores)


@torch.inference_mode()
def _combined(combiner: Combiner, image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """The Combiner's queries of images and texts, (B, D) each, of any length: (B, D), unit rows."""
    weight = combiner.output_layer.weight
    pairs = zip(*(torch.from_numpy(x).to(weight).split(BATCH) for x in (image, text)), strict=True)
    return torch.cat([combiner(*pair) for pair in pairs]).cpu().numpy().astype(image.dtype)


def _standardised(scores: np.ndarray) -> np.ndarray:
    """(B, G) with mean 0 and standard deviation 1 over the candidates; equal scores become 0."""
    deviation = scores.std(axis=1, keepdims=True)
    rounding = 100 * np.finfo(scores.dtype).eps * abs(scores).max(axis=1, keepdims=True)
    equal = deviation <= rounding
    return np.where(
        equal, 0, (scores - scores.mean(axis=1, keepdims=True)) / np.where(equal, 1, deviation)
    )
