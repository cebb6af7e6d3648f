"""Clustering under a criterion (paper, Table 2): k-means on I and on R = I Tᵀ.

    python classification_clustering/clustering.py --config configs/clevr4.yaml vlm=clip

Prints and saves NMI, ACC (Hungarian match), ARI, and beyond the paper RI and AMI, in percent, mean
and standard deviation over seeds. Draws t-SNE maps and cluster sheets.
`representation=[paper,posterior]` measures several R; `rivals=[FOLDER]` adds what train_rival.py
has trained.
"""

from crl.run.command import command

import time
from pathlib import Path

import numpy as np

from classification_clustering.config import EvaluateConfig
from classification_clustering.datasets import Labelled
from classification_clustering.embedded import Embedded, embedded
from classification_clustering.method import clustering_scores, kmeans, zero_shot
from classification_clustering.rivals.trained import COSTS, Rival, load_rivals
from classification_clustering.tables import notes, table
from crl.projection import l2, project, single_vector
from crl.representations import label, represent
from crl.representations.null_space import without
from crl.run.config import load_config
from crl.run.figures import cluster_sheet, tsne_maps
from crl.run.files import alone_in, slug
from crl.run.results import Results, digest, over_seeds, summary


def evaluate(config: EvaluateConfig) -> Results:
    """Measure and draw what is missing in <outputs>/clustering/<name>."""
    folder = config.outputs / "clustering" / config.name
    rivals = load_rivals(config) if config.rivals else []
    with alone_in(folder):
        results = Results(folder, config.model_dump(mode="json"))
        for data in embedded(config):  # I (N, D) and T (K, D) of each VLM under each criterion
            image = without(data.image, data.directions)  # I, but for what other criteria explain
            x = {"universal": single_vector(data.image)}
            if data.text is None:  # a model that was told the criterion
                x, names = {"instructed": data.image}, []
            else:
                r, names = project(image, data.text), config.representation  # R = I Tᵀ, (N, K)
            for name in names:
                x[label(config, name)] = l2(r) if name == "paper" else represent(
                    name, image, data.text, data.data.labels, sharpness=config.sharpness,
                    directions=data.directions, class_text=data.class_text,
                )  # fmt: skip

            for method, rows in x.items():
                basis = {"basis": "-"} if method == "universal" else data.about_basis
                about = {**data.about, **basis, "method": method, "seeds": config.seeds}
                if not results.find(about):
                    start = time.perf_counter()
                    scores = measure(rows, data.data, config.seeds)
                    seconds = time.perf_counter() - start
                    results.add(about, scores, **data.counts, seconds=seconds)
            for rival in rivals:
                if data.about["criterion"] in rival.training.criteria:
                    about = {**rival.about(data), "seeds": config.seeds}
                    if not results.find(about):
                        scores = measure_rival(rival, data.data, config.seeds)
                        costs = rival.training.model_dump(include=COSTS)
                        results.add(about, scores, images=len(image), **costs)
            if data.class_text is not None:
                about = {**data.about, "basis": "class names", "method": "zero-shot"}
                if not results.find(about):
                    accuracy = zero_shot(data.image, data.class_text, data.data.labels)
                    results.add(about, {"acc": summary([accuracy])}, **data.counts)
            if config.figures:
                draw(data, x, folder)
    return results


def measure(x: np.ndarray, data: Labelled, seeds: int) -> dict[str, dict]:
    """The `clustering_scores` of k-means on x (N, F), over seeds."""
    labels, k = data.labels, len(data.classes)
    return over_seeds(lambda seed: clustering_scores(labels, kmeans(x, k, seed)), seeds, "k-means")


def measure_rival(rival: Rival, data: Labelled, seeds: int) -> dict[str, dict]:
    """The `clustering_scores` of a rival: of its own clusters, or of k-means on its features."""
    if rival.training.form == "features":
        return measure(l2(rival.values), data, seeds)
    scores = clustering_scores(data.labels, rival.values.argmax(axis=1))
    return {metric: summary([score]) for metric, score in scores.items()}


def draw(data: Embedded, x: dict[str, np.ndarray], folder: Path) -> None:
    """Draw the t-SNE map and the cluster sheet of x {method: (N, F)}, unless the files exist."""
    title = f"{data.about['vlm']}, {data.about['criterion']}"
    name = f"{slug(title)}-{digest(data.about, data.about_basis, list(x))[:6]}"  # data, bases, R
    tsne, sheet = folder / f"tsne-{name}.png", folder / f"clusters-{name}.png"
    labels, classes, paths = data.data.labels, data.data.classes, data.data.paths
    if not tsne.exists():
        tsne_maps(x, labels, classes, title, tsne)
    if paths and not sheet.exists():
        clusters = {method: kmeans(rows, len(classes), seed=0) for method, rows in x.items()}
        cluster_sheet(paths, clusters, title, sheet)


@command
def main(argv: list[str]) -> None:
    config = load_config(EvaluateConfig, argv, __doc__, unused=["shots"])
    results = evaluate(config)
    table(results.rows, f"Clustering ({config.seeds} seeds, percent)").show(
        notes(results.rows), results.folder
    )


if __name__ == "__main__":
    main()
