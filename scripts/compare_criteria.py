"""Several criteria on the demo's pictures: together, ranked; names of clusters, a few labels.

    python scripts/demo/make_data.py --out data/demo
    python scripts/compare_criteria.py

First table: retrieval and clustering of Clevr4's pictures under two criteria at once, the same
color and the same count; the same shape, but another color. Second table: which criterion a
collection varies in (`crl.rank_criteria`, with all text bases of this repository), for the pictures
of each demo data set. Third table: what clusters are called (`View.clusters`), beside the class
that most of their pictures have. Fourth table: the labels that follow from two per class
(`View.classify`), and their confidence. Demo VLM, drawn pictures: no result on the paper's data.
"""

from crl.run.command import command

import argparse
import os
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, normalized_mutual_info_score

from classification_clustering.datasets import load
from classification_clustering.method import kmeans
from crl import Collection, rank_criteria, represent, weighted, weighted_similarity
from crl.basis import BASES, TextBasis
from crl.embed import embed_basis, embed_images
from crl.explore.labels import guess_labels
from crl.images import image_files
from crl.run.errors import ArgumentParser
from crl.run.tables import Table
from crl.vlm import VLM, load_vlm

FOLDERS = {  # collection: its folder, and the criteria that it was drawn to vary in
    "clevr4": ("clevr_4_10k_v1/images", ("clevr4_",)),
    "genecis": ("genecis/coco/val2017", ("genecis_scene", "genecis_object")),
    "cards": ("cards/number", ("cards_",)),
    "garments": ("garments/img/test", ("deepfashion_",)),
}
CRITERIA = [("clevr4", c) for c in ("color", "count", "shape", "texture")]
CRITERIA += [("cards", c) for c in ("suits", "number")]
SHARPNESS = (1.0, 2.0, 4.0, 8.0)  # 4 was chosen on the first two collections, see the table


def two_at_once(vlm: VLM, root: Path) -> Table:
    names = ("color", "count", "shape")
    data = {c: load("clevr4", root, c) for c in names}
    image = np.asarray(embed_images(vlm, data["color"].paths).image)  # I, (N, D)
    text = {c: embed_basis(vlm, TextBasis.load(f"clevr4_{c}")) for c in names}
    queried = len(image) // 6  # the first pictures; the others are the candidates
    same = {c: d.labels[:queried, None] == d.labels[queried:] for c, d in data.items()}  # (Q, C)
    pairs = np.stack([data["color"].labels, data["count"].labels])
    classes = np.unique(pairs, axis=1, return_inverse=True)[1].ravel()  # of both, (N,)
    rows = []

    def measure(wanted: str, relevant: np.ndarray, tried: list[dict[str, float]]) -> None:
        def add(name: str, kind: str, similarity: np.ndarray, x: np.ndarray | None) -> None:
            nmi = "-"
            if x is not None and wanted.endswith("same count"):
                clusters = kmeans(x, len(np.unique(classes)), seed=0)
                nmi = f"{100 * normalized_mutual_info_score(classes, clusters):.1f}"
            rows.append([wanted, name, kind, *scores(similarity, relevant), nmi])

        add("I", "-", image[:queried] @ image[queried:].T, image)
        for kind, weights in product(("paper", "posterior"), tried):
            r = {c: represent(kind, image, text[c]) for c in weights}  # R = I Tᵀ, (N, K)
            queries = {c: x[:queried] for c, x in r.items()}
            candidates = {c: x[queried:] for c, x in r.items()}
            name = " ".join(f"{c} {weight:g}" for c, weight in weights.items())
            x = weighted(r, weights) if min(weights.values()) > 0 else None
            add(name, kind, weighted_similarity(queries, candidates, weights), x)

    both = [{"color": 1.0}, {"count": 1.0}, {"color": 1.0, "count": 1.0}]
    unlike = [{"shape": 1.0}, {"shape": 1.0, "color": -0.1}, {"shape": 1.0, "color": -1.0}]
    measure("same color, same count", same["color"] & same["count"], both)
    measure("same shape, another color", same["shape"] & ~same["color"], unlike)
    title = f"Two criteria at once: {queried} queries, {len(image) - queried} candidates, percent"
    header = ["wanted", "weights", "R is", "R@1", "mAP", "k-means NMI"]
    return Table(title, header, rows, left=3)


def scores(similarity: np.ndarray, relevant: np.ndarray) -> list[str]:
    """Recall@1 and mAP in percent, of (Q, C) similarities and booleans."""
    asked = relevant.any(axis=1)
    first = np.take_along_axis(relevant, similarity.argmax(axis=1)[:, None], axis=1)
    precision = [average_precision_score(relevant[q], similarity[q]) for q in np.flatnonzero(asked)]
    return [f"{100 * first[asked].mean():.1f}", f"{100 * np.mean(precision):.1f}"]


def ranking(vlm: VLM, root: Path) -> Table:
    """The best-ranked criteria of each collection."""
    text = {f.stem: embed_basis(vlm, TextBasis.load(f)) for f in sorted(BASES.glob("*.yaml"))}
    rows = []
    for collection, (folder, drawn) in FOLDERS.items():
        image = embed_images(vlm, image_files(root / folder)).image  # I, (N, D)
        right = {name for name in text if name.startswith(drawn)}
        for sharpness in SHARPNESS:
            ranked = rank_criteria(image, text, sharpness)
            top = [f"{name}{'*' * (name in right)} {score:.2f}" for name, score in ranked.items()]
            above = len(right & set(list(ranked)[: len(right)]))
            best = ", ".join(top[: len(right) + 1])
            rows.append([collection, f"{sharpness:g}", f"{above}/{len(right)}", best])
    header = ["pictures", "sharpness", "on top", "best-ranked criteria (nats; * drawn to vary)"]
    return Table("Which criterion do these pictures vary in?", header, rows, left=4)


def naming(vlm: VLM, root: Path) -> Table:
    rows = []
    for data, criterion in CRITERIA:
        view, labels, classes = under(vlm, root, data, criterion)
        groups = view.groups(len(classes))
        for cluster, name in enumerate(groups.names):
            counts = np.bincount(labels[groups.clusters.label == cluster])
            share = f"{100 * counts.max() / counts.sum():.0f}"
            margin = f"{name.margin:.1f}{' weak' if name.weak else ''}"
            words = ", ".join(view.words[name.words])
            rows.append([criterion, classes[counts.argmax()], share, margin, words])
    header = ["criterion", "most pictures are", "%", "margin", "name, and two more words"]
    return Table("What clusters are called", header, rows, left=5)


def labelling(vlm: VLM, root: Path) -> Table:
    """Accuracy and mean confidence of guessed labels, beside logistic regression on unit rows."""
    rows = []
    for data, criterion in CRITERIA:
        view, labels, classes = under(vlm, root, data, criterion)
        rng, draws = np.random.default_rng(0), []
        for _ in range(3):
            order = rng.permutation(len(labels))
            two = np.concatenate([order[labels[order] == label][:2] for label in np.unique(labels)])
            rest = np.setdiff1d(order, two)
            right = classes[labels[rest]]
            plain = LogisticRegression(max_iter=1000).fit(view.x[two], classes[labels[two]])
            chance = plain.predict_proba(view.x[rest])
            guesses = guess_labels(view.x, {int(i): str(classes[labels[i]]) for i in two})
            draws.append([np.mean(plain.classes_[chance.argmax(axis=1)] == right)])
            draws[-1] += [chance.max(axis=1).mean(), np.mean(guesses.label[rest] == right)]
            draws[-1] += [guesses.confidence[rest].mean()]
        rows.append([criterion, *(f"{100 * value:.0f}" for value in np.mean(draws, axis=0))])
    title = "Two labels per class: the others, percent, mean of 3 draws"
    header = ["criterion", "unit rows: right", "confidence", "guess_labels: right", "confidence"]
    return Table(title, header, rows)


def under(vlm: VLM, root: Path, data: str, criterion: str) -> tuple[Any, np.ndarray, np.ndarray]:
    """The view of the pictures under a criterion; the class of each, (N,); the classes' names."""
    labelled = load(data, root, criterion)
    photos = Collection.embed(os.path.commonpath(labelled.paths), vlm)
    label = dict(zip(labelled.paths, labelled.labels, strict=True))
    view = photos.under(f"{data}_{criterion}")
    return view, np.array([label[file] for file in photos.files]), np.array(labelled.classes)


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="the demo data")
    root, vlm = parser.parse_args(argv).root, load_vlm("demo")
    for table in (two_at_once, ranking, naming, labelling):
        print(table(vlm, root).text(), end="\n\n")


if __name__ == "__main__":
    main()
