"""Few-shot classification under a criterion (paper, Table 1): logistic regression on I and on R.

    python classification_clustering/few_shot.py --config configs/clevr4.yaml vlm=clip shots=[1,5]

Prints and saves the accuracy in percent, mean and standard deviation over seeds. Draws t-SNE maps.
`representation=[paper,posterior,paper+posterior]` measures several R.
"""

from crl.run.command import command

import time
from functools import partial

import numpy as np

from classification_clustering.config import EvaluateConfig
from classification_clustering.embedded import Embedded, embedded
from classification_clustering.method import Rows, few_shot, zero_shot
from classification_clustering.tables import notes, table
from crl.projection import project, single_vector, standardise
from crl.representations import kind_of, label, represent
from crl.representations.null_space import without
from crl.run.config import load_config
from crl.run.figures import tsne_maps
from crl.run.files import alone_in, slug
from crl.run.results import Results, digest, over_seeds, summary


def evaluate(config: EvaluateConfig) -> Results:
    """Measure and draw what is missing in <outputs>/few_shot/<name>."""
    folder = config.outputs / "few_shot" / config.name
    with alone_in(folder):
        results = Results(folder, config.model_dump(mode="json"))
        at_least = max(config.shots) + 1  # one to test on
        for data in embedded(config, at_least):  # I (N, D), T (K, D): each VLM and criterion
            image = without(data.image, data.directions)  # I, but for what other criteria explain
            x: dict[str, Rows] = {"universal": single_vector(data.image)}
            if data.text is None:  # a model that was told the criterion
                x, names = {"instructed": data.image}, []
            else:
                r, names = project(image, data.text), config.representation  # R = I Tᵀ, (N, K)
            for name in names:
                parts = name.split("+")
                of = partial(standardised, parts, data, config.sharpness, image, r)
                learns = any(kind_of(part).supervision == "labels" for part in parts)
                x[label(config, name)] = of if learns else of()

            for method, rows in x.items():
                basis = {"basis": "-"} if method == "universal" else data.about_basis
                about = {**data.about, **basis, "method": method}
                about |= {"shots": config.shots, "seeds": config.seeds}
                if not results.find(about):
                    start = time.perf_counter()
                    scores = measure(rows, data.data.labels, config.shots, config.seeds)
                    seconds = time.perf_counter() - start
                    results.add(about, scores, **data.counts, seconds=seconds)
            if data.class_text is not None:
                about = {**data.about, "basis": "class names", "method": "zero-shot"}
                if not results.find(about):
                    accuracy = zero_shot(data.image, data.class_text, data.data.labels)
                    results.add(about, {"acc": summary([accuracy])}, **data.counts)
            if config.figures:
                title = f"{data.about['vlm']}, {data.about['criterion']}"
                name = f"{slug(title)}-{digest(data.about, data.about_basis, list(x))[:6]}"
                if not (file := folder / f"tsne-{name}.png").exists():
                    fixed = {method: rows for method, rows in x.items() if not callable(rows)}
                    tsne_maps(fixed, data.data.labels, data.data.classes, title, file)
    return results


def standardised(
    parts: list[str], data: Embedded, sharpness: float, image: np.ndarray, r: np.ndarray,
    y: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """The images I (N, D) in each representation of `parts`, standardised, side by side, (N, F).
    `r` is R; y (N,), for those that learn from labels: of the training images, else -1."""
    how = {"directions": data.directions, "class_text": data.class_text}
    rows = [
        r if part == "paper" else represent(part, image, data.text, y, sharpness=sharpness, **how)
        for part in parts
    ]
    return np.concatenate([*map(standardise, rows)], axis=1)


def measure(x: Rows, labels: np.ndarray, shots: list[int], seeds: int) -> dict[str, dict]:
    """Accuracy of a classifier on x, see `method.few_shot`, with each number of shots."""
    return over_seeds(
        lambda seed: {f"{n}-shot": few_shot(x, labels, n, seed) for n in shots}, seeds, "few-shot"
    )


@command
def main(argv: list[str]) -> None:
    config = load_config(EvaluateConfig, argv, __doc__, unused=["rivals"])
    results = evaluate(config)
    table(results.rows, f"Few-shot accuracy ({config.seeds} seeds, percent)").show(
        notes(results.rows), results.folder
    )


if __name__ == "__main__":
    main()
