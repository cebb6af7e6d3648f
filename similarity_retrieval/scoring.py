"""Scores of GeneCIS's candidates under the baselines and under CRL, and recall from them (paper,
Table 3; the baselines are GeneCIS's, Vaze et al., CVPR 2023).

All templates of a task are scored together: each distinct image is normalised and projected once,
and only the similarities of a template's own candidates are computed.

Shapes: M images, C conditions with P prompts each, D embedding width, K texts of the basis, B
templates, G candidates each, the target first.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from crl.errors import UserError, nearest
from crl.projection import l2, project
from similarity_retrieval.combiner import Combiner

if TYPE_CHECKING:
    from similarity_retrieval.datasets import Templates

CHUNK = 16  # templates at a time: their candidates' rows stay in the processor's cache
BATCH = 256  # queries that the Combiner makes at a time


@dataclass(frozen=True)
class Features:
    """Embeddings of all images and conditions, float32 or float64, not normalised.

    Attributes:
        image: (M, D), of the distinct images.
        plain: (C, D), of the conditions themselves.
        prompted: (C, P, D), of each condition's P prompts; P may be 0.
    """

    image: np.ndarray
    plain: np.ndarray
    prompted: np.ndarray

    @cached_property
    def unit_image(self) -> np.ndarray:
        """`image` with unit rows, (M, D)."""
        return l2(self.image)

    @cached_property
    def first_alike(self) -> np.ndarray:
        """The first image with the very same embedding (often itself), (M,)."""
        first: dict[bytes, int] = {}
        return np.array([first.setdefault(row.tobytes(), m) for m, row in enumerate(self.image)])


def queries(
    features: Features, templates: "Templates", combiner: Combiner | None = None
) -> dict[str, np.ndarray]:
    """One vector a template for each of GeneCIS's baselines.

    Returns:
        `image`, `text`, `image+text` and, if there is one, `combiner`: (B, D), unit rows.
    """
    image = features.image[templates.reference]  # (B, D)
    text = features.plain[templates.condition]  # (B, D)
    made = {
        "image": features.unit_image[templates.reference],
        "text": l2(features.plain)[templates.condition],
        # Half of each (the half cancels), as they are: the longer one weighs more.
        "image+text": l2(image + text),
    }
    if combiner is not None:
        made["combiner"] = _combine(combiner, image, text)
    return made


def embedding_scores(
    features: Features, templates: "Templates", queries: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Cosine similarity of each template's candidates to its query.

    Args:
        queries: name -> (B, D), unit rows.

    Returns:
        name -> (B, G). Candidates with the target's embedding score exactly what the target does.
    """
    scores = _similarities([*queries.values()], features.unit_image, templates.gallery)  # (B, n, G)
    alike = _like_target(features, templates)
    return {name: np.where(alike, scores[:, n, :1], scores[:, n]) for n, name in enumerate(queries)}


def crl_scores(
    features: Features, templates: "Templates", text: np.ndarray, weight: float = 10.0
) -> np.ndarray:
    """CRL for `the same scene, with the condition` (paper, sec. 4.3 and Table 3).

    weight * scene + condition: how alike candidate and reference are in the conditional space of
    the basis, and how well the candidate fits the condition's prompts. Both have unit length over
    a template's candidates. Without prompts (P = 0) the scene stands alone.

    Args:
        text: T, (K, D), unit rows; the basis of the criterion (scenes, in the paper).
        weight: of the scene; 10 in the paper.

    Returns:
        (B, G). Candidates with the target's embedding score exactly what the target does.
    """
    named = np.zeros(len(features.image), bool)  # the U images of these templates
    named[templates.reference] = named[templates.gallery] = True
    place = np.cumsum(named) - 1  # of an image among them
    reference, gallery = place[templates.reference], place[templates.gallery]
    images = features.unit_image[named]  # (U, D)
    r = l2(project(images, text))  # R = I Tᵀ, (U, K)
    scores = weight * l2(_similarities([r[reference]], r, gallery)[:, 0])  # (B, G)
    if features.prompted.shape[1]:
        asked, condition = np.unique(templates.condition, return_inverse=True)
        # The mean of the similarities to P prompts is the similarity to the mean of the P.
        prompt = l2(features.prompted[asked]).mean(axis=1)  # (C, D), not unit rows
        scores += l2((prompt @ images.T)[condition[:, None], gallery])
    return np.where(_like_target(features, templates), scores[:, :1], scores)


def target_ranks(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of a template's other candidates score above its target, and how many the same.

    >>> target_ranks(np.array([[0.5, 0.9, 0.5, 0.1]]))
    (array([1]), array([1]))

    Args:
        scores: (B, G), the target in column 0.

    Returns:
        better and tied, both (B,) int64.

    Raises:
        UserError: a score is not a number.
    """
    broken = np.isnan(scores).any(axis=1)
    if broken.any():
        raise UserError(
            f"{broken.sum()} templates, the first is number {broken.argmax()}, have scores that "
            "are not numbers; the embeddings or the Combiner's weights hold NaN or infinity"
        )
    target, others = scores[:, :1], scores[:, 1:]
    return (others > target).sum(axis=1), (others == target).sum(axis=1)


def recall(
    better: np.ndarray,
    tied: np.ndarray,
    k: int,
    tie_policy: Literal["fair", "paper"] = "fair",
) -> float:
    """Recall@k in percent: how often the target is among the k best candidates.

    >>> recall(np.array([0]), np.array([14]), k=3)  # 15 candidates, all with the same score
    20.0

    Args:
        better, tied: (B,), see `target_ranks`.
        tie_policy: `fair` counts the share of the orders of the tied candidates that bring the
            target in. `paper` puts the target first, as a stable sort does in the authors' code:
            a constant scorer then has 100.

    Raises:
        UserError: another tie policy.
    """
    if tie_policy == "fair":
        hits = np.clip((k - better) / (tied + 1), 0, 1)
    elif tie_policy == "paper":
        hits = better < k
    else:
        hint = nearest(tie_policy, ["fair", "paper"])
        raise UserError(f"unknown tie policy {tie_policy!r}; {hint}")
    return float(100 * hits.mean())


def chance(candidates: int, k: int) -> float:
    """Recall@k in percent of a random order of the candidates."""
    return 100 * min(k / candidates, 1)


def _similarities(queries: list[np.ndarray], rows: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """n queries a template, each (B, D), rows (M, D), gallery (B, G) -> (B, n, G) dot products."""
    scores = np.empty((len(gallery), len(queries), gallery.shape[1]), rows.dtype)
    for start in range(0, len(gallery), CHUNK):
        chunk = slice(start, start + CHUNK)
        asked = np.stack([query[chunk] for query in queries], axis=1)  # (CHUNK, n, D)
        candidates = rows.take(gallery[chunk], axis=0)  # (CHUNK, G, D)
        scores[chunk] = asked @ candidates.transpose(0, 2, 1)
    return scores


def _like_target(features: Features, templates: "Templates") -> np.ndarray:
    """Which candidates are the target's image, or one with the same embedding: (B, G) bool.

    They get the target's score: matrix products may round equal rows differently, by their place.
    """
    alike = features.first_alike[templates.gallery]
    return alike == alike[:, :1]


def _combine(combiner: Combiner, image: np.ndarray, text: np.ndarray) -> np.ndarray:
    """The Combiner's queries for raw embeddings (B, D) and (B, D), in the embeddings' dtype."""
    weight = combiner.output_layer.weight
    combined = []
    with torch.inference_mode():
        for start in range(0, len(image), BATCH):
            pair = (torch.from_numpy(x[start : start + BATCH]).to(weight) for x in (image, text))
            combined.append(combiner(*pair).cpu().numpy())
    return np.concatenate(combined).astype(image.dtype, copy=False)
