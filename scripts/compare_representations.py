"""Compare representations on the demo's tasks: the paper's R, the posterior, the null space, both.

    python scripts/demo/make_data.py --out data/demo
    python scripts/compare_representations.py

Prints the results with the text bases of this repository, and with `--official FOLDER` also those
with the authors' own lists (imported by scripts/import_official_bases.py): for each criterion of
Clevr4 and Cards all that describe it, but for the long ones. Then the sharpness that does best on
Clevr4, and what it does on the other data sets, which had no part in the choice. `--robustness`
also compares changed pictures, few texts and the texts of a wrong criterion. Results go to
<out>/results.json; what is there is not measured again. Demo VLM, drawn pictures: no result on the
paper's data.
"""

from crl.run.command import command

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from classification_clustering import inputs as classification
from classification_clustering.method import clustering_scores, conditional, few_shot, kmeans
from crl.images import open_image
from crl.projection import l2, standardise
from crl.run.errors import ArgumentParser, UserError
from crl.run.files import alone_in
from crl.run.progress import progress
from crl.run.results import Run, digest, summary
from crl.run.tables import aligned
from fashion_retrieval import evaluate as fashion
from fashion_retrieval import inputs as fashion_inputs
from similarity_retrieval import evaluate as similarity
from similarity_retrieval import inputs as similarity_inputs
from similarity_retrieval.method import recall, target_ranks

MAKE_DATA = Path(__file__).resolve().parent / "demo/make_data.py"
CRITERIA = {"clevr4": ["texture", "shape", "color", "count"], "cards": ["number", "suits"]}
ATTRIBUTES = ["texture", "fabric", "shape", "part", "style"]
TUNING = "clevr4"  # the sharpness is chosen on these cells, and judged on all others


@dataclass(frozen=True)
class Variant:
    """One way to make R."""

    representation: str
    sharpness: float = 1.0
    null_space: bool = False

    @property
    def name(self) -> str:
        name = self.representation.replace("posterior", f"posterior {self.sharpness:g}")
        return f"{name}, null space" if self.null_space else name


PAPER = Variant("paper")
POSTERIORS = [Variant("posterior", c) for c in (0.5, 0.7, 1.0, 1.4, 2.0)]
VARIANTS = [
    PAPER,
    *POSTERIORS,
    Variant("paper+posterior"),
    Variant("paper", null_space=True),
    Variant("posterior", null_space=True),
]


@dataclass(frozen=True)
class Bases:
    """A set of text bases: its name, and the basis of `<data>_<criterion>`."""

    name: str
    of: Callable[[str], str]


# --- measurements: {variant: {metric: summary over seeds}} ----------------------------------------


def classify(inputs: classification.Inputs, seeds: int, shots: list[int]) -> dict[str, dict]:
    """k-means NMI, and few-shot accuracy."""

    def r(variant: Variant, scale: Callable) -> np.ndarray:
        removed = inputs.removed if variant.null_space else None
        how = variant.representation, scale, variant.sharpness, removed
        return conditional(inputs.image, inputs.text, *how)  # R = I Tᵀ, (N, K)

    def nmi(x: np.ndarray) -> dict:
        clusters = [kmeans(x, len(inputs.class_names), seed) for seed in range(seeds)]
        return summary([clustering_scores(inputs.labels, found)["nmi"] for found in clusters])

    def accuracy(x: np.ndarray, shots: int) -> dict:
        return summary([few_shot(x, inputs.labels, shots, seed) for seed in range(seeds)])

    measured: dict[str, dict] = {}
    for variant in progress(VARIANTS, label=inputs.title, unit="representations"):
        measured[variant.name] = {"k-means NMI": nmi(r(variant, l2))}
        standardised = r(variant, standardise)
        for n in shots:
            measured[variant.name][f"{n}-shot"] = accuracy(standardised, n)
    return measured


def retrieve_scenes(inputs: similarity_inputs.Inputs, config: Any) -> dict[str, dict]:
    """Recall@1 of CRL, with both balances of its two parts."""
    measured: dict[str, dict] = {}
    plain = replace(inputs, bases=[replace(basis, removed=None) for basis in inputs.bases])
    for variant in VARIANTS:
        if variant.representation == "paper+posterior":
            continue
        given = inputs if variant.null_space else plain
        update = {"representation": [variant.representation], "sharpness": variant.sharpness}
        scores = similarity.all_scores(given, config.model_copy(update={**update}))
        found = [s for method, s in scores.items() if method.startswith("crl")]
        recalls = [recall(*target_ranks(s), k=1) for s in found]  # in the order of `balance`
        names = [f"R@1, {balance}" for balance in config.balance]
        measured[variant.name] = {
            n: summary([value]) for n, value in zip(names, recalls, strict=True)
        }
    return measured


def retrieve_garments(root: Path, bases: Bases) -> Iterator[tuple[str, Any, dict[str, dict]]]:
    """mAP of each attribute without training: attribute, inputs, scores."""
    names = {a: bases.of(f"deepfashion_{a}") for a in ATTRIBUTES}
    measured: dict[str, dict[str, dict]] = {a: {} for a in ATTRIBUTES}
    inputs: Any = None
    for variant in VARIANTS:
        if variant.representation == "paper+posterior":
            continue
        config = fashion_inputs.EvaluateConfig(
            root=root / "garments",
            dataset="Garments",
            vlm="demo",
            bases=names,
            representation=[variant.representation],
            sharpness=variant.sharpness,
            null_space=list(names.values()) if variant.null_space else [],
        )
        for inputs in fashion_inputs.load_inputs(config):
            if inputs.method == "crl-free":
                represent = fashion.representation(inputs, config)
                scores = fashion.measure(inputs, represent, seed=0)["crl-free"]
                for attribute in ATTRIBUTES:
                    measured[attribute][variant.name] = {"mAP": summary([scores[attribute]])}
    for attribute in ATTRIBUTES:
        yield attribute, inputs, measured[attribute]


def measure(root: Path, bases: Bases, seeds: int, shots: list[int], run: Run) -> None:
    """Measure all cells with these bases: one per task and criterion."""

    def cell(task: str, data: str, criterion: str, inputs: Any, measured: Callable) -> None:
        key = digest(task, criterion, inputs.digest, seeds, shots, [v.name for v in VARIANTS])
        if not run.finished(key):
            about = {"task": task, "data": data, "criterion": criterion, "bases": bases.name}
            run.add(key, **about, basis_hash=inputs.digest, scores=measured())

    for inputs in classification_inputs(root, bases):
        about = inputs.about["data"], inputs.about["criterion"]
        cell(
            "classification_clustering", *about, inputs, lambda i=inputs: classify(i, seeds, shots)
        )
    names = {task: bases.of("genecis_scene") for task in ("focus_object", "change_object")}
    config = similarity_inputs.EvaluateConfig(
        root=root / "genecis",
        vlm="demo",
        bases=names,
        null_space=["genecis_object"],
        balance=["paper", "standard"],
    )
    for scenes in similarity_inputs.load_inputs(config):
        about = "genecis", scenes.about["data"]
        cell("similarity_retrieval", *about, scenes, lambda s=scenes: retrieve_scenes(s, config))
    for attribute, garments, scores in retrieve_garments(root, bases):
        cell("fashion_retrieval", "garments", attribute, garments, lambda s=scores: s)


def classification_inputs(
    root: Path, bases: Bases, images: int | None = None
) -> Iterator[classification.Inputs]:
    for data, criteria in CRITERIA.items():
        names = {c: bases.of(f"{data}_{c}") for c in criteria}
        yield from classification.load_inputs(
            classification.EvaluateConfig(
                data=data,
                root=root,
                images=images,
                criteria=criteria,
                vlm="demo",
                bases=names,
                null_space=list(names.values()),
            )
        )


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


def table(cells: list[dict[str, Any]], title: str) -> str:
    """Variants as rows, metrics as columns: mean over cells ± standard deviation over seeds of that
    mean; `worst` is the largest loss against the paper's R in any cell."""
    metrics = list(dict.fromkeys(m for cell in cells for m in cell["scores"][PAPER.name]))
    rows = []
    for variant in VARIANTS:
        row = [variant.name]
        for metric in metrics:
            found = [
                cell["scores"][variant.name][metric]["seeds"]
                for cell in cells
                if metric in cell["scores"].get(variant.name, {})
            ]
            if not found:
                row.append("-")
                continue
            over_seeds = np.mean(found, axis=0)  # mean over cells, per seed
            deviation = f" ±{over_seeds.std(ddof=1):4.1f}" if len(over_seeds) > 1 else ""
            row.append(f"{over_seeds.mean():.1f}{deviation}")
        rows.append([*row, worst(cells, variant)])
    return aligned(title, ["R is", *metrics, "worst"], rows, left=1)


def changes(cells: list[dict[str, Any]], variant: Variant) -> list[tuple[float, str]]:
    """Change against the paper's R, in points, of each cell and metric, and their names; but not
    with the balance `paper`, whose weight belongs to the paper's R."""
    found = []
    for cell in cells:
        scores = cell["scores"]
        for metric, score in scores.get(variant.name, {}).items():
            if metric != "R@1, paper":
                change = score["mean"] - scores[PAPER.name][metric]["mean"]
                found.append((change, f"{cell['data']} {cell['criterion']} {metric}"))
    return found


def worst(cells: list[dict[str, Any]], variant: Variant) -> str:
    change, name = min(changes(cells, variant))
    return "-" if variant == PAPER else f"{change:+.1f} {name}"


def chosen(kinds: dict[str, list[dict[str, Any]]]) -> str:
    """The sharpness that gains most on the tuning cells (each kind of bases has the same weight),
    and what it gains elsewhere."""

    def gain(cells: list[dict[str, Any]], variant: Variant, tuning: bool) -> float:
        mine = [cell for cell in cells if (cell["data"] == TUNING) == tuning]
        return float(np.mean([change for change, _ in changes(mine, variant)]))

    gains = {
        variant.name: [gain(c, variant, t) for t in (True, False) for c in kinds.values()]
        for variant in POSTERIORS
    }
    best = max(gains, key=lambda name: sum(gains[name][: len(kinds)]))
    header = [f"{data}, {kind}" for data in (TUNING, "the others") for kind in kinds]
    title = "Mean gain over the paper's R, points per cell (with the balance standard)"
    shown = [[name, *(f"{value:+.1f}" for value in found)] for name, found in gains.items()]
    told = f"Chosen on {TUNING}: {best}. The others had no part in the choice."
    return aligned(title, ["R is", *header], shown, left=1) + "\n" + told


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
COMPARED = [PAPER, *POSTERIORS[1:3], Variant("posterior", null_space=True)]


def robustness(bases: Bases, seeds: int, images: int) -> str:
    """Mean NMI over the six criteria, for changed pictures, few texts, and wrong texts."""
    rows = []

    def row(name: str, given: list[classification.Inputs]) -> None:
        scores = []
        for variant in COMPARED:
            found = []
            for inputs in given:
                removed = inputs.removed if variant.null_space else None
                how = variant.representation, l2, variant.sharpness, removed
                r = conditional(inputs.image, inputs.text, *how)
                classes = len(inputs.class_names)
                found += [
                    clustering_scores(inputs.labels, kmeans(r, classes, seed))["nmi"]
                    for seed in range(seeds)
                ]
            scores.append(f"{np.mean(found):.1f}")
        rows.append([name, *scores])

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        draw = [sys.executable, str(MAKE_DATA), "--out", folder, "--worlds", *CRITERIA]
        draw += ["--images", str(images), "--seed", "1"]
        subprocess.run(draw, check=True, stdout=subprocess.DEVNULL)
        drawn = {file: open_image(file) for file in sorted(root.rglob("*.*g")) if file.is_file()}
        for name, change in CHANGES.items():
            for file, image in drawn.items():
                change(image).save(file)
            given = list(classification_inputs(root, bases, images))
            row(name, given)
            if name == "as drawn":
                plain = given
    rng = np.random.default_rng(0)
    for few in (10, 20, 50):
        row(f"{few} random texts", [_some_texts(inputs, few, rng) for inputs in plain])
    wrong = []
    for data in CRITERIA:
        mine = [inputs for inputs in plain if inputs.about["data"] == data]
        wrong += [
            replace(inputs, text=other.text, removed=None)
            for inputs, other in zip(mine, mine[1:] + mine[:1], strict=True)
        ]
    row("texts of a wrong criterion", wrong)
    header = [f"{images} pictures per data set", *(variant.name for variant in COMPARED)]
    return aligned("Robustness: k-means NMI, mean of six criteria", header, rows, left=1)


def _some_texts(inputs: classification.Inputs, few: int, rng: np.random.Generator) -> Any:
    rows = rng.choice(len(inputs.text), min(few, len(inputs.text)), replace=False)
    return replace(inputs, text=inputs.text[rows])


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
    with alone_in(arguments.out):
        run = Run(arguments.out, {"seeds": arguments.seeds, "shots": arguments.shots})
        for bases in sets:
            measure(arguments.root, bases, arguments.seeds, arguments.shots, run)
    distinct = {cell["key"]: cell for cell in run.cells}.values()  # some lists are in several sets
    kinds = {k: [c for c in distinct if c["bases"].startswith(k)] for k in ("own", "official")}
    kinds = {kind: cells for kind, cells in kinds.items() if cells}
    for kind, cells in kinds.items():
        print(table(cells, f"{kind} bases, percent"), end="\n\n")
    print(chosen(kinds), end="\n\n")
    if arguments.robustness:
        for bases in sets[:2]:
            print(f"{bases.name} bases", robustness(bases, arguments.seeds, arguments.images))
    print(f"results: {arguments.out}")


if __name__ == "__main__":
    main()
