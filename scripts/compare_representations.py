"""What goes beyond the paper, measured on the demo: other representations, and several criteria.

    python scripts/demo/make_data.py --out data/demo
    python scripts/compare_representations.py
    python scripts/compare_representations.py --only ranking naming

`representations`: the paper's R, the posterior, the null space and both, in all tasks, with the
bases of this repository, and with `--official FOLDER` also with the authors' (imported by
scripts/import_official_bases.py): all lists but the long ones. Then the sharpness that does best on
Clevr4, and what it does on the other data, which had no part in the choice. `two`: retrieval under
two criteria at once. `ranking`: which criteria a collection varies in. `naming`: what clusters are
called. What is in <out>/<task> is not measured again. Demo VLM, drawn pictures: no result on the
paper's data.
"""

from crl.run.command import command

import argparse
import os
import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from classification_clustering import clustering, few_shot
from classification_clustering.config import EvaluateConfig as ClassificationConfig
from classification_clustering.datasets import load
from crl import Collection, rank_criteria, represent, weighted_similarity
from crl.basis import BASES, TextBasis
from crl.embed import embed_basis, embed_images
from crl.images import image_files
from crl.run.errors import ArgumentParser, UserError, whole_number
from crl.run.tables import Table
from crl.vlm import VLM, load_vlm
from fashion_retrieval import evaluate as fashion
from fashion_retrieval.config import EvaluateConfig as FashionConfig
from similarity_retrieval import evaluate as similarity
from similarity_retrieval.config import EvaluateConfig as SimilarityConfig

CRITERIA = {"clevr4": ["texture", "shape", "color", "count"], "cards": ["number", "suits"]}
ATTRIBUTES = ["texture", "fabric", "shape", "part", "style"]
TUNING = "clevr4"  # the sharpness is chosen on these cells, and judged on all others
POSTERIORS = {f"posterior ({c:g})" if c != 1 else "posterior": c for c in (0.5, 0.7, 1, 1.4, 2)}
NULL_SPACES = ["paper, null space", "posterior, null space"]
METHODS = ["paper", *POSTERIORS, "paper+posterior", *NULL_SPACES]
FOLDERS = {  # collection: its folder, and the criteria that it was drawn to vary in
    "clevr4": ("clevr_4_10k_v1/images", ("clevr4_",)),
    "genecis": ("genecis/coco/val2017", ("genecis_scene", "genecis_object")),
    "cards": ("cards/number", ("cards_",)),
    "garments": ("garments/img/test", ("deepfashion_",)),
}
SHARPNESS = (1.0, 2.0, 4.0, 8.0)  # of the ranking; 4 was chosen on the first two collections
# (data set, criterion, text basis): method: metric: a value for each seed
Cells = dict[tuple[str, str, str], dict[str, dict[str, list[float]]]]
Bases = Callable[[str], str]  # the basis of `<data>_<criterion>`


def measure(arguments: argparse.Namespace, basis: Bases) -> Cells:
    """All cells with these bases: one per data set and criterion."""
    cells: Cells = {}
    root = arguments.root
    usual: dict[str, Any] = {"name": "compare", "outputs": arguments.out, "figures": False}

    def add(data: str, criterion: str, name: str, method: str, scores: dict) -> None:
        methods = cells.setdefault((data, criterion, name), {})
        methods.setdefault(re.sub(r" of \d+", "", method), {}).update(scores)

    def settings(null_space: list[str], *combined: str) -> Iterator[dict[str, Any]]:
        """Keys of configurations that together measure all methods."""
        yield {"representation": ["paper", "posterior", *combined]}
        for sharpness in POSTERIORS.values():
            yield {"representation": ["posterior"], "sharpness": sharpness}
        yield {"representation": ["paper", "posterior"], "null_space": null_space}

    for data, criteria in CRITERIA.items():
        names = {c: basis(f"{data}_{c}") for c in criteria}
        about = {"data": data, "root": root, "criteria": criteria, "bases": names, "vlm": ["demo"]}
        about |= {"seeds": arguments.seeds, "shots": arguments.shots, **usual}
        for keys in settings(list(names.values()), "paper+posterior"):
            labelled = ClassificationConfig.model_validate({**about, **keys})
            for row in clustering.evaluate(labelled).rows + few_shot.evaluate(labelled).rows:
                seeds = {m: s["seeds"] for m, s in row["scores"].items() if m not in ("acc", "ari")}
                values = {m.replace("nmi", "k-means NMI"): v for m, v in seeds.items()}
                c = row["about"]["criterion"]
                add(data, c, names[c], row["about"]["method"], values)
    names = dict.fromkeys(["focus_object", "change_object"], basis("genecis_scene"))
    about = {"root": root / "genecis", "vlm": "demo", "bases": names, **usual}
    about |= {"balance": ["paper", "standard"]}
    for keys in settings(["genecis_object"]):
        for row in similarity.evaluate(SimilarityConfig.model_validate({**about, **keys})).rows:
            method, standard, _ = row["about"]["method"].partition(", standard")
            metric, task = f"R@1, {'standard' if standard else 'paper'}", row["about"]["data"]
            add("genecis", task, names[task], method, {metric: [row["scores"]["R@1"]]})
    names = {a: basis(f"deepfashion_{a}") for a in ATTRIBUTES}
    about = {"root": root / "garments", "dataset": "Garments", "vlm": "demo", "bases": names}
    for keys in settings(list(names.values())):
        config = FashionConfig.model_validate({**usual, **about, **keys})
        for row in fashion.evaluate(config).rows:
            for a in ATTRIBUTES:
                add("garments", a, names[a], row["about"]["method"], {"mAP": [row["scores"][a]]})
    return cells


def official(folder: Path) -> list[Bases]:
    """The sets of lists: the paper's own; those of other LLMs, LLM prompts and temperatures.
    What a set lacks is taken from the paper's own."""
    stems = {file.stem for file in folder.glob("*.yaml")}
    if "clevr4_color" not in stems:
        raise UserError(f"{folder} holds no bases; run scripts/import_official_bases.py first")

    def bases(kind: str) -> Bases:
        return lambda name: str(folder / f"{name}{kind if name + kind in stems else ''}.yaml")

    kinds = sorted(name.removeprefix("clevr4_color") for name in stems if "clevr4_color" in name)
    return [bases(kind) for kind in kinds if kind != "_long"]


def table(cells: Cells, title: str) -> Table:
    """Methods as rows, metrics as columns: mean over cells ± standard deviation over seeds of that
    mean; `worst` is the largest loss against the paper's R in any cell."""
    metrics = list(dict.fromkeys(m for methods in cells.values() for m in methods["paper"]))
    rows = []
    for method in METHODS:
        line = [method]
        for metric in metrics:
            measured = [methods.get(method, {}).get(metric) for methods in cells.values()]
            values = [per_seed for per_seed in measured if per_seed is not None]
            mean = np.mean(values, axis=0) if values else np.array([])  # over cells, per seed
            deviation = f" ±{mean.std(ddof=1):4.1f}" if len(mean) > 1 else ""
            line.append(f"{mean.mean():.1f}{deviation}" if len(mean) else "-")
        change, name = min(changes(cells, method), default=(0.0, ""))
        rows.append([*line, "-" if method == "paper" or not name else f"{change:+.1f} {name}"])
    return Table(title, ["R is", *metrics, "worst"], rows)


def changes(cells: Cells, method: str) -> list[tuple[float, str]]:
    """Change against the paper's R, in points, of each cell and metric, and their names; but not
    with the balance `paper`, whose weight belongs to the paper's R."""
    return [
        (float(np.mean(values) - np.mean(methods["paper"][metric])), f"{data} {criterion} {metric}")
        for (data, criterion, _), methods in cells.items()
        for metric, values in methods.get(method, {}).items()
        if metric != "R@1, paper"
    ]


def chosen(kinds: dict[str, Cells]) -> str:
    """The sharpness that gains most on the tuning cells (each kind of bases has the same weight),
    and what it gains elsewhere."""
    gains: dict[str, list[float]] = {method: [] for method in POSTERIORS}
    for method, tuning in product(POSTERIORS, (True, False)):
        for cells in kinds.values():
            judged = {cell: m for cell, m in cells.items() if (cell[0] == TUNING) == tuning}
            gains[method].append(float(np.mean([c for c, _ in changes(judged, method)])))
    best = max(gains, key=lambda method: sum(gains[method][: len(kinds)]))
    header = [f"{data}, {kind}" for data in (TUNING, "the others") for kind in kinds]
    title = "Mean gain over the paper's R, points per cell (with the balance standard)"
    rows = [[method, *(f"{value:+.1f}" for value in values)] for method, values in gains.items()]
    return Table(title, ["R is", *header], rows).text() + f"\nChosen on {TUNING}: {best}."


def two_at_once(vlm: VLM, root: Path) -> Table:
    """The same color and the same count; the same shape, but another color."""
    data = {c: load("clevr4", root, c) for c in ("color", "count", "shape")}
    image = np.asarray(embed_images(vlm, data["color"].paths).image)  # I, (N, D)
    text = {c: embed_basis(vlm, TextBasis.load(f"clevr4_{c}")) for c in data}
    n = len(image) // 6  # the first pictures are the queries; the others are the candidates
    same = {c: d.labels[:n, None] == d.labels[n:] for c, d in data.items()}  # (Q, C)
    both = [{"color": 1.0}, {"count": 1.0}, {"color": 1.0, "count": 1.0}]
    unlike = [{"shape": 1.0}, {"shape": 1.0, "color": -0.1}, {"shape": 1.0, "color": -1.0}]
    rows = []
    for wanted, relevant, tried in [
        ("same color, same count", same["color"] & same["count"], both),
        ("same shape, another color", same["shape"] & ~same["color"], unlike),
    ]:
        rows.append([wanted, "I", "-", *percent(image[:n] @ image[n:].T, relevant)])
        for kind, weights in product(("paper", "posterior"), tried):
            r = {c: represent(kind, image, text[c]) for c in weights}  # R = I Tᵀ, (N, K)
            queries, candidates = {c: x[:n] for c, x in r.items()}, {c: x[n:] for c, x in r.items()}
            similarities = weighted_similarity(queries, candidates, weights)  # (Q, C)
            name = " ".join(f"{c} {weight:g}" for c, weight in weights.items())
            rows.append([wanted, name, kind, *percent(similarities, relevant)])
    title = f"Two criteria at once: {n} queries, {len(image) - n} candidates, percent"
    return Table(title, ["wanted", "weights", "R is", "R@1", "mAP"], rows, left=3)


def percent(similarity: np.ndarray, relevant: np.ndarray) -> list[str]:
    """Recall@1 and mAP of (Q, C) similarities and booleans."""
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
            above = f"{len(right & set(list(ranked)[: len(right)]))}/{len(right)}"
            rows.append([collection, f"{sharpness:g}", above, ", ".join(top[: len(right) + 1])])
    header = ["pictures", "sharpness", "on top", "best-ranked criteria (nats; * drawn to vary)"]
    return Table("Which criterion do these pictures vary in?", header, rows, left=4)


def naming(vlm: VLM, root: Path) -> Table:
    rows = []
    for data, criterion in [(data, c) for data, criteria in CRITERIA.items() for c in criteria]:
        labelled = load(data, root, criterion)
        photos = Collection.embed(os.path.commonpath(labelled.paths), vlm)
        label = dict(zip(labelled.paths, labelled.labels, strict=True))
        labels = np.array([label[file] for file in photos.files])  # (N,)
        view, classes = photos.under(f"{data}_{criterion}"), labelled.classes
        groups = view.groups(len(classes))
        for cluster, name in enumerate(groups.names):
            counts = np.bincount(labels[groups.clusters.label == cluster])
            share = f"{100 * counts.max() / counts.sum():.0f}"
            margin = f"{name.margin:.1f}{' weak' if name.weak else ''}"
            words = ", ".join(view.words[name.words])
            rows.append([criterion, classes[counts.argmax()], share, margin, words])
    header = ["criterion", "most pictures are", "%", "margin", "name, and two more words"]
    return Table("What clusters are called", header, rows, left=5)


TABLES = {"two": two_at_once, "ranking": ranking, "naming": naming}


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    add, choices = parser.add_argument, ["representations", *TABLES]
    add("--only", nargs="+", choices=choices, default=choices, help="default: all tables")
    add("--root", type=Path, default=Path("data/demo"), help="the demo data")
    add("--official", type=Path, help="folder of imported official bases")
    add("--seeds", type=whole_number, default=5, help="seeds of k-means and few-shot")
    add(
        "--shots",
        type=whole_number,
        nargs="+",
        default=[1, 5, 10],
        help="labelled images per class",
    )
    add("--out", type=Path, default=Path("outputs/representations"))
    arguments = parser.parse_args(argv)
    if "representations" in arguments.only:
        sets: dict[str, list[Bases]] = {"own": [str]}
        sets |= {"official": official(arguments.official)} if arguments.official else {}
        kinds: dict[str, Cells] = {kind: {} for kind in sets}
        for kind, each in sets.items():
            for basis in each:
                kinds[kind] |= measure(arguments, basis)
            print(table(kinds[kind], f"{kind} bases, percent").text(), end="\n\n")
        print(chosen(kinds), end="\n\n")
    for name, make in TABLES.items():
        if name in arguments.only:
            print(make(load_vlm("demo"), arguments.root).text(), end="\n\n")


if __name__ == "__main__":
    main()
