"""Which criterion do the images of a collection vary in? And which criteria group them alike?"""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.special import softmax, xlogy
from sklearn.metrics import adjusted_mutual_info_score

from crl.explore.clusters import SAMPLE, find_clusters, principal
from crl.projection import l2, parts, project
from crl.representations import represent

SAME = 1 - 1e-5  # cosine; different texts of which a VLM knows each word are further apart
GROUPS = 10  # of each criterion, to compare them


def told_apart(text: np.ndarray) -> np.ndarray:
    """The rows of T (K, D), unit rows, that no other row equals. Texts that look the same to the
    VLM hold words that it does not know, and name nothing; yet together they would count for much.
    """
    return text[(text @ text.T > SAME).sum(axis=1) == 1]


def rank_criteria(
    image: np.ndarray, text: Mapping[str, np.ndarray], sharpness: float = 4.0
) -> dict[str, float]:
    """Label-free scores of criteria in nats, the highest first. Beyond the paper.

    Take all words of all criteria together, each criterion with the same share of the prior, and
    the posterior p of an image over them, as in `crl.representations.posterior`. The mutual
    information between image and word is a sum over words w,

        I = mean over images of  sum over w of  p(w | image) log(p(w | image) / p(w)),

    and a criterion's score is its words' part of it: near 0 if the images are all alike in it, or
    if its texts do not fit them at all. `image` is (N, D) or (N, Q, D), `text` the texts (K_c, D)
    of each criterion, of any length, in prompts that suit: how well they fit counts. `sharpness`
    was chosen on two of the demo's collections and verified on two others."""
    sizes = [len(t) for t in text.values()]
    prior = np.repeat([1 / (len(sizes) * size) for size in sizes], sizes)  # (sum K_c,)
    basis = np.concatenate([l2(np.asarray(t)) for t in text.values()])

    def similarities() -> Iterator[np.ndarray]:  # R = I Tᵀ by parts, minus each image's level
        for rows in parts(len(image)):
            r = project(l2(np.asarray(image[rows])), basis)
            yield r - (r @ prior)[:, None]

    sigma = sum(np.sqrt(r**2 @ prior).sum() for r in similarities()) / len(image)
    if not sigma > 1e-6:  # similarities are cosines
        raise ValueError("all texts of all criteria are the same to the VLM")
    mean, entropy = np.zeros(len(prior)), np.zeros(len(prior))
    for r in similarities():
        p = softmax(sharpness * r / sigma + np.log(prior), axis=1)
        mean += p.sum(axis=0) / len(image)
        entropy -= xlogy(p, p).sum(axis=0) / len(image)
    information = -xlogy(mean, mean) - entropy  # (sum K_c,): each word's part of I
    scores = np.add.reduceat(information, np.cumsum([0, *sizes[:-1]]))
    return dict(sorted(zip(text, scores.tolist(), strict=True), key=lambda item: -item[1]))


def most_alike(
    image: np.ndarray, text: Mapping[str, np.ndarray]
) -> dict[str, tuple[str, float] | None]:
    """For each criterion, the earlier one that groups the images most alike, and the adjusted
    mutual information of their clusters (1: the same, 0: as by chance); None for the first. The
    clusters are `GROUPS` of R' of at most `SAMPLE` images, drawn at random. Arguments as in
    `rank_criteria`."""
    some = np.asarray(image[np.random.default_rng(0).permutation(len(image))[:SAMPLE]])
    labels: dict[str, np.ndarray] = {}
    alike: dict[str, tuple[str, float] | None] = {}
    for name, t in text.items():
        label = find_clusters(principal(represent("posterior", some, t)), GROUPS).label
        scores = {other: adjusted_mutual_info_score(label, labels[other]) for other in labels}
        alike[name] = max(scores.items(), key=lambda item: item[1], default=None)
        labels[name] = label
    return alike
