"""Print the tables of one or more runs from their results.json, next to the paper's numbers.

    python scripts/reproduce_tables.py outputs/clustering/clevr4 outputs/clustering/cards
    python scripts/reproduce_tables.py outputs/similarity_retrieval/genecis
    python scripts/reproduce_tables.py outputs/fashion_retrieval/deepfashion

`paper`, `ours` and `difference` (percentage points) appear for runs on the paper's complete data
sets with its VLMs. The paper's numbers are in configs/paper_tables.json.
"""

from crl.run.command import command

import argparse
import json
from pathlib import Path

from classification_clustering import tables as classification_tables
from crl.run.errors import ArgumentParser, UserError
from crl.run.results import read_cells
from fashion_retrieval import tables as fashion_tables
from similarity_retrieval import tables as similarity_tables

PAPER = Path(__file__).resolve().parent.parent / "configs" / "paper_tables.json"
TASKS = {  # folder in outputs/ -> the module that reports its results, its table in the paper
    "clustering": (classification_tables, "table2_clustering"),
    "few_shot": (classification_tables, "table1_few_shot_accuracy"),
    "similarity_retrieval": (similarity_tables, "table3_similarity_recall"),
    "fashion_retrieval": (fashion_tables, "table4_fashion_map"),
}


@command
def main(argv: list[str]) -> None:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, help="folders: outputs/<task>/<name>")
    cells: dict[str, list] = {}
    for run in parser.parse_args(argv).runs:
        task = run.resolve().parent.name
        if task not in TASKS:
            raise UserError(f"{run} is no run of {' or '.join(TASKS)}: outputs/<task>/<name>")
        cells.setdefault(task, []).extend(read_cells(run / "results.json"))
    paper = json.loads(PAPER.read_text(encoding="utf-8"))
    reports = []
    for task, (tables, number) in TASKS.items():
        try:
            reports += [tables.report(cells[task], paper[number])] if task in cells else []
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                f"a results.json of {task} lacks what its table needs ({error!r}); run it again"
            ) from error
    print("\n\n".join(reports))


if __name__ == "__main__":
    main()
