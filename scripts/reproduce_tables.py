"""Print the tables of one or more runs from their results.json, and the paper's numbers beside.

    python scripts/reproduce_tables.py outputs/clustering/clevr4 outputs/clustering/cards
    python scripts/reproduce_tables.py outputs/similarity_retrieval/genecis

`paper`, `ours` and `difference` (points of percent) appear for runs on the paper's whole data sets
with its VLMs; the paper's numbers are in configs/paper_tables.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from crl.errors import UserError, command
from crl.results import aligned, read_cells, score_table
from similarity_retrieval.evaluate import notes, recall_table

PAPER = Path(__file__).resolve().parent.parent / "configs" / "paper_tables.json"
TABLES = {
    "clustering": "table2_clustering",
    "few_shot": "table1_few_shot_accuracy",
    "similarity_retrieval": "table3_similarity_recall",
}
WHOLE = {"clevr4": ("clevr4-10k", 10531), "cards": ("cards", 8029)}  # name in the paper, images
OBJECT_TASKS = {("focus_object", 1960, 2198), ("change_object", 1960, 2739)}  # templates, images
VLMS = {"clip": "CLIP", "align": "ALIGN", "metaclip": "MetaCLIP", "blip2": "BLIP2"}


Rows = list[list[str]]  # VLM, criterion, metric, paper, ours, difference


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


def _beside(paper: float, ours: float) -> list[str]:
    return [f"{paper:.2f}", f"{ours:.2f}", f"{ours - paper:+.2f}"]


@command
def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders: outputs/<task>/<name>")
    runs = parser.parse_args(argv).runs
    tasks = {run.resolve().parent.name for run in runs}
    if len(tasks) > 1 or not tasks <= TABLES.keys():
        raise UserError(f"the runs must be of one task, {' or '.join(TABLES)}: outputs/<task>/...")
    [task] = tasks
    cells = [cell for run in runs for cell in read_cells(run / "results.json")]
    paper = json.loads(PAPER.read_text(encoding="utf-8"))[TABLES[task]]
    if task == "similarity_retrieval":
        print(recall_table(cells, f"{task}, percent"))
        for note in notes(cells):
            print(f"note: {note}")
        rows = similarity_comparison(paper, cells)
    else:
        print(score_table(f"{task}, percent: mean ± standard deviation over seeds", cells))
        rows = comparison(paper, cells)
    if rows:
        header = ["VLM", "criterion", "metric", "paper", "ours", "difference"]
        print("\n" + aligned("The paper's numbers beside ours", header, rows, left=3))


if __name__ == "__main__":
    main()
