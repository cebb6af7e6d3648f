"""Scores of GeneCIS's candidates by the baselines and by CRL, and Recall@k from the scores (paper,
Table 3; the baselines are GeneCIS's, Vaze et al., CVPR 2023).

Templates share few distinct references and conditions (218 and 111 in 3,920), so each is compared
with all images in one matrix product, and each template looks up the scores of its candidates.

Shapes: M images, C conditions with P prompts each, D embedding width, K texts of the basis, B
templates, G candidates each, the target first.
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
BATCH = 256  # queries of the Combiner at a time; its queries are all different


@dataclass(frozen=True)
class Features:
    """Embeddings of all images and conditions, of any length."""

    image: np.ndarray  # (M, D), the distinct images
    plain: np.ndarray  # (C, D), the conditions themselves
    prompted: np.ndarray  # (C, P, D), the P prompts of each condition; P may be 0

    @cached_property
    def unit_image(self) -> np.ndarray:
        """`image` with unit rows, (M, D)."""
        return self.image / _length(self.image)[:, None]

    @cached_property
    def first_alike(self) -> np.ndarray:
        """(M,) index of the first image with the same embedding (mostly the image itself)."""
        rows = np.ascontiguousarray(self.image)
        whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))[:, 0]
        _, first, place = np.unique(whole, return_index=True, return_inverse=True)
        return first[place]


def baseline_scores(
    features: Features, templates: Templates, combiner: Combiner | None = None
) -> dict[str, np.ndarray]:
    """Cosine similarity of each template's candidates to its query, for GeneCIS's baselines:
    `image`, `text`, `image+text` and, if there is one, `combiner`: (B, G) each."""
    images, gallery = features.unit_image, templates.gallery  # (M, D), (B, G)
    references = features.image, templates.reference
    image = _similarities(*references, images, gallery)  # r·g: (B, G)
    text = _similarities(features.plain, templates.condition, images, gallery)  # c·g: (B, G)
    r = _length(features.image)[templates.reference, None]  # |r|: (B, 1)
    c = _length(features.plain)[templates.condition, None]  # |c|: (B, 1)
    rc = _similarities(*references, features.plain, templates.condition[:, None])  # r·c: (B, 1)
    both = np.sqrt((r**2 + c**2 + 2 * rc).clip(0))  # |r + c|
    scores = {
        "image": image / r,
        "text": text / c,
        # GeneCIS adds half of each, not normalised: the longer one weighs more. (The 1/2 cancels.)
        "image+text": (image + text) / np.where(both > 0, both, 1),
    }
    if combiner is not None:
        scores["combiner"] = _combiner_scores(combiner, features, templates)
    return {method: _as_target(score, features, templates) for method, score in scores.items()}


def crl_scores(
    features: Features, templates: Templates, r: np.ndarray, weight: float = 10.0,
    balance: Balance = "paper",
) -> np.ndarray:  # fmt: skip
    """CRL for "the same scene, with the condition" (paper, Table 3): (B, G) scores.

    scene: similarity of candidate and reference in `r`, R = I Tᵀ of all images, (M, K), unit rows.
    condition: mean similarity of the candidate to the condition's prompts; omitted if P = 0.

    `balance`: `paper`: weight * scene + condition, each scaled to unit length over the candidates
    of a template. `standard` (beyond the paper): scene + condition, each standardised over the
    candidates, so that neither drowns the other, however far its scores are spread.
    """
    scene = _similarities(r, templates.reference, r, templates.gallery)  # (B, G)
    scores = weight * l2(scene) if balance == "paper" else _standardised(scene)
    if features.prompted.shape[1]:
        prompt = l2(features.prompted).mean(axis=1)  # (C, D): u·mean(v) is the mean of u·v
        fit = _similarities(prompt, templates.condition, features.unit_image, templates.gallery)
        scores += l2(fit) if balance == "paper" else _standardised(fit)
    return _as_target(scores, features, templates)


def query_scores(features: Features, templates: Templates, queries: np.ndarray) -> np.ndarray:
    """Cosine similarity of each template's candidates to a query of its own, `queries` (B, D), of
    any length: (B, G)."""
    pairs = zip(templates.gallery, l2(queries), strict=True)
    scores = np.stack([features.unit_image[gallery] @ query for gallery, query in pairs])
    return _as_target(scores, features, templates)


def target_ranks(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of a template's other candidates score above its target, and how many equal it:
    scores (B, G) -> better and tied, both (B,) int64.

    >>> target_ranks(np.array([[0.5, 0.9, 0.5, 0.1]]))
    (array([1]), array([1]))
    """
    target, others = scores[:, :1], scores[:, 1:]
    return (others > target).sum(axis=1), (others == target).sum(axis=1)


def recall(better: np.ndarray, tied: np.ndarray, k: int, tie_policy: TiePolicy = "fair") -> float:
    """Recall@k in percent: how often the target is among the k best candidates.

    >>> recall(np.array([0]), np.array([14]), k=3)  # 15 candidates, all with the same score
    20.0

    `fair` counts the share of all orders of the tied candidates in which the target is among the k
    best. `paper` puts the target first, as the authors' stable sort does: constant scores give 100.
    """
    fair = tie_policy == "fair"
    hits = np.clip((k - better) / (tied + 1), 0, 1) if fair else better < k
    return float(100 * hits.mean())


def _similarities(
    queries: np.ndarray, rows: np.ndarray, images: np.ndarray, gallery: np.ndarray
) -> np.ndarray:
    """queries (Q, D), row of each template's query (B,), images (M, D), gallery (B, G) -> dot
    products (B, G)."""
    distinct, place = np.unique(rows, return_inverse=True)
    return (images @ queries[distinct].T)[gallery, place[:, None]]  # from (M, distinct)


@torch.inference_mode()
def _combiner_scores(combiner: Combiner, features: Features, templates: Templates) -> np.ndarray:
    """Scores (B, G) by the Combiner, whose inputs are embeddings that are not normalised."""
    weight, scores = combiner.output_layer.weight, []
    for start in range(0, len(templates.reference), BATCH):
        chunk = slice(start, start + BATCH)
        reference = features.image[templates.reference[chunk]]  # (b, D)
        condition = features.plain[templates.condition[chunk]]  # (b, D)
        pair = (torch.from_numpy(x).to(weight) for x in (reference, condition))
        query = combiner(*pair).cpu().numpy().astype(reference.dtype)  # (b, D), unit rows
        candidates = features.unit_image[templates.gallery[chunk]]  # (b, G, D)
        scores.append((candidates @ query[:, :, None])[:, :, 0])
    return np.concatenate(scores)


def _length(rows: np.ndarray) -> np.ndarray:
    return np.sqrt(np.einsum("nd,nd->n", rows, rows))


def _standardised(scores: np.ndarray) -> np.ndarray:
    """(B, G) with mean 0 and standard deviation 1 over the candidates; equal scores become 0."""
    mean, deviation = scores.mean(axis=1, keepdims=True), scores.std(axis=1, keepdims=True)
    rounding = 100 * np.finfo(scores.dtype).eps * abs(scores).max(axis=1, keepdims=True)
    equal = deviation <= rounding
    return np.where(equal, 0, (scores - mean) / np.where(equal, 1, deviation))


def _as_target(scores: np.ndarray, features: Features, templates: Templates) -> np.ndarray:
    """Scores (B, G), in which candidates with the target's embedding (the same image, or a copy)
    get the target's score: matrix products may round equal rows differently."""
    alike = features.first_alike[templates.gallery]
    return np.where(alike == alike[:, :1], scores[:, :1], scores)
