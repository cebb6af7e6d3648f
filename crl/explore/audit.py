"""Does the VLM see a criterion, and do the words reach it? Three numbers, from labels.

    seen      a linear probe on I with all labels, judged on images that it has not learned from
    reached   k-means on a representation such as R = I Tᵀ: words alone, no label
    repaired  a linear probe on that representation with 1, 2 or 5 labels per class, on the others

Each is the adjusted mutual information between what it says and the labels, in percent: 0 is
chance, for any number and size of classes, and 100 is perfect.
"""

from typing import NamedTuple

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from crl.explore.clusters import find_clusters, principal
from crl.explore.labels import FOLDS, linear_model, scaled
from crl.projection import single_vector

LABELS = (1, 2, 5)  # per class
DRAWS = 3  # of these labels
SEEN = 50  # percent; below it, a verdict says that the VLM does not see the criterion
REACHED = 0.75  # of what is seen; below it, that the words reach a part of it


class Audit(NamedTuple):
    seen: float
    reached: float
    repaired: dict[int, float]  # labels per class: percent; only those that leave others to judge

    @property
    def verdict(self) -> str:
        if self.seen < SEEN:
            return "the VLM hardly sees it: take another VLM"
        if self.reached < REACHED * self.seen:
            return "the VLM sees it, the words reach a part: take other texts, or a few labels"
        return "fine: the VLM sees it, and the words reach it"

    def __str__(self) -> str:
        few = ", ".join(f"{value:.0f} with {n}" for n, value in self.repaired.items())
        few = f", repaired {few} per class" if few else ""
        return f"seen {self.seen:.0f}, reached {self.reached:.0f}{few}; {self.verdict}"


def audit(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> Audit | None:
    """Judge a criterion by images I, (N, D) or (N, Q, D), a representation of them that has seen no
    label, x (N, F), and class numbers y (N,), -1 where not known. Classes with one label are left
    out; None if fewer than two classes are left."""
    counts = np.bincount(y[y >= 0])
    known = np.flatnonzero((y >= 0) & (counts[y] > 1))
    y = y[known]
    if len(classes := np.unique(y)) < 2:
        return None
    fewest = int(counts[classes].min())
    folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
    i, r = scaled(single_vector(image))[known], scaled(x)[known]
    seen = _agreement(y, cross_val_predict(linear_model(), i, y, cv=folds))
    reached = _agreement(y, find_clusters(principal(x), len(classes)).label[known])
    return Audit(seen, reached, {n: _repaired(r, y, n) for n in LABELS if n < fewest})


def _repaired(x: np.ndarray, y: np.ndarray, labels: int) -> float:
    scores = []
    for draw in range(DRAWS):
        order = np.random.default_rng(draw).permutation(len(y))
        train = np.concatenate([order[y[order] == v][:labels] for v in np.unique(y)])
        test = np.setdiff1d(order, train)
        guessed = linear_model().fit(x[train], y[train]).predict(x[test])
        scores.append(_agreement(y[test], guessed))
    return float(np.mean(scores))


def _agreement(labels: np.ndarray, classes: np.ndarray) -> float:
    return 100 * float(adjusted_mutual_info_score(labels, classes))
