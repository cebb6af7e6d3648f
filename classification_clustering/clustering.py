"""Clustering under a criterion (paper, Table 2): k-means on I and on R = I Tᵀ.

    python classification_clustering/clustering.py --config configs/clevr4.yaml vlm=clip

Prints and saves NMI, ACC (Hungarian match) and ARI in percent, mean and standard deviation over
seeds. Draws t-SNE maps and cluster sheets. `representation=[paper,posterior]` measures several R.
"""

from crl.run.command import command

import time

import numpy as np

from classification_clustering.inputs import EvaluateConfig, Inputs, load_inputs
from classification_clustering.method import clustering_scores, conditional, kmeans, zero_shot
from classification_clustering.tables import notes, table
from crl.projection import l2
from crl.run.config import load_config
from crl.run.figures import cluster_sheet, tsne_maps
from crl.run.files import alone_in
from crl.run.progress import progress
from crl.run.results import Run, array_digest, digest, summary


def measure(inputs: Inputs, r: np.ndarray, seeds: int, known: dict) -> dict[str, dict]:
    """NMI, ACC and ARI of I and of R over seeds, and zero-shot accuracy.

    Args:
        r: R, (N, K).
        known: keeps the clusterings of I, which representations and Clevr4's criteria share.
    """
    classes = len(inputs.class_names)

    def cluster(x: np.ndarray) -> list[np.ndarray]:
        bar = progress(range(seeds), label="k-means", unit="seeds")
        return [kmeans(x, classes, seed) for seed in bar]

    def scores(clusterings: list[np.ndarray]) -> dict[str, dict]:
        found = [clustering_scores(inputs.labels, clusters) for clusters in clusterings]
        return {metric: summary([one[metric] for one in found]) for metric in found[0]}

    universal = array_digest(inputs.universal), classes, seeds
    if universal not in known:
        known[universal] = cluster(inputs.universal)
    measured = {"universal": scores(known[universal]), "conditional": scores(cluster(r))}
    if inputs.class_text is not None:
        accuracy = zero_shot(inputs.image, inputs.class_text, inputs.labels)
        measured["zero-shot"] = {"acc": summary([accuracy])}
    return measured


def draw(inputs: Inputs, found: dict[str, np.ndarray], run: Run) -> None:
    """Draw the t-SNE map and the cluster sheet of I and of each R, unless the files exist.

    Args:
        found: representation: R, (N, K).
    """
    name = inputs.file_name(list(found))
    tsne, sheet = (run.folder / f"{kind}-{name}.png" for kind in ("tsne", "clusters"))
    shown = {"I": inputs.universal} | found
    if not tsne.exists():
        tsne_maps(shown, inputs.labels, inputs.class_names, inputs.title, tsne)
    if inputs.paths and not sheet.exists():
        clusters = {key: kmeans(x, len(inputs.class_names), seed=0) for key, x in shown.items()}
        cluster_sheet(inputs.paths, clusters, inputs.title, sheet)


def evaluate(config: EvaluateConfig, known: dict | None = None) -> Run:
    """Measure and draw what is missing in <outputs>/clustering/<name>.

    Args:
        known: clusterings of I by earlier calls, see `measure`; this call adds its own.
    """
    known = {} if known is None else known
    folder = config.outputs / "clustering" / config.name
    with alone_in(folder):
        run = Run(folder, config.model_dump(mode="json"))
        for inputs in load_inputs(config):
            found = {}
            for representation in config.representation:
                how = representation, l2, config.sharpness, inputs.removed
                r = conditional(inputs.image, inputs.text, *how)  # R = I Tᵀ, (N, K), unit rows
                about = inputs.about | config.about(representation)
                found[about["representation"]] = r
                key = digest("clustering", inputs.digest, about["representation"], config.seeds)
                if not run.finished(key):
                    start = time.perf_counter()
                    scores = measure(inputs, r, config.seeds, known)
                    run.add(key, **about, scores=scores, seconds=time.perf_counter() - start)
            if config.figures:
                draw(inputs, found, run)
    return run


@command
def main(argv: list[str]) -> None:
    config = load_config(EvaluateConfig, argv, __doc__, unused=["shots"])
    run = evaluate(config)
    print(table(run.cells, f"Clustering ({config.seeds} seeds, percent)").text())
    for note in notes(run.cells):
        print(f"note: {note}")
    print(f"results and figures: {run.folder}")


if __name__ == "__main__":
    main()
