"""Print the tables of one or more runs from their results.json, and the paper's numbers beside.

    python scripts/reproduce_tables.py outputs/clustering/clevr4 outputs/clustering/cards
    python scripts/reproduce_tables.py outputs/similarity_retrieval/genecis
    python scripts/reproduce_tables.py outputs/fashion_retrieval/deepfashion

`paper`, `ours` and `difference` (points of percent) appear for runs on the paper's whole data sets
with its VLMs; the paper's numbers are in configs/paper_tables.json. What the paper has of Table 4
and was not measured is listed apart, as quoted.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from crl.run.errors import UserError, command
from crl.run.tables import aligned
from crl.run.results import read_cells, score_table
from fashion_retrieval import evaluate as fashion
from fashion_retrieval.datasets import OFFICIAL_IMAGES, OFFICIAL_VALUES
from similarity_retrieval import evaluate as similarity

PAPER = Path(__file__).resolve().parent.parent / "configs" / "paper_tables.json"
TABLES = {
    "clustering": "table2_clustering",
    "few_shot": "table1_few_shot_accuracy",
    "similarity_retrieval": "table3_similarity_recall",
    "fashion_retrieval": "table4_fashion_map",
}
WHOLE = {"clevr4": ("clevr4-10k", 10531), "cards": ("cards", 8029)}  # name in the paper, images
OBJECT_TASKS = {("focus_object", 1960, 2198), ("change_object", 1960, 2739)}  # templates, images
FASHION = {  # method -> its name in the paper, and what it was measured with there
    "random": ("Random", None),
    "triplet": ("Triplet", "resnet50"),
    "csn": ("CSN", "resnet50"),
    "asen": ("ASEN", "resnet50"),
    "universal": ("CLIP", "clip-b16"),
    "crl-free": ("CLIP+CRL (no training)", "clip-b16"),
    "crl": ("CLIP+CRL", "clip-b16"),
}
VLMS = {"clip": "CLIP", "align": "ALIGN", "metaclip": "MetaCLIP", "blip2": "BLIP2"}

Rows = list[list[str]]  # VLM or method, criterion, metric, paper, ours, difference


def comparison(table: dict[str, Any], cells: list[dict[str, Any]]) -> Rows:
    """Tables 1 and 2; nothing for other data or VLMs than the paper's."""
    rows: Rows = []
    for cell in cells:
        name, images = WHOLE.get(cell["data"], (None, None))
        if cell["images"] != images or cell["vlm"] not in VLMS:
            continue
        for which, suffix in (("universal", ""), ("conditional", "+CRL")):
            vlm = VLMS[cell["vlm"]] + suffix
            # count stands beside Cards in the paper, under the name of its data set
            known = {f"{name}:{k}": v for k, v in table["clevr4-10k"][vlm].items()}
            known |= table["count_and_cards"][vlm]
            for metric, score in cell["scores"][which].items():
                key = f"{name}:{cell['criterion']}/{metric.removesuffix('-shot')}"
                if key in known:
                    numbers = _beside(known[key], score["mean"])
                    rows.append([vlm, f"{cell['data']} {cell['criterion']}", metric, *numbers])
    return rows


def similarity_comparison(table: dict[str, Any], cells: list[dict[str, Any]]) -> Rows:
    """Table 3: GeneCIS's two object tasks, whole, with CLIP ViT-B/16 (*: GeneCIS's weights)."""
    rows: Rows = []
    for cell in cells:
        # The number of distinct images tells GeneCIS's templates from others as numerous.
        whole = (cell["data"], cell["templates"], cell["images"]) in OBJECT_TASKS
        if not whole or cell["weight"] != 10 or cell["label"].removesuffix("*") != "clip-b16":
            continue
        star = "*" if cell["label"].endswith("*") else ""
        paper = {method: f"CLIP {method}{star}" for method in ("image", "text", "image+text")}
        paper |= {"crl": f"CLIP+CRL{star}", "combiner": f"Combiner{star}"}
        for method, scores in cell["scores"].items():
            known = table["genecis"].get(paper.get(method), {})
            for metric, ours in scores.items():
                key = f"{cell['data'].removesuffix('_object')}/{metric}"
                if key in known:
                    rows.append([paper[method], cell["data"], metric, *_beside(known[key], ours)])
    return rows


def fashion_comparison(table: dict[str, Any], cells: list[dict[str, Any]]) -> tuple[Rows, Rows]:
    """Table 4: the rows of `comparison`, and those of methods that are only quoted.

    Compared are results on ASEN's whole test split of DeepFashion with the tower of the paper:
    CLIP ViT-B/16, and for rivals the ResNet-50 of ASEN's authors; on another tower they are quoted.
    The split is known by its attributes, the number of values of each, and the number of its
    images in thousands, which are all that is known of it here. Random is the exact expectation.
    The paper's Mean is beside our plain mean of the attributes, which it is closest to.
    """
    rows: Rows = []
    official = [
        (name, cell)
        for name, cell in zip(fashion.names(cells), cells, strict=True)
        if (cell["data"], cell["values"]) == ("DeepFashion", OFFICIAL_VALUES)
        and table["deepfashion"]["Random"].keys() <= cell["scores"][cell["method"]].keys()
        and f"{cell['images'] / 1000:.0f}k" == OFFICIAL_IMAGES["test"]
    ]
    for method, (paper, tower) in FASHION.items():
        for name, cell in official:
            if method in cell["scores"] and tower in (None, cell["label"]):
                mark = "" if tower is None else name.removeprefix(tower)  # of several results
                ours = cell["scores"][method]
                for column, known in table["deepfashion"][paper].items():
                    row = [paper + mark, column, "mAP", *_beside(known, ours[column])]
                    if row not in rows:  # a random ranking is the same for all models
                        rows.append(row)
    measured = {row[0].partition(" [")[0] for row in rows}
    quoted = [
        [method, *(f"{known:.2f}" for known in scores.values())]
        for method, scores in table["deepfashion"].items()
        if method not in measured
    ]
    return rows, quoted if rows else []


def _beside(paper: float, ours: float) -> list[str]:
    return [f"{paper:.2f}", f"{ours:.2f}", f"{ours - paper:+.2f}"]


def report(task: str, cells: list[dict[str, Any]], paper: dict[str, Any]) -> str:
    """The table of one task, notes on it, and the paper's numbers (one of its tables)."""
    quoted: Rows = []
    if task == "similarity_retrieval":
        table = similarity.recall_table(cells, f"{task}, percent")
        notes, rows = similarity.notes(cells), similarity_comparison(paper, cells)
    elif task == "fashion_retrieval":
        table = fashion.map_table(cells, f"{task}, mAP in percent")
        notes, (rows, quoted) = fashion.notes(cells), fashion_comparison(paper, cells)
    else:
        table = score_table(f"{task}, percent: mean ± standard deviation over seeds", cells)
        notes, rows = [], comparison(paper, cells)
    lines = [table, *(f"note: {note}" for note in notes)]
    if rows:
        first = "method" if task == "fashion_retrieval" else "VLM"
        header = [first, "criterion", "metric", "paper", "ours", "difference"]
        lines += ["", aligned("The paper's numbers beside ours", header, rows, left=3)]
    if quoted:
        title = "Only quoted from the paper, no result of ours: mAP in percent"
        header = ["method", *paper["deepfashion"]["CLIP"]]
        lines += ["", aligned(title, header, quoted, left=1)]
    return "\n".join(lines)


@command
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders: outputs/<task>/<name>")
    runs = parser.parse_args(argv).runs
    tasks = {task: [run for run in runs if run.resolve().parent.name == task] for task in TABLES}
    for run in runs:
        if not any(run in found for found in tasks.values()):
            raise UserError(f"{run} is no run of {' or '.join(TABLES)}: outputs/<task>/<name>")
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    cells = {
        task: [cell for run in found for cell in read_cells(run / "results.json")]
        for task, found in tasks.items()
        if found
    }
    print("\n\n".join(report(task, cells[task], paper[TABLES[task]]) for task in cells))


if __name__ == "__main__":
    main()
