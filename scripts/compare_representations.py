"""Compare representations on the demo's tasks: the paper's R, the posterior, the null space, both.

    python scripts/demo/make_data.py --out data/demo
    python scripts/compare_representations.py

Prints the results with the text bases of this repository, and with `--official FOLDER` also those
with the authors' own lists (imported by scripts/import_official_bases.py): for each criterion of
Clevr4 and Cards all that describe it, but for the long ones. Then the sharpness that does best on
Clevr4, and what it does on the other data sets, which had no part in the choice. `--robustness`
also compares changed pictures, few texts and the texts of a wrong criterion. Results go to
<out>/<task>; what is there is not measured again. Demo VLM, drawn pictures: no result on the
paper's data.
"""

from crl.run.command import command

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from classification_clustering import clustering, few_shot
from classification_clustering.config import EvaluateConfig as ClassificationConfig
from crl.basis import TextBasis
from crl.images import open_image
from crl.run.errors import ArgumentParser, UserError
from crl.run.tables import Table
from fashion_retrieval import evaluate as fashion
from fashion_retrieval.config import EvaluateConfig as FashionConfig
from similarity_retrieval import evaluate as similarity
from similarity_retrieval.config import EvaluateConfig as SimilarityConfig

MAKE_DATA = Path(__file__).resolve().parent / "demo/make_data.py"
CRITERIA = {"clevr4": ["texture", "shape", "color", "count"], "cards": ["number", "suits"]}
ATTRIBUTES = ["texture", "fabric", "shape", "part", "style"]
TUNING = "clevr4"  # the sharpness is chosen on these cells, and judged on all others
POSTERIORS = {f"posterior ({c:g})" if c != 1 else "posterior": c for c in (0.5, 0.7, 1, 1.4, 2)}
NULL_SPACES = ["paper, null space", "posterior, null space"]
METHODS = ["paper", *POSTERIORS, "paper+posterior", *NULL_SPACES]


class Bases(NamedTuple):
    """A set of text bases: its name, and the basis of `<data>_<criterion>`."""

    name: str
    of: Callable[[str], str]


class Cell(NamedTuple):
    """The scores of a criterion: {method: {metric: a value for each seed}}."""

    data: str
    criterion: str
    scores: dict[str, dict[str, list[float]]]


# --- measurements ---------------------------------------------------------------------------------


def settings(null_space: list[str], *combined: str) -> Iterator[dict[str, Any]]:
    """Keys of configurations that together measure all methods."""
    yield {"representation": ["paper", "posterior", *combined]}
    for sharpness in POSTERIORS.values():
        yield {"representation": ["posterior"], "sharpness": sharpness}
    yield {"representation": ["paper", "posterior"], "null_space": null_space}


def measure(root: Path, bases: Bases, seeds: int, shots: list[int], out: Path) -> list[Cell]:
    """All cells with these bases: one per data set and criterion."""
    cells: dict[tuple[str, str], Cell] = {}
    usual: dict[str, Any] = {"name": "compare", "outputs": out, "figures": False}

    def add(data: str, criterion: str, method: str, metric: str, values: list[float]) -> None:
        cell = cells.setdefault((data, criterion), Cell(data, criterion, {}))
        cell.scores.setdefault(re.sub(r" of \d+", "", method), {})[metric] = values

    for data, criteria in CRITERIA.items():
        names = {c: bases.of(f"{data}_{c}") for c in criteria}
        about = {"data": data, "root": root, "criteria": criteria, "bases": names, "vlm": ["demo"]}
        about |= {"seeds": seeds, "shots": shots}
        for keys in settings(list(names.values()), "paper+posterior"):
            config = ClassificationConfig.model_validate({**usual, **about, **keys})
            for row in clustering.evaluate(config).rows + few_shot.evaluate(config).rows:
                for metric, score in row["scores"].items():
                    if metric not in ("acc", "ari"):
                        name = metric.replace("nmi", "k-means NMI")
                        criterion, method = row["about"]["criterion"], row["about"]["method"]
                        add(data, criterion, method, name, score["seeds"])
    scene = bases.of("genecis_scene")
    names = {"focus_object": scene, "change_object": scene}
    about = {"root": root / "genecis", "vlm": "demo", "bases": names}
    about |= {"balance": ["paper", "standard"]}
    for keys in settings(["genecis_object"]):
        scenes = SimilarityConfig.model_validate({**usual, **about, **keys})
        for row in similarity.evaluate(scenes).rows:
            method, _, balance = row["about"]["method"].partition(", standard")
            balance = "standard" if row["about"]["method"].endswith(", standard") else "paper"
            add("genecis", row["about"]["data"], method, f"R@1, {balance}", [row["scores"]["R@1"]])
    names = {a: bases.of(f"deepfashion_{a}") for a in ATTRIBUTES}
    about = {"root": root / "garments", "dataset": "Garments", "vlm": "demo", "bases": names}
    for keys in settings(list(names.values())):
        for row in fashion.evaluate(FashionConfig.model_validate({**usual, **about, **keys})).rows:
            for attribute in ATTRIBUTES:
                values = [row["scores"][attribute]]
                add("garments", attribute, row["about"]["method"], "mAP", values)
    return list(cells.values())


def official(folder: Path) -> list[Bases]:
    """The sets of imported lists: the paper's own; for Clevr4 and Cards those of other LLMs, LLM
    prompts and temperatures. What a set lacks is taken from the paper's own."""
    named = {file.stem for file in folder.glob("*.yaml")}
    if "clevr4_color" not in named:
        raise UserError(
            f"{folder} holds no imported bases; run scripts/import_official_bases.py first"
        )
    kinds = sorted(name.removeprefix("clevr4_color") for name in named if "clevr4_color" in name)

    def of(kind: str) -> Callable[[str], str]:
        return lambda name: str(folder / f"{name}{kind if name + kind in named else ''}.yaml")

    return [Bases(f"official{kind}", of(kind)) for kind in kinds if kind != "_long"]


# --- tables ---------------------------------------------------------------------------------------


def table(cells: list[Cell], title: str) -> str:
    """Methods as rows, metrics as columns: mean over cells ± standard deviation over seeds of that
    mean; `worst` is the largest loss against the paper's R in any cell."""
    metrics = list(dict.fromkeys(m for cell in cells for m in cell.scores["paper"]))
    rows = []
    for method in METHODS:
        line = [method]
        for metric in metrics:
            of_method = [cell.scores.get(method, {}) for cell in cells]
            values = [scores[metric] for scores in of_method if metric in scores]
            mean = np.mean(values, axis=0) if values else np.array([])  # over cells, per seed
            deviation = f" ±{mean.std(ddof=1):4.1f}" if len(mean) > 1 else ""
            line.append(f"{mean.mean():.1f}{deviation}" if len(mean) else "-")
        change, name = min(changes(cells, method), default=(0.0, ""))
        rows.append([*line, "-" if method == "paper" or not name else f"{change:+.1f} {name}"])
    return Table(title, ["R is", *metrics, "worst"], rows).text()


def changes(cells: list[Cell], method: str) -> list[tuple[float, str]]:
    """Change against the paper's R, in points, of each cell and metric, and their names; but not
    with the balance `paper`, whose weight belongs to the paper's R."""
    return [
        (
            float(np.mean(values) - np.mean(cell.scores["paper"][metric])),
            f"{cell.data} {cell.criterion} {metric}",
        )
        for cell in cells
        for metric, values in cell.scores.get(method, {}).items()
        if metric != "R@1, paper"
    ]


def chosen(kinds: dict[str, list[Cell]]) -> str:
    """The sharpness that gains most on the tuning cells (each kind of bases has the same weight),
    and what it gains elsewhere."""

    def gain(cells: list[Cell], method: str, tuning: bool) -> float:
        judged = [cell for cell in cells if (cell.data == TUNING) == tuning]
        return float(np.mean([change for change, _ in changes(judged, method)]))

    gains = {
        method: [
            gain(cells, method, tuning) for tuning in (True, False) for cells in kinds.values()
        ]
        for method in POSTERIORS
    }
    best = max(gains, key=lambda method: sum(gains[method][: len(kinds)]))
    header = [f"{data}, {kind}" for data in (TUNING, "the others") for kind in kinds]
    title = "Mean gain over the paper's R, points per cell (with the balance standard)"
    rows = [[method, *(f"{value:+.1f}" for value in values)] for method, values in gains.items()]
    choice = f"Chosen on {TUNING}: {best}. The others had no part in the choice."
    return Table(title, ["R is", *header], rows).text() + "\n" + choice


# --- robustness -----------------------------------------------------------------------------------

CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "as drawn": lambda image: image,
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.55),
    "blurred": lambda image: image.filter(ImageFilter.GaussianBlur(1)),
    "noisy": lambda image: Image.fromarray(
        np.random.default_rng(0)
        .normal(np.asarray(image, np.float32), 20)
        .clip(0, 255)
        .astype(np.uint8)
    ),
}
COMPARED = ["paper", "posterior (0.7)", "posterior", "posterior, null space"]


def robustness(bases: Bases, seeds: int, images: int) -> str:
    """Mean NMI over the six criteria, for changed pictures, few texts, and wrong texts."""
    plain = {(d, c): bases.of(f"{d}_{c}") for d, criteria in CRITERIA.items() for c in criteria}
    rows = []

    def line(title: str, root: Path, names: dict[tuple[str, str], str], others: bool) -> None:
        values: dict[str, list[float]] = {}
        for (data, criterion), name in names.items():
            null_space = [plain[data, c] for c in CRITERIA[data] if c != criterion]
            about = {"data": data, "root": root, "criteria": [criterion], "vlm": ["demo"]}
            about |= {"bases": {criterion: name}, "seeds": seeds, "images": images}
            about |= {"outputs": root / "outputs", "name": title.replace(" ", "-")}
            tried: list[dict[str, Any]] = [{"representation": ["paper", "posterior"]}]
            tried.append({"representation": ["posterior"], "sharpness": 0.7})
            if others:
                tried.append({"representation": ["posterior"], "null_space": null_space})
            for keys in tried:
                config = ClassificationConfig.model_validate({**about, **keys, "figures": False})
                for row in clustering.evaluate(config).rows:
                    method = re.sub(r" of \d+", "", row["about"]["method"])
                    if method in COMPARED:
                        values.setdefault(method, []).append(row["scores"]["nmi"]["mean"])
        means = (f"{np.mean(values[m]):.1f}" if m in values else "-" for m in COMPARED)
        rows.append([title, *means])

    with tempfile.TemporaryDirectory() as folder:
        root, rng = Path(folder), np.random.default_rng(0)
        draw = [sys.executable, str(MAKE_DATA), "--out", folder, "--worlds", *CRITERIA]
        draw += ["--images", str(images), "--seed", "1"]
        subprocess.run(draw, check=True, stdout=subprocess.DEVNULL)
        drawn = {file: open_image(file) for file in sorted(root.rglob("*.*g")) if file.is_file()}
        for title, change in list(CHANGES.items())[::-1]:  # at last they are as drawn
            for file, image in drawn.items():
                change(image).save(file)
            line(title, root, plain, others=True)
        rows.reverse()
        for few in (10, 20, 50):
            names = {}
            for place, name in plain.items():
                basis = TextBasis.load(name)
                kept = rng.choice(len(basis.texts), min(few, len(basis.texts)), replace=False)
                file = root / f"{'_'.join(place)}_{few}.yaml"
                texts = tuple(basis.texts[i] for i in kept)
                basis.model_copy(update={"texts": texts}).save(file)
                names[place] = str(file)
            line(f"{few} random texts", root, names, others=True)
        wrong = {
            (data, criterion): plain[data, criteria[place - 1]]
            for data, criteria in CRITERIA.items()
            for place, criterion in enumerate(criteria)
        }
        line("texts of a wrong criterion", root, wrong, others=False)
    header = [f"{images} pictures per data set", *COMPARED]
    return Table("Robustness: k-means NMI, mean of six criteria", header, rows).text()


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=Path("data/demo"), help="the demo data")
    parser.add_argument("--official", type=Path, help="folder of imported official bases")
    parser.add_argument("--seeds", type=int, default=5, help="of k-means and few-shot")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10], help="of few-shot")
    parser.add_argument("--robustness", action="store_true", help="also changed pictures and texts")
    parser.add_argument("--images", type=int, default=900, help="pictures for --robustness")
    parser.add_argument("--out", type=Path, default=Path("outputs/representations"))
    arguments = parser.parse_args(argv)
    if not 1 <= arguments.seeds <= 100:
        raise UserError(f"--seeds must be 1 to 100, not {arguments.seeds}")
    if min(arguments.shots) < 1:
        raise UserError(f"--shots must be 1 or more, not {min(arguments.shots)}")
    sets = [Bases("own", lambda name: name)]
    sets += official(arguments.official) if arguments.official else []
    kinds: dict[str, list[Cell]] = {}
    for bases in sets:
        cells = measure(arguments.root, bases, arguments.seeds, arguments.shots, arguments.out)
        of_kind = kinds.setdefault(bases.name.partition("_")[0], [])
        of_kind += [cell for cell in cells if cell not in of_kind]  # some lists are in several sets
    for kind, cells in kinds.items():
        print(table(cells, f"{kind} bases, percent"), end="\n\n")
    print(chosen(kinds), end="\n\n")
    if arguments.robustness:
        for bases in sets[:2]:
            print(f"{bases.name} bases", robustness(bases, arguments.seeds, arguments.images))
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
