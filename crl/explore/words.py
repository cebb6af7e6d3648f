"""Which words an image stands out by, under one criterion. To a VLM some texts are near to all; so
an image stands out by the texts that fit it more than they fit the collection."""

from collections.abc import Sequence

import numpy as np
from scipy.special import softmax

from crl.run.errors import UserError

# The words of the true class together have as much probability as their share of right answers is,
# on the demo with our bases and with the authors' (2 is too modest, and 8 too sure).
SHARPNESS = 4.0
LONGEST = 300  # letters of a text
MOST_TEXTS = 5_000  # typed at once


def standing(r: np.ndarray, usual: np.ndarray | None = None) -> np.ndarray:
    """How much more than usual each text fits each image: R (N, K) minus its mean over the images,
    or minus `usual` (K,), the mean over others. A single image is compared over the texts."""
    if usual is None:
        usual = r.mean(axis=0 if len(r) > 1 else 1, keepdims=True)
    return r - usual


def probabilities(standing: np.ndarray) -> np.ndarray:
    """softmax(`SHARPNESS` * standing / sigma), row by row: (N, K). sigma is the mean over images of
    the standard deviation over texts."""
    sigma = standing.std(axis=1).mean()
    if not sigma > 1e-6:  # images that are all the same: similarities are cosines
        return np.full_like(standing, 1 / standing.shape[1])
    return softmax(SHARPNESS * standing / sigma, axis=1)


def most(values: np.ndarray, count: int) -> np.ndarray:
    """The places of the `count` largest values of each row, the largest first: (N, count)."""
    count = min(count, values.shape[1])
    some = np.argpartition(-values, count - 1, axis=1)[:, :count]  # not sorted yet
    order = np.argsort(-np.take_along_axis(values, some, axis=1), axis=1, kind="stable")
    return np.take_along_axis(some, order, axis=1)


def shared_words(standing: np.ndarray, others: np.ndarray, count: int = 3) -> np.ndarray:
    """The texts by which each image and others (N, M) both stand out: (N, M, count) numbers."""
    count = min(count, standing.shape[1])
    shared = np.empty((*others.shape, count), int)
    for start in range(0, len(others) if count else 0, 100):
        near = others[start : start + 100]
        both = np.minimum(standing[start : start + len(near), None], standing[near])  # (100, M, K)
        best = most(both.reshape(-1, both.shape[-1]), count)
        shared[start : start + 100] = best.reshape((*near.shape, count))
    return shared


def checked_texts(texts: Sequence[str]) -> list[str]:
    """The texts without white space around them. A UserError for an empty or endless one, or for
    very many."""
    texts = [" ".join(text.split()) for text in texts]
    if not all(texts):
        raise UserError("a text is empty")
    if too_long := [text for text in texts if len(text) > LONGEST]:
        raise UserError(f"a text has {len(too_long[0]):,} letters; {LONGEST} are allowed")
    if len(texts) > MOST_TEXTS:
        raise UserError(f"there are {len(texts):,} texts; {MOST_TEXTS:,} are allowed")
    return texts
