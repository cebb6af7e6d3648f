"""The table of similarity retrieval."""

from typing import Any

import numpy as np

from crl.run.tables import Table
from similarity_retrieval.datasets import TASKS
from similarity_retrieval.method import CUTOFFS

Row = dict[str, Any]  # of results.json


def table(rows: list[Row], title: str) -> Table:
    """VLMs, methods and bases as lines, Recall@k of each task as columns, and the mean of the
    object tasks (as in Table 3). `names` is how many of the conditions the basis names, by task."""
    tasks = [task for task in TASKS if any(row["about"]["data"] == task for row in rows)]
    averaged = [task for task in tasks if task.endswith("object")] or tasks
    by_line: dict[tuple[str, ...], dict[str, Row]] = {}  # VLM, method, basis -> task -> row
    for row in rows:
        about = row["about"]
        label = "-" if about["method"] == "chance" else about["label"]
        basis = f"{about['basis']} ({about['texts']})" if "texts" in about else "-"
        line = by_line.setdefault((label, about["method"], basis), {})
        line.setdefault(about["data"], row)  # the newest comes first
    lines = []
    for head, by_task in sorted(by_line.items(), key=lambda item: item[0][0] != "-"):
        names = [row.get("names", "-") if head[2] != "-" else "-" for row in by_task.values()]
        scores = {task: list(row["scores"].values()) for task, row in by_task.items()}
        cells = [score for task in tasks for score in scores.get(task, [None] * len(CUTOFFS))]
        complete = all(task in scores for task in averaged)
        cells.append(np.mean([scores[task] for task in averaged]) if complete else None)
        shown = ["-" if score is None else f"{score:.1f}" for score in cells]
        lines.append([*head, " ".join(dict.fromkeys(names)), *shown])
    columns = []
    for task in tasks:
        columns += [f"{task.replace('_', ' ')} R@1", *(f"R@{k}" for k in CUTOFFS[1:])]
    mean_of = "mean" if averaged == tasks else "mean of object tasks"
    return Table(title, ["VLM", "method", "basis", "names", *columns, mean_of], lines, left=4)


def notes(rows: list[Row]) -> list[str]:
    """Notes that a reader of the table needs, each once."""
    lines = []
    for row in rows:
        about, task = row["about"], row["about"]["data"]
        if row["other_ties"] != row["scores"]:
            other = "fair" if about["tie_policy"] == "paper" else "paper"
            numbers = ", ".join(f"{k} {v:.1f}" for k, v in row["other_ties"].items())
            line = f"{about['label']}, {task}, {about['method']}: ties; tie_policy={other} gives "
            lines.append(line + numbers)
        if "supervision" in about:
            trained = f"trained on {about['supervision']}; {about['parameters']:,} parameters"
            lost = "" if "{condition}" in about["prompt"] else " (it lacks the condition)"
            lines.append(f"{about['method']}: prompt {about['prompt']!r}{lost}; {trained}")
        if "generated" in about:
            weight = about["reference_weight"]
            parts = f"{weight:g} of the reference's query, {1 - weight:g} of that of an image in"
            line = f"{about['method']}: {parts} {about['generated']}; ours, since CIG's training"
            lines.append(f"{line} is not published")
        if row["left_out"]:
            lines.append(f"{task}: {row['left_out']} templates of another gallery size left out")
        if row["target_also_in_gallery"]:
            lines.append(f"{task}: {row['target_also_in_gallery']} templates hold their target "
                         "twice; they are kept")  # fmt: skip
        if task.endswith("attribute"):
            lines.append(f"{task}: CRL is our extension; the paper has no attribute tasks")
    return list(dict.fromkeys(lines))
