"""k-means of millions of images."""

import math

import numpy as np
from sklearn.cluster import KMeans, MiniBatchKMeans

from crl.projection import ConditionalProjection
from crl.run.errors import UserError
from crl.search.exact import points

BATCH = 2**14  # rows


def stream_clusters(
    image: np.ndarray, projection: ConditionalProjection, clusters: int, seed: int = 0
) -> np.ndarray:
    """k-means of the representation of I in mini-batches; memory does not grow with N.

    Every batch has evenly spaced rows, so that it does not matter how the images are sorted. The
    centres start from k-means on the first batch.

    Returns:
        (N,) the cluster of each image, 0 to k - 1, the largest first.

    Raises:
        UserError: a number of clusters below 1 or above N; texts of another width.
    """
    if not 1 <= clusters <= len(image):
        raise UserError(f"the number of clusters must be 1 to {len(image)}, not {clusters}")
    batches = math.ceil(len(image) / max(BATCH, 10 * clusters))
    model = None
    for batch in np.random.default_rng(seed).permutation(batches):
        x = np.concatenate([*points(image[batch::batches], projection)])
        if model is None:
            start = KMeans(clusters, n_init=5, random_state=seed).fit(x).cluster_centers_
            model = MiniBatchKMeans(
                clusters, init=start, n_init=1, reassignment_ratio=0, random_state=seed
            )
        model.partial_fit(x)
    label = np.concatenate([model.predict(part) for part in points(image, projection)])
    by_size = np.argsort(-np.bincount(label, minlength=clusters), kind="stable")
    return np.argsort(by_size)[label]
