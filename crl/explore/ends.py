"""Where the results of a text query end: how many pictures match, and how sure that is.

The cosines of the query to all pictures are a mixture of groups (normal, one to four, chosen by
BIC). A group matches if the query fits it as well as the best text of the criterion does: at most
`SLACK` sigma less, in the mean, where sigma is the mean spread of a row of R. A picture's local
false discovery rate is its chance to be of another group (Efron et al., 2001); the mean over the
best k is the rate among these. Where no rule of this kind holds, no number is given. The rule is
ours; 0.3 was chosen on the demo's Clevr4 and verified on three other worlds, see crl/README.md.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

GROUPS = 4  # at most; pictures of neighbours, "five" and "six", are a group of their own
SLACK = 0.3  # sigma
SAMPLE = 20_000  # scores, evenly spaced by rank, that the mixture is fitted to
FEWEST_TEXTS, FEWEST_IMAGES = 10, 100  # with fewer to compare with, nothing is said


class End(NamedTuple):
    """`number` of pictures that match, those with the best scores; None: it cannot be told."""

    number: int | None
    note: str  # a line for people


def count_matches(scores: np.ndarray, words: np.ndarray, error: float = 0.1) -> End:
    """How many pictures match a text query.

    Args:
        scores: (N,) cosine of each picture to the query, in the prompt of the criterion.
        words: R (N, K), cosine of each picture to each text of the criterion.
        error: the expected fraction, 0 to 1, of the counted pictures that do not match.
    """
    images, texts = words.shape
    if texts < FEWEST_TEXTS:
        return unknown(f"the criterion has fewer than {FEWEST_TEXTS} texts to compare with")
    if images < FEWEST_IMAGES:
        return unknown(f"there are fewer than {FEWEST_IMAGES} pictures to compare")
    best, sigma = words.max(axis=1), words.std(axis=1).mean()
    order = np.lexsort((best, scores))[::-1]
    scores, lead = scores[order].astype(float), (scores - best)[order]  # the best score first
    chance = _groups(scores)  # (N, groups)
    matches = chance.T @ lead / chance.sum(axis=0).clip(1e-12) >= -SLACK * sigma  # (groups,)
    if matches.all():
        return unknown("the pictures are one group, of which all may match, or none")
    if not matches.any():
        return unknown("another text fits each group of pictures better; perhaps none matches")
    rate = chance[:, ~matches].sum(axis=1).cumsum() / np.arange(1, images + 1)
    if not (rate <= error).any():
        return unknown("those that match are not apart enough from the rest")
    number = int(np.flatnonzero(rate <= error)[-1]) + 1
    return End(number, f"about {number:,} pictures match (expect at most {error:.0%} wrong ones)")


def unknown(reason: str) -> End:
    return End(None, f"how many match cannot be told: {reason}")


def _groups(scores: np.ndarray) -> np.ndarray:
    """(N, groups) the chance of each picture to be of each group; scores (N,), sorted."""
    x = ((scores - scores.mean()) / max(scores.std(), 1e-12))[:, None]
    some = x[:: -(-len(x) // SAMPLE)]
    models = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # near enough after 100 steps
        for number in range(1, GROUPS + 1):
            start = np.quantile(some, np.linspace(0.05, 0.995, number))[:, None]
            model = GaussianMixture(number, means_init=start, reg_covar=1e-3, random_state=0)
            models.append(model.fit(some))
        return min(models, key=lambda model: model.bic(some)).predict_proba(x)
