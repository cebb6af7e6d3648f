"""Clustering under a criterion (paper, Table 2): k-means on I and on R = I Tᵀ.

    python classification_clustering/clustering.py --config configs/clevr4.yaml vlm=clip

Prints and saves NMI, ACC (Hungarian match) and ARI in percent, mean and standard deviation over
seeds, and draws t-SNE maps and cluster sheets, universal beside conditional.
"""

import time

import numpy as np
from sklearn.cluster import KMeans
from tqdm import tqdm

from classification_clustering.common import Cell, TaskConfig, cells
from crl.run.config import load_config
from crl.run.errors import UserError, command
from crl.run.figures import cluster_sheet, tsne_pair
from crl.metrics import clustering_scores
from crl.projection import l2, project
from crl.run.results import Run, array_digest, digest, score_table, summary


def kmeans(x: np.ndarray, clusters: int, seeds: int) -> np.ndarray:
    """k-means of x (N, F) once a seed, with the paper's settings: (seeds, N) cluster numbers.

    Raises:
        UserError: fewer images than clusters.
    """
    if len(x) < clusters:
        raise UserError(f"{len(x)} images cannot make {clusters} clusters")
    bar = tqdm(range(seeds), desc="k-means", unit="seed", disable=None, leave=False)
    return np.stack(
        [KMeans(clusters, n_init="auto", random_state=seed).fit_predict(x) for seed in bar]
    )


def score(labels: np.ndarray, clusterings: np.ndarray) -> dict[str, dict]:
    """NMI, ACC and ARI of clusterings (seeds, N) against labels (N,), in percent, over seeds."""
    scores = [clustering_scores(labels, clusters) for clusters in clusterings]
    return {metric: summary([s[metric] for s in scores]) for metric in scores[0]}


def measure(cell: Cell, seeds: int, known: dict) -> dict[str, dict]:
    """Scores of both representations, and of zero-shot classification by the class names.

    `known` keeps the clusterings of I: Clevr4's four criteria share them, ten classes each.
    """
    classes = len(cell.class_names)
    universal = (array_digest(cell.universal), classes)
    if universal not in known:
        known[universal] = kmeans(cell.universal, classes, seeds)
    r = l2(project(cell.image, cell.text))  # R = I Tᵀ, (N, K), unit rows
    scores = {
        "universal": score(cell.labels, known[universal]),
        "conditional": score(cell.labels, kmeans(r, classes, seeds)),
    }
    return {**scores, **cell.zero_shot()}


def draw(cell: Cell, run: Run) -> None:
    """t-SNE and cluster sheet of one cell, universal beside conditional, unless they are there."""
    tsne, sheet = (run.folder / f"{kind}-{cell.file_name}.png" for kind in ("tsne", "clusters"))
    r = l2(project(cell.image, cell.text))
    if not tsne.exists():
        tsne_pair(cell.universal, r, cell.labels, cell.class_names, cell.title, tsne)
    if cell.paths and not sheet.exists():
        clusters = [kmeans(x, len(cell.class_names), seeds=1)[0] for x in (cell.universal, r)]
        cluster_sheet(cell.paths, *clusters, cell.title, sheet)


@command
def main(argv: list[str]) -> None:
    config = load_config(TaskConfig, argv, __doc__, unused=["shots"])
    run = Run(config.outputs / "clustering" / config.name, config.model_dump(mode="json"))
    known: dict = {}
    for cell in cells(config):
        key = digest("clustering", cell.digest, config.seeds)
        if not run.finished(key):
            start = time.perf_counter()
            scores = measure(cell, config.seeds, known)
            run.add(key, **cell.about, scores=scores, seconds=time.perf_counter() - start)
        if config.figures:
            draw(cell, run)
    print(score_table(f"Clustering ({config.seeds} seeds, percent)", run.cells))
    print(f"results and figures: {run.folder}")


if __name__ == "__main__":
    main()
