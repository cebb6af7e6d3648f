"""Pictures that are nearly the same: one is the other, resized or compressed again."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

CELLS = 16  # per side; the mean color of each is compared
# Of 80 photographs and drawings, saved anew at 200 to 800 pixels or JPEG quality 30 and 75, all
# copies are within 3.5 of 255 (with quality 10: 5.4); different ones are 7.4 apart or more, and
# those of the demo 11.4. A cut of 2 % is 3.6 in the middle, and 10 % brighter 10.
THRESHOLD = 4.0  # root mean square of the differences, of 255
BLOCK = 256  # pictures, each compared with up to all others at once: 40 MB for 20,000


def near_copies(pictures: Sequence[bytes]) -> np.ndarray:
    """(N,) the number of the first of the pictures (small ones, in files) that each is nearly the
    same as, directly or by others between; its own if there is none."""
    cells = np.stack([_cells(picture) for picture in pictures])  # (N, 768)
    _, first, place = np.unique(near_groups(cells), True, True)
    return first[place]


def near_groups(cells: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """(N,) numbers, the same for nearly the same pictures, also by others between. `cells` (N, C)
    are whole numbers up to 255. Means differ by no more than THRESHOLD if cells do, so only
    pictures of nearly the same mean are compared."""
    count, mean = len(cells), cells.mean(axis=1, dtype=np.float64)
    order = np.argsort(mean)
    cells, mean = cells[order], mean[order]
    first = np.arange(count)  # one of the group of each
    for start in range(0, count, block):
        rows = cells[start : start + block].astype(np.float64)  # (B, C); so all sums are exact
        end = np.searchsorted(mean, mean[start : start + block][-1] + THRESHOLD + 1e-6)
        others = cells[start:end].astype(np.float64)  # (M, C)
        squared = (rows**2).sum(1)[:, None] + (others**2).sum(1) - 2 * rows @ others.T  # (B, M)
        near = start + np.array(np.nonzero(squared <= THRESHOLD**2 * cells.shape[1]))  # (2, pairs)
        pairs = np.concatenate([near, [np.arange(count), first]], axis=1)
        graph = coo_array((np.ones(len(pairs[0]), bool), tuple(pairs)), (count, count))
        group = connected_components(graph, directed=False)[1]
        _, place, inverse = np.unique(group, True, True)
        first = place[inverse]
    return first[np.argsort(order)]


def _cells(picture: bytes) -> np.ndarray:
    small = Image.open(io.BytesIO(picture)).convert("RGB")
    return np.asarray(small.resize((CELLS, CELLS), Image.Resampling.BOX), np.float32).ravel()
