"""Similarity retrieval under a condition (paper, Table 3): the GeneCIS benchmark.

    python similarity_retrieval/evaluate.py --config configs/genecis.yaml

Prints and saves Recall@1, 2, 3 in percent for each task: of GeneCIS's baselines, of `rivals`, and
of CRL (a row for each `representation` and `balance`). Saves the rank of each template's target,
and draws CRL's best and worst templates.
"""

from crl.run.command import command

import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from crl.backends.weights import weights_digest
from crl.projection import l2, project
from crl.representations import label, represent
from crl.representations.null_space import without
from crl.run.config import load_config
from crl.run.errors import UserError
from crl.run.figures import retrieval_sheet
from crl.run.files import alone_in, atomic_path, slug
from crl.run.results import Results, digest
from similarity_retrieval.config import EvaluateConfig
from similarity_retrieval.embedded import Embedded, embedded
from similarity_retrieval.method import CUTOFFS, baseline_scores, crl_scores, recall, target_ranks
from similarity_retrieval.tables import notes, table

BASELINES = ("chance", "image", "text", "image+text")  # and `combiner`, if there is one
Ranks = tuple[np.ndarray, np.ndarray]  # (B,) candidates above the target, (B,) tied with it


def evaluate(config: EvaluateConfig) -> Results:
    """Measure and draw what is missing in <outputs>/similarity_retrieval/<name>."""
    folder = config.outputs / "similarity_retrieval" / config.name
    variants = {}  # {CRL's methods as tables show them: representation and balance}
    for name, balance in product(config.representation, config.balance):
        end = "" if balance == "paper" else f", {balance}"
        variants[label(config, name) + end] = name, balance
    with alone_in(folder):
        results = Results(folder, config.model_dump(mode="json"))
        for data in embedded(config):  # one task, embedded by one VLM
            features, templates = data.features, data.templates
            vlm, task = data.about["label"], data.about["data"]
            # What each row says of itself, in the order of the table
            about: dict[str, dict[str, Any]] = {method: {"basis": "-"} for method in BASELINES}
            if data.combiner:
                about["combiner"] = {"basis": "-", "combiner": weights_digest(data.combiner)}
            about |= {method: {**rival.about} for method, rival in data.rivals.items()}
            about |= {method: {**data.about_basis, "weight": config.weight} for method in variants}
            for method, row in about.items():
                row |= {**data.about, "tie_policy": config.tie_policy, "method": method}
            name = f"{slug(f'{task} {vlm}')}-{digest(about)[:6]}"
            ranks_file, figure = folder / f"ranks-{name}.npz", folder / f"best-and-worst-{name}.png"
            drawn = figure.exists() or not config.figures or data.files is None
            done = [results.find(row) for row in about.values()]
            if all(done) and ranks_file.exists() and drawn:
                continue

            scores = baseline_scores(features, templates, data.combiner)  # {method: (B, G)}
            query_seconds = {}
            for method, rival in data.rivals.items():
                start = time.perf_counter()
                scores[method] = rival.scores(features, templates, data.data.conditions)
                query_seconds[method] = time.perf_counter() - start
            for method, (representation, balance) in variants.items():
                scores[method] = np.empty(templates.gallery.shape, features.image.dtype)
                for basis in data.bases:  # one for all templates, or one per kind of condition
                    image = without(l2(features.image), basis.directions)  # I, (M, D)
                    r = project(image, basis.text)  # R = I Tᵀ, (M, K)
                    x = l2(r) if representation == "paper" else represent(
                        representation, image, basis.text, sharpness=config.sharpness,
                        directions=basis.directions,
                    )  # fmt: skip
                    part = templates.some(basis.rows)
                    crl = crl_scores(features, part, x, config.weight, balance)
                    scores[method][basis.rows] = crl
            for method, values in scores.items():
                if not np.isfinite(values).all():
                    raise UserError(
                        f"{vlm}, {task}, {method}: there are scores that are not finite"
                    )
            ranks = {method: target_ranks(values) for method, values in scores.items()}

            recalls, candidates = {}, templates.gallery.shape[1]
            for policy in ("fair", "paper"):
                shares = {f"R@{k}": 100 * min(k / candidates, 1) for k in CUTOFFS}
                recalls[policy, "chance"] = shares
                for method, (better, tied) in ranks.items():
                    shares = {f"R@{k}": recall(better, tied, k, policy) for k in CUTOFFS}
                    recalls[policy, method] = shares
            other = "paper" if config.tie_policy == "fair" else "fair"
            for method, row in about.items():
                if not results.find(row):
                    scored, counts = recalls[config.tie_policy, method], templates.counts
                    more: dict[str, Any] = {"other_ties": recalls[other, method]}
                    more["ranks"] = ranks_file.name
                    if method in query_seconds:  # of all templates, from embedded images
                        more["query_seconds"] = query_seconds[method]
                    results.add(row, scored, **counts, **data.counts, **more)
            save_ranks(ranks, ranks_file)
            if not drawn:
                last = list(scores)[-1]  # of CRL
                draw(data, last, ranks[last], scores[last], figure)
    return results


def save_ranks(ranks: dict[str, Ranks], file: Path) -> None:
    """An NPZ with `<method>/better` and `<method>/tied`, (B,) each, in the templates' order."""
    arrays: dict[str, Any] = {f"{m}/better": better for m, (better, _) in ranks.items()}
    arrays |= {f"{m}/tied": tied for m, (_, tied) in ranks.items()}
    with atomic_path(file) as temporary, open(temporary, "wb") as stream:
        np.savez_compressed(stream, **arrays)


def draw(data: Embedded, method: str, ranks: Ranks, scores: np.ndarray, file: Path) -> None:
    """Draw the three templates that a method answers best, and the three that it answers worst."""
    t, (better, tied), files = data.templates, ranks, data.files
    margin = scores[:, 0] - scores[:, 1:].max(1)  # of the target over the best other candidate
    order = np.lexsort((-margin, better + tied))
    few = min(3, len(order) // 2) or 1
    rows = []
    for b in [*order[:few], *order[-few:]]:
        ids = t.gallery[b, np.argsort(-scores[b], kind="stable")[:3]].tolist()
        if t.gallery[b, 0] not in ids:  # then the target is shown after the best three
            ids.append(t.gallery[b, 0])
        title = f"{data.data.conditions[t.condition[b]]}\ntarget is no. {better[b] + 1}"
        right = [bool(image == t.gallery[b, 0]) for image in ids]
        rows.append((files[t.reference[b]], title, [files[image] for image in ids], right))
    about = f"{data.about['label']}, {data.about['data'].replace('_', ' ')}"
    retrieval_sheet(rows, f"{about}: best and worst of CRL, {method} (green: the target)", file)


@command
def main(argv: list[str]) -> None:
    results = evaluate(load_config(EvaluateConfig, argv, __doc__))
    table(results.rows, "Similarity retrieval, Recall@k in percent").show(
        notes(results.rows), results.folder
    )


if __name__ == "__main__":
    main()
