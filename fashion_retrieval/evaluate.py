"""Fashion retrieval by attribute (paper, Table 4): mean average precision (mAP).

    python fashion_retrieval/evaluate.py --config configs/deepfashion.yaml

For each attribute, each query ranks all candidates of that attribute; those with the query's value
are relevant. Rows: random ranking, the universal representation I, CRL without training (one per
`representation`), and one row per training in `trained`: CRL's heads, its backbone, or a rival.
"""

from crl.run.command import command

import os
import time
from pathlib import Path

import numpy as np

from crl.projection import l2
from crl.run.config import load_config
from crl.run.figures import retrieval_sheet
from crl.run.files import alone_in
from crl.run.results import Run, digest
from fashion_retrieval.heads import through
from fashion_retrieval.inputs import EvaluateConfig, Inputs, load_inputs
from fashion_retrieval.method import (
    Represent,
    by_attribute,
    conditional,
    mean_scores,
    random_draw,
    random_expectation,
    retrieval_precision,
    without_relevant,
)
from fashion_retrieval.networks import represent_tables
from fashion_retrieval.tables import METHODS, notes, row_name, table


def representation(inputs: Inputs, config: EvaluateConfig) -> Represent:
    """Images (n,) and an attribute -> (n, W) float32, unit rows."""
    if inputs.rival is not None:  # all images go through it now, once each
        split, workers = inputs.split, config.workers or min(8, os.cpu_count() or 1)
        tables, precision = [split.query, split.candidate], config.precision
        return represent_tables(
            inputs.rival, split.files, tables, precision, config.embed_batch, workers
        )
    if inputs.projections is not None:  # beyond the paper: R' = I T_aᵀ, sharpened
        crl = [projection.fit(inputs.image) for projection in inputs.projections]
        return lambda images, attribute: crl[attribute].transform(inputs.image[images])
    if inputs.text is None:
        return lambda images, attribute: l2(inputs.image[images])  # I, for every attribute
    x = conditional(inputs.image, inputs.text)  # x = l2(R), R = I T_aᵀ
    return x if inputs.heads is None else through(inputs.heads, x)


def measure(inputs: Inputs, represent: Represent, seed: int) -> dict[str, dict[str, float]]:
    """{method: {attribute: mAP in percent, ..., "overall": ..., "mean": ...}}.

    Random rankings need no representation; their scores are given with `universal`.
    """
    split = inputs.split
    query, candidate = split.query, split.candidate
    precision = {}
    if inputs.method == "universal":
        precision["random"] = random_expectation(query, candidate)
        precision["random draw"] = random_draw(query, candidate, seed)
    precision[inputs.method] = retrieval_precision(represent, query, candidate)
    return {m: mean_scores(p, query, split.attributes) for m, p in precision.items()}


def draw(inputs: Inputs, universal: Represent, represent: Represent, seed: int, file: Path) -> None:
    """Draw a random query per attribute with its 5 best candidates, first by the universal
    representation and below by this one."""
    rng = np.random.default_rng(seed)
    split, rows = inputs.split, []
    for mine, others in by_attribute(split.query, split.candidate):
        possible = np.isin(split.query[mine, 2], split.candidate[others, 2])
        asked = mine[possible] if possible.any() else mine
        image, attribute, value = split.query[rng.choice(asked)]
        candidates = split.candidate[others]
        for method, x in (("universal", universal), (inputs.method, represent)):
            near = x(np.array([image]), attribute)  # (1, W)
            similarity = (near @ x(candidates[:, 0], attribute).T)[0]
            top = candidates[np.argsort(-similarity, kind="stable")[:5]]
            name = METHODS[method].partition(",")[0] if x is universal else row_name(inputs.about)
            text = f"{split.attributes[attribute]}\n{name.partition(' (')[0]}"
            shown = [split.files[n] for n in top[:, 0]]
            rows.append((split.files[image], text, shown, (top[:, 2] == value).tolist()))
    about = f"{inputs.about['label'][-40:]}, {split.about['data']}"
    title = f"{about}: {row_name(inputs.about)} below universal (green: right)"
    retrieval_sheet(rows, title, file)


def evaluate(config: EvaluateConfig) -> Run:
    """Measure and draw what is missing in <outputs>/fashion_retrieval/<name>."""
    folder = config.outputs / "fashion_retrieval" / config.name
    with alone_in(folder):
        run = Run(folder, config.model_dump(mode="json"))
        for inputs in load_inputs(config):
            split = inputs.split
            key = digest("fashion retrieval", inputs.digest, config.seed)
            figure = folder / f"top-5-{inputs.file_name}-{key[:6]}.png"
            measured = run.finished(key)
            wanted = config.figures and split.files is not None and inputs.method != "universal"
            drawn = not wanted or figure.exists()
            if inputs.method == "universal":
                universal = representation(inputs, config)
            if measured and drawn:
                continue
            represent = representation(inputs, config)
            if not measured:
                start = time.perf_counter()
                scores = measure(inputs, represent, config.seed)
                run.add(
                    key,
                    **split.about,
                    **inputs.about,
                    criterion="all",
                    queries=len(split.query),
                    candidates=len(split.candidate),
                    without_relevant=without_relevant(split.query, split.candidate),
                    scores=scores,
                    seconds=time.perf_counter() - start,
                )
            if not drawn:
                draw(inputs, universal, represent, config.seed, figure)
    return run


@command
def main(argv: list[str]) -> None:
    run = evaluate(load_config(EvaluateConfig, argv, __doc__))
    print(table(run.cells, "Fashion retrieval, mAP in percent").text())
    for note in notes(run.cells):
        print(f"note: {note}")
    print(f"results and figures: {run.folder}")


if __name__ == "__main__":
    main()
