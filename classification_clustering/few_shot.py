"""Few-shot classification under a criterion (paper, Table 1): logistic regression on I and on R.

    python classification_clustering/few_shot.py --config configs/clevr4.yaml vlm=clip shots=[1,5]

Prints and saves the accuracy in percent, mean and standard deviation over seeds, and draws t-SNE
maps, universal beside conditional.
"""

import time

import numpy as np
from sklearn.linear_model import LogisticRegression
from tqdm import tqdm

from classification_clustering.common import Cell, TaskConfig, cells
from crl.run.config import load_config
from crl.run.errors import command
from crl.run.figures import tsne_pair
from crl.metrics import accuracy
from crl.projection import project, standardise
from crl.run.results import Run, digest, score_table, summary


def split(labels: np.ndarray, shots: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `shots` training images a class and of all the others (paper's protocol).

    The legacy global generator, and the shuffle of each class in sorted order, are the protocol's:
    another generator would draw other training images.
    """
    np.random.seed(seed)
    train, test = [], []
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        np.random.shuffle(indices)
        train.append(indices[:shots])
        test.append(indices[shots:])
    return np.concatenate(train), np.concatenate(test)


def few_shot(x: np.ndarray, labels: np.ndarray, shots: int, seed: int) -> float:
    """Test accuracy, in percent, of logistic regression on x (N, F)."""
    train, test = split(labels, shots, seed)
    classifier = LogisticRegression(max_iter=1000).fit(x[train], labels[train])
    return accuracy(labels[test], classifier.predict(x[test]))


def measure(cell: Cell, shots: list[int], seeds: int) -> dict[str, dict]:
    """Scores of both representations, and of zero-shot classification by the class names."""
    r = standardise(project(cell.image, cell.text))  # R = I Tᵀ, (N, K)
    scores: dict[str, dict] = {}
    for name, x in (("universal", cell.universal), ("conditional", r)):
        scores[name] = {}
        for n in shots:
            bar = tqdm(range(seeds), desc=f"{n}-shot", unit="seed", disable=None, leave=False)
            values = [few_shot(x, cell.labels, n, seed) for seed in bar]
            scores[name][f"{n}-shot"] = summary(values)
    return {**scores, **cell.zero_shot()}


def draw(cell: Cell, run: Run) -> None:
    """t-SNE of one cell, universal beside conditional, unless it is there already."""
    file = run.folder / f"tsne-{cell.file_name}.png"
    if not file.exists():
        r = standardise(project(cell.image, cell.text))
        tsne_pair(cell.universal, r, cell.labels, cell.class_names, cell.title, file)


@command
def main(argv: list[str]) -> None:
    config = load_config(TaskConfig, argv, __doc__)
    run = Run(config.outputs / "few_shot" / config.name, config.model_dump(mode="json"))
    for cell in cells(config, at_least=max(config.shots) + 1):  # one to test on
        key = digest("few-shot", cell.digest, config.shots, config.seeds)
        if not run.finished(key):
            start = time.perf_counter()
            scores = measure(cell, config.shots, config.seeds)
            run.add(key, **cell.about, scores=scores, seconds=time.perf_counter() - start)
        if config.figures:
            draw(cell, run)
    print(score_table(f"Few-shot accuracy ({config.seeds} seeds, percent)", run.cells))
    print(f"results and figures: {run.folder}")


if __name__ == "__main__":
    main()
