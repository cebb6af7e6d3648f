"""Pictures that are nearly the same: one is the other, resized or compressed again."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import NearestNeighbors

CELLS = 16  # per side; the mean color of each is compared
# Of 80 photographs and drawings, saved anew at 200 to 800 pixels or JPEG quality 30 and 75, all
# copies are within 3.5 of 255 (with quality 10: 5.4); different ones are 7.4 apart or more, and
# those of the demo 11.4. A cut of 2 % is 3.6 in the middle, and 10 % brighter 10.
THRESHOLD = 4.0  # root mean square of the differences, of 255


def near_copies(pictures: Sequence[bytes]) -> np.ndarray:
    """(N,) the number of the first of the pictures (small ones, in files) that each is nearly the
    same as, directly or by others between; its own if there is none."""
    cells = np.stack([_cells(picture) for picture in pictures])  # (N, 768)
    radius = THRESHOLD * cells.shape[1] ** 0.5
    near = NearestNeighbors(radius=radius, algorithm="brute").fit(cells).radius_neighbors_graph()
    _, first, place = np.unique(connected_components(near, directed=False)[1], True, True)
    return first[place]


def _cells(picture: bytes) -> np.ndarray:
    small = Image.open(io.BytesIO(picture)).convert("RGB")
    return np.asarray(small.resize((CELLS, CELLS), Image.Resampling.BOX), np.float32).ravel()
