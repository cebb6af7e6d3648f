"""Several criteria on the demo's pictures: together, ranked; names of clusters, a few labels.

    python scripts/demo/make_data.py --out data/demo
    python scripts/compare_criteria.py

First table: retrieval and clustering of Clevr4's pictures under two criteria at once, the same
color and the same count; the same shape, but another color. Second table: which criterion a
collection varies in (`crl.rank_criteria`, with all text bases of this repository), for the pictures
of each demo data set. Third table: what clusters are called (`crl.clusters`), beside the class that
most of their pictures have. Fourth table: the labels that follow from two per class (`crl.labels`),
and their confidence. Demo VLM, drawn pictures: no result on the paper's data.
"""

from crl.run.command import command

import argparse
import os
from itertools import product
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, normalized_mutual_info_score

from classification_clustering.datasets import load
from classification_clustering.method import kmeans
from crl.basis import BASES, TextBasis
from crl.collection import Collection, View
from crl.criteria import rank_criteria
from crl.embed import embed_basis, embed_images
from crl.images import image_files
from crl.labels import guess_labels
from crl.projection import ConditionalProjection, l2, weighted, weighted_similarity
from crl.run.errors import ArgumentParser
from crl.run.tables import aligned
from crl.vlm import VLM, load_vlm

FOLDERS = {  # collection: its folder, and the criteria that it was drawn to vary in
    "clevr4": ("clevr_4_10k_v1/images", ("clevr4_",)),
    "genecis": ("genecis/coco/val2017", ("genecis_scene", "genecis_object")),
    "cards": ("cards/number", ("cards_",)),
    "garments": ("garments/img/test", ("deepfashion_",)),
}
KNOWN = [("clevr4", c) for c in ("color", "count", "shape", "texture")]
KNOWN += [("cards", c) for c in ("suits", "number")]
SHARPNESS = (1.0, 2.0, 4.0, 8.0)  # 4 was chosen on the first two collections, see the table


def scores(similarity: np.ndarray, relevant: np.ndarray) -> list[str]:
    """Recall@1 and mAP in percent, of (Q, C) similarities and booleans."""
    asked = relevant.any(axis=1)
    first = np.take_along_axis(relevant, similarity.argmax(axis=1)[:, None], axis=1)
    precision = [average_precision_score(relevant[q], similarity[q]) for q in np.flatnonzero(asked)]
    return [f"{100 * first[asked].mean():.1f}", f"{100 * np.mean(precision):.1f}"]


def two_at_once(vlm: VLM, root: Path) -> str:
    """The first table."""
    names = ("color", "count", "shape")
    labels = {c: load("clevr4", root, c).labels for c in names}
    image = l2(
        np.asarray(embed_images(vlm, load("clevr4", root, "color").paths).image)
    )  # I, (N, D)
    text = {c: embed_basis(vlm, TextBasis.load(f"clevr4_{c}")) for c in names}
    queried = len(image) // 6  # the first pictures; the others are the candidates
    same = {c: found[:queried, None] == found[queried:] for c, found in labels.items()}  # (Q, C)
    both = np.unique([labels["color"], labels["count"]], axis=1, return_inverse=True)[1].ravel()
    tasks = {  # wanted: its relevant pairs of pictures, the class of each picture, weights to try
        "same color, same count": (
            same["color"] & same["count"],
            both,
            [{"color": 1.0}, {"count": 1.0}, {"color": 1.0, "count": 1.0}],
        ),
        "same shape, another color": (
            same["shape"] & ~same["color"],
            None,
            [{"shape": 1.0}, {"shape": 1.0, "color": -0.1}, {"shape": 1.0, "color": -1.0}],
        ),
    }
    rows = []
    for wanted, (relevant, classes, tried) in tasks.items():
        rows.append([wanted, "I", "-", *scores(image[:queried] @ image[queried:].T, relevant)])
        rows[-1].append(nmi(image, classes))
        for normalise, weights in product(("l2", "posterior"), tried):
            r = {
                c: ConditionalProjection(text[c], normalise=normalise).fit_transform(image)
                for c in weights
            }  # R = I Tᵀ, (N, K) under each criterion
            queries = {c: x[:queried] for c, x in r.items()}
            candidates = {c: x[queried:] for c, x in r.items()}
            similarity = weighted_similarity(queries, candidates, weights)
            name = " ".join(f"{c} {weight:g}" for c, weight in weights.items())
            kind = normalise.replace("l2", "paper")
            rows.append([wanted, name, kind, *scores(similarity, relevant)])
            x = None if classes is None else weighted(r, weights)
            rows[-1].append(nmi(x, classes))
    header = ["wanted", "weights", "R is", "R@1", "mAP", "k-means NMI"]
    title = f"Two criteria at once: {queried} queries, {len(image) - queried} candidates, percent"
    return aligned(title, header, rows, left=3)


def nmi(x: np.ndarray | None, classes: np.ndarray | None) -> str:
    """Of k-means on x with as many clusters as classes; classes (N,), or None."""
    if classes is None:
        return "-"
    clusters = kmeans(x, len(np.unique(classes)), seed=0)
    return f"{100 * normalized_mutual_info_score(classes, clusters):.1f}"


def ranking(vlm: VLM, root: Path) -> str:
    """The second table: the best-ranked criteria of each collection, its own ones with a star."""
    text = {f.stem: embed_basis(vlm, TextBasis.load(f)) for f in sorted(BASES.glob("*.yaml"))}
    rows = []
    for collection, (folder, own) in FOLDERS.items():
        image = embed_images(vlm, image_files(root / folder)).image  # I, (N, D)
        mine = {name for name in text if name.startswith(own)}
        for sharpness in SHARPNESS:
            found = rank_criteria(image, text, sharpness)
            top = [f"{name}{'*' * (name in mine)} {score:.2f}" for name, score in found.items()]
            above = len(mine & set(list(found)[: len(mine)]))
            shown = ", ".join(top[: len(mine) + 1])
            rows.append([collection, f"{sharpness:g}", f"{above}/{len(mine)}", shown])
    header = ["pictures", "sharpness", "on top", "best-ranked criteria (nats; * drawn to vary)"]
    return aligned("Which criterion do these pictures vary in?", header, rows, left=4)


def naming(vlm: VLM, root: Path) -> str:
    """The third table: names of clusters under criteria whose classes are known."""
    rows = []
    for data, criterion in KNOWN:
        view, labels, classes = looked_at(vlm, root, data, criterion)
        groups = view.groups(len(classes))
        for cluster, name in enumerate(groups.names):
            counts = np.bincount(labels[groups.clusters.label == cluster])
            share = f"{100 * counts.max() / counts.sum():.0f}"
            words = ", ".join(view.words[name.words])
            margin = f"{name.margin:.1f}{' weak' if name.weak else ''}"
            rows.append([criterion, classes[counts.argmax()], share, margin, words])
    header = ["criterion", "most pictures are", "%", "margin", "name, and two more words"]
    return aligned("What clusters are called", header, rows, left=5)


def labelling(vlm: VLM, root: Path) -> str:
    """The fourth table: accuracy and mean confidence of guessed labels."""
    rows = []
    for data, criterion in KNOWN:
        view, labels, classes = looked_at(vlm, root, data, criterion)
        rng, scores = np.random.default_rng(0), []
        for _ in range(3):
            order = rng.permutation(len(labels))
            two = np.concatenate([order[labels[order] == label][:2] for label in np.unique(labels)])
            given = {int(image): str(classes[labels[image]]) for image in two}
            rest = np.setdiff1d(order, two)
            right = classes[labels[rest]]
            plain = LogisticRegression(max_iter=1000).fit(view.x[two], classes[labels[two]])
            chance = plain.predict_proba(view.x[rest])
            guesses = guess_labels(view.x, given)
            scores.append(
                [
                    np.mean(plain.classes_[chance.argmax(axis=1)] == right),
                    chance.max(axis=1).mean(),
                    np.mean(guesses.label[rest] == right),
                    guesses.confidence[rest].mean(),
                ]
            )
        rows.append([criterion, *(f"{100 * value:.0f}" for value in np.mean(scores, axis=0))])
    header = ["criterion", "unit rows: right", "confidence", "crl.labels: right", "confidence"]
    return aligned(
        "Two labels per class: the others, percent, mean of 3 draws", header, rows, left=1
    )


def looked_at(
    vlm: VLM, root: Path, data: str, criterion: str
) -> tuple[View, np.ndarray, np.ndarray]:
    """The pictures under R' of a criterion; the class of each, (N,); the names of the classes."""
    found = load(data, root, criterion)
    photos = Collection.embed(os.path.commonpath(found.paths), vlm)
    label = dict(zip(found.paths, found.labels, strict=True))
    view = photos.under(f"{data}_{criterion}")
    return view, np.array([label[file] for file in photos.files]), np.array(found.classes)


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="the demo data")
    root = parser.parse_args(argv).root
    vlm = load_vlm("demo")
    for table in (two_at_once, ranking, naming, labelling):
        print(table(vlm, root), end="\n\n")


if __name__ == "__main__":
    main()
