"""Every representation on the same images: who wins where, at what cost, and is it real?

    python scripts/demo/make_data.py --out data/demo
    python scripts/compare_methods.py
    python scripts/compare_methods.py --why

Measures I, the paper's R, each file of crl/representations, and both `paper` and `posterior` after
the null space of the other criteria, on the four drawn worlds, with the bases of this repository
and, with `--official FOLDER`, the authors' lists (scripts/import_official_bases.py). What is in
<out>/results.json is not measured again. Demo VLM, drawn pictures: no result on the paper's data.

A table for each task and kind of bases: mean over criteria, and its standard error over seeds (of
GeneCIS and fashion, over queries); the difference to `paper`, paired, and its standard error over
criteria; criteria won, tied and lost: a tie differs by no more than twice its standard error over
seeds or queries; the largest loss; columns; CPU milliseconds per 1,000 images; what it learns from.
In clustering and retrieval, methods with labels have seen those of all images: they are ceilings.
Then the access audit of each criterion (`crl.explore.audit`). `--why` takes R apart instead.
"""

from crl.run.command import command

import argparse
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from inspect import getfile
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np

from classification_clustering import clustering, few_shot, retrieval
from classification_clustering.config import EvaluateConfig as ClassificationConfig
from classification_clustering.embedded import Embedded
from classification_clustering.embedded import embedded as embedded_classes
from classification_clustering.method import clustering_scores, kmeans
from crl.explore.audit import LABELS, audit
from crl.projection import l2, project, single_vector
from crl.representations import kind_of, names, represent
from crl.representations.axes import principal_axes
from crl.representations.clay import log_map, reflected
from crl.representations.null_space import without
from crl.run.errors import ArgumentParser, UserError, whole_number
from crl.run.files import alone_in, atomic_path, write_text
from crl.run.results import Results, digest, summary
from crl.run.tables import Table
from fashion_retrieval.config import EvaluateConfig as FashionConfig
from fashion_retrieval.embedded import embedded as embedded_fashion
from fashion_retrieval.method import retrieval_precision
from similarity_retrieval.config import EvaluateConfig as SimilarityConfig
from similarity_retrieval.embedded import embedded as embedded_genecis
from similarity_retrieval.method import crl_scores, target_ranks

CRITERIA = {"clevr4": ["texture", "shape", "color", "count"], "cards": ["number", "suits"]}
ATTRIBUTES = ["texture", "fabric", "shape", "part", "style"]
STEP = ", null space"  # after `paper` and `posterior`
SHOTS = [1, 10]
HEADER = "R is,mean,to paper,won/tied/lost,worst,columns,ms,learns from".split(",")
BATCHES = 20  # of queries: their means give the standard error
Score = dict[str, Any]  # of `crl.run.results.summary`, in percent
Scores = dict[str, Score]  # task: its score


class Cell(NamedTuple):
    """One criterion of one data set, with one text basis."""

    name: str
    about: dict[str, Any]  # all that its scores depend on, beside the method
    image: np.ndarray  # I, (N, D) or (N, Q, D), unit rows
    text: np.ndarray  # T, (K, D), unit rows
    directions: np.ndarray | None  # (d, D), of the other criteria
    y: np.ndarray | None  # (N,) class numbers, -1 where not known; None: there are none
    learns: bool  # may methods learn from y?
    measure: Callable[["Cell", str], Scores]  # a method's scores

    def rows(self, method: str) -> np.ndarray:
        """The images in a representation, (N, F), unit rows."""
        name = method.removesuffix(STEP)
        return represent(name, self.part(method), self.text, self.y, directions=self.directions)

    def part(self, method: str) -> np.ndarray:
        """The images, or what the null space leaves of them."""
        return without(self.image, self.directions) if method.endswith(STEP) else self.image


def supervision(method: str) -> str:
    """What a method learns from beside images."""
    if method.endswith(STEP):
        return "other criteria"
    uses = "nothing" if method == "universal" else kind_of(method).supervision
    return "texts" if uses == "none" else uses


def of_classes(data: Embedded, seeds: int, cell: Cell, method: str) -> Scores:
    """Clustering, retrieval and few-shot as their scripts measure them."""
    labels, x, image = data.data.labels, cell.rows(method), cell.part(method)
    few: Any = x
    if method != "universal":
        given = [method.removesuffix(STEP)], data, 1.0, image, project(image, data.text)
        few = partial(few_shot.standardised, *given)
        few = few if supervision(method) == "labels" else few()
    return {
        "k-means NMI": clustering.measure(x, data.data, seeds)["nmi"],
        "retrieval mAP": retrieval.measure(x, labels, seeds)["map"],
        **few_shot.measure(few, labels, SHOTS, seeds),
    }


def of_queries(values: np.ndarray) -> Score:
    """The score of many queries (Q,), each 0 to 1."""
    batches = summary([100 * values[i::BATCHES].mean() for i in range(min(BATCHES, len(values)))])
    return {**batches, "mean": 100 * float(values.mean())}


def cells(args: argparse.Namespace, basis: Callable[[str], str]) -> Iterator[Cell]:
    """All criteria with their bases: `basis` of `<data>_<criterion>`."""
    usual: dict[str, Any] = {"figures": False, "outputs": args.out}
    rest: tuple[Any, ...]
    for data, criteria in CRITERIA.items():
        bases = {c: basis(f"{data}_{c}") for c in criteria}
        about = {"data": data, "root": args.root, "criteria": criteria, "bases": bases}
        about |= {"vlm": ["demo"], "null_space": [*bases.values()], "seeds": args.seeds}
        config = ClassificationConfig.model_validate({**usual, **about})
        for one in embedded_classes(config, at_least=max(SHOTS) + 1):
            known = {**one.about, **one.about_basis, "seeds": args.seeds}
            measure = partial(of_classes, one, args.seeds)
            rest = one.image, one.text, one.directions, one.data.labels, True, measure
            yield Cell(f"{data} {known['criterion']}", known, *rest)
    scene = dict.fromkeys(["focus_object", "change_object"], basis("genecis_scene"))
    about = {"root": args.root / "genecis", "vlm": "demo", "bases": scene}
    about |= {"null_space": ["genecis_object"]}
    for task in embedded_genecis(SimilarityConfig.model_validate({**usual, **about})):

        def recall(cell: Cell, method: str, task=task) -> Scores:
            rows = cell.rows(method)
            scores = crl_scores(task.features, task.templates, rows, balance="standard")
            better, tied = target_ranks(scores)
            return {"GeneCIS R@1": of_queries(np.clip((1 - better) / (tied + 1), 0, 1))}

        known, texts = {**task.about, **task.about_basis}, task.bases[0]
        rest = l2(task.features.image), texts.text, texts.directions, None, False, recall
        yield Cell(f"genecis {known['data']}", known, *rest)
    bases = {a: basis(f"deepfashion_{a}") for a in ATTRIBUTES}
    about = {"root": args.root / "garments", "dataset": "Garments", "vlm": "demo", "bases": bases}
    about |= {"null_space": [*bases.values()]}
    split, (model,) = embedded_fashion(FashionConfig.model_validate({**usual, **about}))
    for a, attribute in enumerate(split.attributes):
        query, candidate = (x[x[:, 1] == a] for x in (split.query, split.candidate))
        y = np.full(len(model.image), -1)
        y[query[:, 0]], y[candidate[:, 0]] = query[:, 2], candidate[:, 2]

        def precision(cell: Cell, method: str, query=query, candidate=candidate) -> Scores:
            x = cell.rows(method)
            values = retrieval_precision(lambda images, _: x[images], query, candidate)
            return {"fashion mAP": of_queries(values)}

        known = {**split.about, **model.about, **model.about_basis, "criterion": attribute}
        rest = model.image, model.texts[a], model.directions[a], y, False, precision
        yield Cell(f"garments {attribute}", known, *rest)


def measured(cell: Cell, method: str, results: Results) -> dict[str, Any]:
    """The row of a method: scores, columns and milliseconds; what was measured before is kept."""
    name = method.removesuffix(STEP)
    about = {**cell.about, "method": method}
    about["code"] = "" if name == "universal" else code(kind_of(name))
    if not (row := results.find(about)):
        start = process_time()
        columns = cell.rows(method).shape[1]
        cost = {"columns": columns, "ms": 1e6 * (process_time() - start) / len(cell.image)}
        row = results.add(about, cell.measure(cell, method), **cost)
    return row


def code(part: Any) -> str:
    """A digest of the file that defines a class or a function."""
    return digest(Path(getfile(part)).read_text("utf-8"))


def compared(scores: dict[str, dict[str, Score]], method: str) -> list[str]:
    """A method beside `paper`, over criteria {name: {method: score}}: its mean and standard error,
    the same of the gain, criteria won/tied/lost, and the lowest gain."""
    pairs = [(each[method], each["paper"]) for each in scores.values()]
    gains = np.array([this["mean"] - paper["mean"] for this, paper in pairs])
    doubt = np.array([standard_error(np.subtract(a["seeds"], b["seeds"])) for a, b in pairs])
    won, lost = np.sum(gains > 2 * doubt), np.sum(gains < -2 * doubt)  # NaN, of one seed: tied
    error = np.linalg.norm([standard_error(this["seeds"]) for this, _ in pairs]) / len(pairs)
    mean = f"{np.mean([this['mean'] for this, _ in pairs]):.1f}{plus_minus(error)}"
    if method == "paper":
        return [mean, "-", "-", "-"]
    worst = "{:+.1f} {}".format(*min(zip(gains.tolist(), scores, strict=True)))
    gain = f"{gains.mean():+.1f}{plus_minus(standard_error(gains))}"
    return [mean, gain, f"{won}/{len(pairs) - won - lost}/{lost}", worst]


def standard_error(values: Any) -> float:
    """Of the mean of values (n,); NaN for one."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def plus_minus(error: Any) -> str:
    return "" if np.isnan(error) else f" ± {error:.1f}"


def table(rows: dict[str, dict[str, Any]], task: str, kind: str) -> Table:
    """A line for each method; `rows` are {criterion: {method: its row}}."""
    rows = {name: each for name, each in rows.items() if task in each["paper"]["scores"]}
    scores = {name: {method: row["scores"][task] for method, row in each.items()}
              for name, each in rows.items()}  # fmt: skip
    lines = []
    for method in next(iter(rows.values())):
        columns = sorted({each[method]["columns"] for each in rows.values()})
        width = "-".join(map(str, dict.fromkeys([columns[0], columns[-1]])))
        ms = f"{np.mean([each[method]['ms'] for each in rows.values()]):.2f}"
        lines.append([method, *compared(scores, method), width, ms, supervision(method)])
    return Table(f"{task}, {kind} bases, {len(rows)} criteria, percent", HEADER, lines)


def audits(all_cells: dict[str, list[Cell]], results: Results) -> Table:
    """Does the VLM see each criterion, and do the words reach it?"""
    keys, lines = ["seen", "reached", *(f"{n} per class" for n in LABELS)], []
    for kind, cell in ((k, cell) for k, each in all_cells.items() for cell in each):
        about = {**cell.about, "method": "audit", "code": code(audit)}
        row = results.find(about)
        if not row and cell.y is not None and (a := audit(cell.image, cell.rows("paper"), cell.y)):
            scores = dict(zip(keys, [a.seen, a.reached, *a.repaired.values()], strict=False))
            row = results.add(about, scores, verdict=a.verdict)
        if row:
            shown = [f"{row['scores'][k]:.0f}" if k in row["scores"] else "-" for k in keys]
            lines.append([cell.name, kind, *shown, row["verdict"]])
    title = "Access audit: adjusted mutual information, percent"
    return Table(title, ["criterion", "bases", *keys, "so"], lines, 2)


def draw(lines: list[list[str]], file: Path) -> None:
    """Score against cost, a panel for each task and kind of bases; the color is the supervision."""
    panels = list(dict.fromkeys((task, kind) for kind, task, *_ in lines))
    colors = {uses: f"C{n}" for n, uses in enumerate(sorted({line[-1] for line in lines}))}
    size = -(-len(panels) // 2), 2
    figure, axes = plt.subplots(*size, figsize=(13, 4.6 * size[0]), layout="constrained")
    for (task, kind), axis in zip(panels, axes.flat, strict=False):
        for _, _, method, mean, *_, ms, uses in (x for x in lines if x[:2] == [kind, task]):
            place = max(float(ms), 0.01), float(mean.split()[0])
            axis.scatter(*place, color=colors[uses])
            axis.annotate(method, place, fontsize=7, xytext=(3, 3), textcoords="offset points")
        axis.set(xscale="log", ylabel="percent", title=f"{task}, {kind} bases")
        axis.set(xlabel="CPU milliseconds per 1,000 images")
        axis.xaxis.set_major_formatter("{x:g}")
    marks = [plt.Line2D([], [], color=color, marker="o", ls="") for color in colors.values()]
    figure.legend(marks, [f"learns from: {uses}" for uses in colors], loc="outside upper center")
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=90)
    plt.close(figure)


def taken_apart(cell: Cell) -> dict[str, np.ndarray]:
    """Parts of the methods, one at a time: {what is done: rows (N, F)}."""
    image, text = single_vector(cell.image), cell.text  # I (N, D), T (K, D)
    mu, tangent = log_map(text)
    centred = text - text.mean(axis=0)

    def axes(texts: np.ndarray, power: float, most: int | None = None) -> np.ndarray:
        s, v = principal_axes(texts)  # (r,), (r, D)
        return l2((image @ v[:most].T) * s[:most] ** power)

    r, turned = image @ text.T, reflected(image, l2(image.mean(axis=0)), mu)  # I H
    return {
        "I": image,
        "R = I Tᵀ": l2(r),
        **{f"axes of T, weights s^{p:g}": axes(text, p) for p in (0, 0.5, 1, 2)},
        **{f"axes of centred T, weights s^{p:g}": axes(centred, p) for p in (0, 0.5, 1, 2)},
        "the first 10 axes of centred T, weights s^0": axes(centred, 0, 10),
        "the first 10 axes of centred T, weights s^1": axes(centred, 1, 10),
        "R of centred I": l2(r - r.mean(axis=0)),
        "R of centred I, centred T": l2((image - image.mean(axis=0)) @ centred.T),
        "R of turned I (Householder)": l2(turned @ text.T),
        "R of turned I, log map of T": l2(turned @ tangent.T),
        "CLAY: the same, 50 axes, weights s^0": cell.rows("clay"),
        "R, null space": cell.rows("paper" + STEP),
        "posterior": cell.rows("posterior"),
        "posterior, null space": cell.rows("posterior" + STEP),
    }  # fmt: skip


def why(all_cells: dict[str, list[Cell]], seeds: int) -> Table:
    """Which part helps, and which hurts: k-means NMI of each, mean over criteria."""
    lines: dict[str, list[str]] = {}
    for each in all_cells.values():
        scores: dict[str, list[float]] = {}
        for cell in (cell for cell in each if cell.learns):
            for part, x in taken_apart(cell).items():
                clusters = [kmeans(x, len(np.unique(cell.y)), seed) for seed in range(seeds)]
                nmi = [clustering_scores(cell.y, one)["nmi"] for one in clusters]
                scores.setdefault(part, []).append(float(np.mean(nmi)))
        for part, values in scores.items():
            lines.setdefault(part, [part]).append(f"{np.mean(values):.1f}")
    header = ["rows, unit length", *(f"{kind} bases" for kind in all_cells)]
    return Table("Why: k-means NMI, mean over six criteria, percent", header, [*lines.values()])


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--root", type=Path, default=Path("data/demo"), help="the demo data")
    add("--official", type=Path, help="folder of the authors' lists, imported")
    add("--seeds", type=whole_number, default=3, help="of k-means, queries and labelled images")
    add("--why", action="store_true", help="which part of a method helps, and which hurts")
    add("--out", type=Path, default=Path("outputs/methods"))
    args = parser.parse_args(argv)
    if args.official and not (args.official / "clevr4_color.yaml").is_file():
        raise UserError(f"{args.official} holds no bases: scripts/import_official_bases.py")
    warnings.filterwarnings("ignore", message="null_space")  # the tables say what it costs
    kinds: dict[str, Callable[[str], str]] = {"own": str}
    if args.official:
        kinds["authors'"] = lambda name: str(args.official / f"{name}.yaml")
    with alone_in(args.out):
        all_cells = {kind: list(cells(args, basis)) for kind, basis in kinds.items()}
        if args.why:
            print(why(all_cells, args.seeds).text())
            return
        results = Results(args.out, {})
        methods = ["universal", *names(), "paper" + STEP, "posterior" + STEP]
        tables, lines = [], []
        for kind, each in all_cells.items():
            rows = {}
            for cell in each:
                possible = [m for m in methods if cell.learns or supervision(m) != "labels"]
                rows[cell.name] = {method: measured(cell, method, results) for method in possible}
            tasks = dict.fromkeys(t for each in rows.values() for t in each["paper"]["scores"])
            for task in tasks:
                tables.append(table(rows, task, kind))
                lines += [[kind, task, *line] for line in tables[-1].rows]
        tables.append(audits(all_cells, results))
        print("\n\n".join(one.text() for one in tables))
        write_text(args.out / "methods.md", "\n\n".join(one.markdown() for one in tables) + "\n")
        flat = Table("", ["bases", "task", *HEADER], lines)
        write_text(args.out / "methods.csv", flat.csv() + "\n")
        draw(lines, args.out / "methods.png")
        print(f"{args.out}: methods.md, methods.csv, methods.png")


if __name__ == "__main__":
    main()
