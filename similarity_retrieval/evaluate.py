"""Similarity retrieval under a condition (paper, Table 3): the GeneCIS benchmark.

    python similarity_retrieval/evaluate.py --config configs/genecis.yaml

Prints Recall@1, 2, 3 in percent for each task: of chance, the image alone, the text alone, image +
text, the Combiner and CRL (a row for each `representation` and `balance`). Saves the rank of each
template's target, and draws the templates that CRL answers best and worst.
"""

from crl.run.command import command

import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from crl.projection import ConditionalProjection
from crl.run.config import load_config
from crl.run.errors import UserError
from crl.run.figures import retrieval_sheet
from crl.run.files import alone_in, atomic_path
from crl.run.results import Run, digest
from similarity_retrieval.inputs import EvaluateConfig, Inputs, load_inputs
from similarity_retrieval.method import (
    TiePolicy,
    baseline_scores,
    chance,
    crl_scores,
    recall,
    target_ranks,
)
from similarity_retrieval.tables import CUTOFFS, notes, table

Ranks = tuple[np.ndarray, np.ndarray]  # (B,) candidates above the target, (B,) tied with it


def evaluate(config: EvaluateConfig) -> Run:
    """Measure and draw what is missing in <outputs>/similarity_retrieval/<name>."""
    folder = config.outputs / "similarity_retrieval" / config.name
    with alone_in(folder):
        run = Run(folder, config.model_dump(mode="json"))
        for inputs in load_inputs(config):
            how = config.representation, config.sharpness, config.balance
            key = digest("similarity retrieval", inputs.digest, *how)
            ranks_file = folder / f"ranks-{inputs.file_name}-{key[:6]}.npz"
            figure = folder / f"best-and-worst-{inputs.file_name}-{key[:6]}.png"
            drawn = figure.exists() or not config.figures or inputs.files is None
            done = run.finished(key)
            if done and ranks_file.exists() and drawn:
                continue
            start = time.perf_counter()
            scores = all_scores(inputs, config)
            ranks = {method: target_ranks(found) for method, found in scores.items()}
            save_ranks(ranks, ranks_file)
            if not drawn:
                drawn_method = [method for method in scores if method.startswith("crl")][-1]
                draw(inputs, drawn_method, ranks[drawn_method], scores[drawn_method], figure)
            if not done:
                tables = {policy: measure(ranks, inputs, policy) for policy in ("fair", "paper")}
                mine = tables.pop(config.tie_policy)
                (other,) = tables.values()
                run.add(
                    key,
                    **inputs.about,
                    scores=mine,
                    ranks=ranks_file.name,
                    other_tie_policy={m: other[m] for m in mine if other[m] != mine[m]},
                    seconds=time.perf_counter() - start,
                )
    return run


def all_scores(inputs: Inputs, config: EvaluateConfig) -> dict[str, np.ndarray]:
    """Scores (B, G) of the candidates by each method; the target is in column 0. CRL's methods
    (`crl`, `crl posterior`, `crl, standard` ...) stand last.

    Raises:
        UserError: NaN or infinity among the scores.
    """
    features, t = inputs.features, inputs.templates
    scores = baseline_scores(features, t, inputs.combiner)
    for representation, balance in product(config.representation, config.balance):
        normalise = "l2" if representation == "paper" else representation
        crl = np.empty(t.gallery.shape, features.image.dtype)
        for basis in inputs.bases:
            rows = basis.rows
            r = ConditionalProjection(
                basis.text,
                normalise=normalise,
                sharpness=config.sharpness,
                removed=basis.removed,
            ).fit_transform(features.image)  # R = I Tᵀ, (M, K), unit rows
            part = replace(
                t, reference=t.reference[rows], gallery=t.gallery[rows], condition=t.condition[rows]
            )
            crl[rows] = crl_scores(features, part, r, config.weight, balance)
        label = config.about(representation)["representation"]
        method = "crl" if label == "paper" else f"crl {label}"
        scores[method if balance == "paper" else f"{method}, {balance}"] = crl
    for method, found in scores.items():
        if not np.isfinite(found).all():
            raise UserError(
                f"{inputs.about['label']}, {inputs.about['data']}: scores of {method} are not "
                "finite; the embeddings or the Combiner's weights hold NaN or infinity"
            )
    return scores


def measure(ranks: dict[str, Ranks], inputs: Inputs, tie_policy: TiePolicy) -> dict[str, dict]:
    """Recall in percent, {method: {"R@k": ...}}, from the ranks of the targets; chance is exact."""
    found = {"chance": {f"R@{k}": chance(inputs.about["candidates"], k) for k in CUTOFFS}}
    for method, (better, tied) in ranks.items():
        found[method] = {f"R@{k}": recall(better, tied, k, tie_policy) for k in CUTOFFS}
    return found


def save_ranks(ranks: dict[str, Ranks], file: Path) -> None:
    """An NPZ with `<method>/better` and `<method>/tied`, (B,) each, in the templates' order."""
    arrays: dict[str, Any] = {}
    for method, (better, tied) in ranks.items():
        arrays |= {f"{method}/better": better, f"{method}/tied": tied}
    with atomic_path(file) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def draw(inputs: Inputs, method: str, ranks: Ranks, scores: np.ndarray, file: Path) -> None:
    """Draw the three templates that a method answers best, and the three that it answers worst."""
    t, (better, tied) = inputs.templates, ranks
    margin = scores[:, 0] - scores[:, 1:].max(1)  # of the target over the best other candidate
    order = np.lexsort((-margin, better + tied))
    few = min(3, len(order) // 2) or 1
    rows = []
    for b in [*order[:few], *order[-few:]]:
        ranked = np.argsort(-scores[b], kind="stable")[:3]
        title = f"{inputs.data.conditions[t.condition[b]]}\ntarget is no. {better[b] + 1}"
        shown = [inputs.files[t.gallery[b, g]] for g in ranked]
        right = [bool(t.gallery[b, g] == t.gallery[b, 0]) for g in ranked]
        if not any(right):  # then the target is shown after the best three
            shown, right = [*shown, inputs.files[t.gallery[b, 0]]], [*right, True]
        rows.append((inputs.files[t.reference[b]], title, shown, right))
    about = f"{inputs.about['label']}, {inputs.about['data'].replace('_', ' ')}"
    retrieval_sheet(
        rows, f"{about}: best and worst of {method.replace('crl', 'CRL')} (green: the target)", file
    )


@command
def main(argv: list[str]) -> None:
    run = evaluate(load_config(EvaluateConfig, argv, __doc__))
    print(table(run.cells, "Similarity retrieval, Recall@k in percent").text())
    for note in notes(run.cells):
        print(f"note: {note}")
    print(f"results, ranks and figures: {run.folder}")


if __name__ == "__main__":
    main()
