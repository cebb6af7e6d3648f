"""Print the tables of one or more runs from their results.json, and the paper's numbers beside.

    python scripts/reproduce_tables.py outputs/clustering/clevr4 outputs/clustering/cards

`paper`, `ours` and `difference` (points of percent) appear for runs on the paper's whole data sets
with its VLMs; the paper's numbers are in configs/paper_tables.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from crl.errors import UserError, command
from crl.results import aligned, read_cells, score_table

PAPER = Path(__file__).resolve().parent.parent / "configs" / "paper_tables.json"
TABLES = {"clustering": "table2_clustering", "few_shot": "table1_few_shot_accuracy"}
WHOLE = {"clevr4": ("clevr4-10k", 10531), "cards": ("cards", 8029)}  # name in the paper, images
VLMS = {"clip": "CLIP", "align": "ALIGN", "metaclip": "MetaCLIP", "blip2": "BLIP2"}


def comparison(task: str, cells: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of VLM, criterion, metric, paper, ours, difference; none for other data or VLMs."""
    table = json.loads(PAPER.read_text(encoding="utf-8"))[TABLES[task]]
    rows = []
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
                    paper, ours = known[key], score["mean"]
                    numbers = [f"{paper:.2f}", f"{ours:.2f}", f"{ours - paper:+.2f}"]
                    rows.append([vlm, f"{cell['data']} {cell['criterion']}", metric, *numbers])
    return rows


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
    print(score_table(f"{task}, percent: mean ± standard deviation over seeds", cells))
    if rows := comparison(task, cells):
        header = ["VLM", "criterion", "metric", "paper", "ours", "difference"]
        print("\n" + aligned("The paper's numbers beside ours", header, rows, left=3))


if __name__ == "__main__":
    main()
