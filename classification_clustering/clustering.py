"""Clustering under a criterion (paper, Table 2): k-means on I and on R = I Tᵀ.

    python classification_clustering/clustering.py --config configs/clevr4.yaml vlm=clip

Prints and saves NMI, ACC (Hungarian match) and ARI in percent, mean and standard deviation over
seeds. Draws t-SNE maps and cluster sheets of both representations.
"""

from crl.run.command import command

import time

import numpy as np

from classification_clustering.inputs import EvaluateConfig, Inputs, load_inputs
from classification_clustering.method import clustering_scores, kmeans, zero_shot
from classification_clustering.tables import notes, table
from crl.projection import ConditionalProjection
from crl.run.config import load_config
from crl.run.figures import cluster_sheet, tsne_pair
from crl.run.files import alone_in
from crl.run.progress import progress
from crl.run.results import Run, array_digest, digest, summary


def measure(inputs: Inputs, r: np.ndarray, seeds: int, known: dict) -> dict[str, dict]:
    """NMI, ACC and ARI of both representations over seeds, and zero-shot accuracy.

    Args:
        r: R, (N, K).
        known: keeps the clusterings of I, which the four criteria of Clevr4 share.
    """
    classes = len(inputs.class_names)

    def cluster(x: np.ndarray) -> list[np.ndarray]:
        bar = progress(range(seeds), label="k-means", unit="seeds")
        return [kmeans(x, classes, seed) for seed in bar]

    def scores(clusterings: list[np.ndarray]) -> dict[str, dict]:
        found = [clustering_scores(inputs.labels, clusters) for clusters in clusterings]
        return {metric: summary([one[metric] for one in found]) for metric in found[0]}

    universal = array_digest(inputs.universal), classes
    if universal not in known:
        known[universal] = cluster(inputs.universal)
    measured = {"universal": scores(known[universal]), "conditional": scores(cluster(r))}
    if inputs.class_text is not None:
        accuracy = zero_shot(inputs.image, inputs.class_text, inputs.labels)
        measured["zero-shot"] = {"acc": summary([accuracy])}
    return measured


def draw(inputs: Inputs, r: np.ndarray, run: Run) -> None:
    """Draw the t-SNE map and the cluster sheet of both representations, unless the files exist."""
    tsne, sheet = (run.folder / f"{kind}-{inputs.file_name}.png" for kind in ("tsne", "clusters"))
    both = inputs.universal, r
    if not tsne.exists():
        tsne_pair(*both, inputs.labels, inputs.class_names, inputs.title, tsne)
    if inputs.paths and not sheet.exists():
        universal, conditional = (kmeans(x, len(inputs.class_names), seed=0) for x in both)
        cluster_sheet(inputs.paths, universal, conditional, inputs.title, sheet)


@command
def main(argv: list[str]) -> None:
    config = load_config(EvaluateConfig, argv, __doc__, unused=["shots"])
    folder = config.outputs / "clustering" / config.name
    with alone_in(folder):
        run = Run(folder, config.model_dump(mode="json"))
        known: dict = {}
        for inputs in load_inputs(config):
            crl = ConditionalProjection(inputs.text)
            r = crl.fit_transform(inputs.image)  # R = I Tᵀ, (N, K), unit rows
            key = digest("clustering", inputs.digest, config.seeds)
            if not run.finished(key):
                start = time.perf_counter()
                scores = measure(inputs, r, config.seeds, known)
                run.add(key, **inputs.about, scores=scores, seconds=time.perf_counter() - start)
            if config.figures:
                draw(inputs, r, run)
    print(table(run.cells, f"Clustering ({config.seeds} seeds, percent)"))
    print("\n".join([*notes(run.cells), f"results and figures: {folder}"]))


if __name__ == "__main__":
    main()
