"""Retrieval under a criterion: rank a database by similarity to a query, on I and on R = I Tᵀ.

    python classification_clustering/retrieval.py --config configs/clevr4.yaml vlm=clip

Queries are a tenth of the images, drawn anew with each seed. Prints and saves the mean average
precision in percent, mean and standard deviation over seeds. `representation=[paper,posterior]`
measures several R. Not of the paper: CLAY (arXiv 2604.11539) reports such numbers.
"""

from crl.run.command import command

import time

import numpy as np

from classification_clustering.config import EvaluateConfig
from classification_clustering.embedded import embedded
from classification_clustering.method import mean_average_precision
from classification_clustering.tables import notes, table
from crl.projection import l2, project, single_vector
from crl.representations import label, represent
from crl.representations.null_space import without
from crl.run.config import load_config
from crl.run.files import alone_in
from crl.run.results import Results, over_seeds


def evaluate(config: EvaluateConfig) -> Results:
    """Measure what is missing in <outputs>/retrieval/<name>."""
    folder = config.outputs / "retrieval" / config.name
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
                    scores = measure(rows, data.data.labels, config.seeds)
                    seconds = time.perf_counter() - start
                    results.add(about, scores, **data.counts, seconds=seconds)
    return results


def measure(x: np.ndarray, labels: np.ndarray, seeds: int) -> dict[str, dict]:
    """Mean average precision on x (N, F), unit rows, over seeds."""
    return over_seeds(
        lambda seed: {"map": mean_average_precision(x, labels, seed)}, seeds, "retrieval"
    )


@command
def main(argv: list[str]) -> None:
    config = load_config(EvaluateConfig, argv, __doc__, unused=["shots", "figures", "rivals"])
    results = evaluate(config)
    table(results.rows, f"Retrieval ({config.seeds} seeds, mAP in percent)").show(
        notes(results.rows), results.folder
    )


if __name__ == "__main__":
    main()
