"""Fashion retrieval by attribute (paper, Table 4): mean average precision (mAP).

    python fashion_retrieval/evaluate.py --config configs/deepfashion.yaml

For each attribute, each query ranks all candidates of that attribute; those with the query's value
are relevant. Rows: random rankings, the universal representation I, CRL without training (one per
`representation`), and one row per training in `trained`: CRL's heads, its backbone, or a rival.
"""

from crl.run.command import command

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crl.projection import l2, project
from crl.representations import label, represent
from crl.representations.null_space import without
from crl.run.config import load_config
from crl.run.figures import retrieval_sheet
from crl.run.files import alone_in, slug
from crl.run.results import Results, digest
from fashion_retrieval.config import EvaluateConfig
from fashion_retrieval.embedded import Model, Split, embedded
from fashion_retrieval.method import (
    Represent,
    by_attribute,
    mean_scores,
    random_draw,
    random_expectation,
    retrieval_precision,
)
from fashion_retrieval.networks import through
from fashion_retrieval.tables import notes, table
from fashion_retrieval.trained import aligned


def evaluate(config: EvaluateConfig) -> Results:
    """Measure and draw what is missing in <outputs>/fashion_retrieval/<name>."""
    folder = config.outputs / "fashion_retrieval" / config.name
    with alone_in(folder):
        results = Results(folder, config.model_dump(mode="json"))
        split, models = embedded(config)  # I (N, D) and T_a (K, D) of the VLM, of each training
        query, candidate = split.query, split.candidate  # (Q, 3), (C, 3): image, attribute, value
        about_split, counts_of_split = split.about, split.counts

        def add(about: dict[str, Any], precision: Callable[[], np.ndarray], counts: dict) -> None:
            if not results.find(about):
                start = time.perf_counter()
                scores = mean_scores(precision(), query, split.attributes)
                seconds = time.perf_counter() - start
                results.add(about, scores, **counts_of_split, **counts, seconds=seconds)

        about = {**about_split, "vlm": "-", "basis": "-", "method": "random"}
        add(about, lambda: random_expectation(query, candidate), {})
        about |= {"method": "random draw", "seed": config.seed}
        add(about, lambda: random_draw(query, candidate, config.seed), {})
        names, universal = {label(config, name): name for name in config.representation}, None
        for model in models:
            for method, x in representations(model, names, config.sharpness).items():
                basis = {"basis": "-"} if method == "universal" else model.about_basis
                about = {**about_split, **model.about, **basis, "method": method}
                add(about, partial(retrieval_precision, x, query, candidate), model.counts)
                universal = universal or x
                name = slug(f"{method} {about['label']}") + f"-{digest(about, config.seed)[:6]}"
                figure = folder / f"top-5-{name}.png"
                if config.figures and split.files and x is not universal and not figure.exists():
                    draw(split, about, {"universal": universal, method: x}, config.seed, figure)
    return results


def representations(model: Model, names: dict[str, str], sharpness: float) -> dict[str, Represent]:
    """{method: its `Represent`}, of the representations in `names`, {method: name}."""
    if model.rival is not None:
        return {model.method: model.rival}
    image, texts, text = model.image, model.texts, aligned(model.texts)  # text: (A, K, D)

    def crl(images: np.ndarray, attribute: int) -> np.ndarray:
        r = project(image[images], text[attribute])  # R = I T_aᵀ, (n, K)
        return l2(r)

    def beyond(name: str, images: np.ndarray, attribute: int) -> np.ndarray:
        directions = model.directions[attribute] if model.directions else None
        rest = without(image, directions)  # (N, D)
        how: dict[str, Any] = {"sharpness": sharpness, "directions": directions}
        return represent(name, rest, texts[attribute], **how)[images]

    if model.heads is not None:
        return {model.method: through(model.heads, crl)}
    x: dict[str, Represent] = {"universal": lambda images, _: image[images]}
    for method, name in names.items():
        x[method] = crl if method == "paper" else partial(beyond, name)
    return x


def draw(split: Split, about: dict, x: dict[str, Represent], seed: int, file: Path) -> None:
    """Draw a random query per attribute with its 5 best candidates by each of x."""
    rng, rows = np.random.default_rng(seed), []
    for a, q, c in by_attribute(split.query, split.candidate):
        candidates = split.candidate[c]
        possible = np.isin(split.query[q, 2], candidates[:, 2])
        image, _, value = split.query[rng.choice(q[possible] if possible.any() else q)]
        for method, represented in x.items():
            similarity = represented(candidates[:, 0], a) @ represented(np.array([image]), a)[0]
            top = candidates[np.argsort(-similarity, kind="stable")[:5]]
            text, files = f"{split.attributes[a]}\n{method}", [split.files[n] for n in top[:, 0]]
            rows.append((split.files[image], text, files, (top[:, 2] == value).tolist()))
    where = f"{about['label'][-40:]}, {about['data']}"
    retrieval_sheet(rows, f"{where}: {about['method']} below universal (green: right)", file)


@command
def main(argv: list[str]) -> None:
    results = evaluate(load_config(EvaluateConfig, argv, __doc__))
    table(results.rows, "Fashion retrieval, mAP in percent").show(
        notes(results.rows), results.folder
    )


if __name__ == "__main__":
    main()
