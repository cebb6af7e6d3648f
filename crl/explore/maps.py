"""Two-dimensional maps of a representation: images that are alike lie together."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from crl.run.files import CACHE, atomic_path
from crl.run.progress import progress
from crl.run.results import digest
from crl.run.store import content_digest

COMPUTED = CACHE / "computed"
MOST_TSNE = 5_000  # images; of more, t-SNE takes minutes
# Steps; with openTSNE's 250 and 500, as many nearest neighbours stay so in the map (64 of 100 on
# 5,000 images of the demo), and it takes three times as long.
EARLY, LATER = 60, 140
VERSION = 2


def map_points(points: np.ndarray, label: str, cache: Path | None = COMPUTED) -> np.ndarray:
    """(N, 2) float32: t-SNE of principal components (N, components); or the first two of them, if
    there are more than `MOST_TSNE` images, fewer than 5, or all are the same. The same points give
    the same map. `label` is the name of the progress bar."""
    spread = np.ptp(points, axis=0).max()
    if not 5 <= len(points) <= MOST_TSNE or points.shape[1] < 2 or not spread:
        return first_two(points)
    return kept_array(f"map-{VERSION}", points, lambda: _tsne(points, label), cache)


def first_two(points: np.ndarray) -> np.ndarray:
    """(N, 2) float32: the first two of principal components (N, components)."""
    return np.pad(points, ((0, 0), (0, 2)))[:, :2].astype(np.float32)


def _tsne(points: np.ndarray, label: str) -> np.ndarray:
    from openTSNE import TSNE  # takes seconds to import

    with progress(label=label, unit="steps", total=EARLY + LATER) as bar:
        model = TSNE(
            perplexity=min(30, (len(points) - 1) / 3), n_jobs=-1, random_state=0,
            initialization=points[:, :2] / points[:, 0].std() * 1e-4,  # small, as t-SNE needs it
            negative_gradient_method="bh", neighbors="exact",
            early_exaggeration_iter=EARLY, n_iter=LATER,
            # None: a true answer would stop it
            callbacks=lambda *_: bar.update(10) and None, callbacks_every_iters=10,
        )  # fmt: skip
        return np.asarray(model.fit(points), np.float32)


def kept_array(
    name: str, points: np.ndarray, compute: Callable[[], np.ndarray], cache: Path | None
) -> np.ndarray:
    """What `compute` makes of `points`, which takes long: made once and kept in `cache`, after a
    checksum. A damaged file is made again. `name` says all else that the result depends on."""
    if cache is None:
        return compute()
    file = cache / f"{name}-{digest(points)}.array"
    content = file.read_bytes() if file.is_file() else b""
    name_digest = content_digest(file.name.encode())  # so that no other file can take its place
    if content and content_digest(name_digest + content[16:]) == content[:16]:
        return np.load(io.BytesIO(content[16:]), allow_pickle=False)
    array, stream = compute(), io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    with atomic_path(file) as temporary:
        temporary.write_bytes(content_digest(name_digest + stream.getvalue()) + stream.getvalue())
    return array


if __name__ == "__main__":  # for a server, see `crl.explore.serve.map_in_advance`
    if hasattr(os, "nice"):
        os.nice(10)
    map_points(np.load(io.BytesIO(sys.stdin.buffer.read()), allow_pickle=False), "map")
