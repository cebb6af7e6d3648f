"""Two-dimensional maps of a representation: images that are alike lie together."""

from pathlib import Path

import numpy as np

from crl.run.cache import COMPUTED, kept_array
from crl.run.progress import progress

MOST_TSNE = 5_000  # images; of more, t-SNE takes minutes
# Steps; openTSNE's defaults are 250 and 500. On 5,000 images of the demo, 64 of 100 nearest
# neighbours stay neighbours in the map with either, and these take less than a third of the time.
EARLY, LATER = 60, 140
VERSION = 2


def map_points(points: np.ndarray, label: str, cache: Path | None = COMPUTED) -> np.ndarray:
    """(N, 2) float32: t-SNE of points (N, components), or their first two components if there are
    more than `MOST_TSNE`, fewer than 5, or all the same. The same points give the same map.

    Args:
        points: principal components, the first ones first; float32.
        label: name of the progress bar.
        cache: folder in which maps are kept; None keeps nothing.
    """
    spread = np.ptp(points, axis=0).max()
    if not 5 <= len(points) <= MOST_TSNE or points.shape[1] < 2 or not spread:
        return np.pad(points, ((0, 0), (0, 2)))[:, :2].astype(np.float32)
    return kept_array(f"map-{VERSION}", points, lambda: _tsne(points, label), cache)


def _tsne(points: np.ndarray, label: str) -> np.ndarray:
    from openTSNE import TSNE  # takes seconds to import

    with progress(label=label, unit="steps", total=EARLY + LATER) as bar:

        def update(iteration: int, *_: object) -> None:
            bar.update(10)

        start = points[:, :2] / points[:, 0].std() * 1e-4  # small, as t-SNE needs it
        model = TSNE(
            perplexity=min(30, (len(points) - 1) / 3),
            initialization=start,
            negative_gradient_method="bh",
            neighbors="exact",
            early_exaggeration_iter=EARLY,
            n_iter=LATER,
            callbacks=update,
            callbacks_every_iters=10,
            n_jobs=-1,
            random_state=0,
        )
        return np.asarray(model.fit(points), np.float32)
