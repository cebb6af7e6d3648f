"""The table of similarity retrieval, and the paper's numbers next to ours (Table 3)."""

from collections import Counter
from typing import Any

import numpy as np

from crl.run.errors import UserError
from crl.run.tables import aligned, beside
from similarity_retrieval.datasets import TASKS

BASELINES = ("image", "text", "image+text", "combiner")
CUTOFFS = (1, 2, 3)  # of Recall@k
# GeneCIS's own templates: task, number of templates, number of distinct images.
OFFICIAL = {("focus_object", 1960, 2198), ("change_object", 1960, 2739)}

Cell = dict[str, Any]  # one VLM on one task, as in results.json


def table(cells: list[Cell], title: str) -> str:
    """Methods as rows, Recall@k of each task as columns, and the mean of the object tasks (as in
    Table 3). Results of one VLM with different settings have separate rows, marked [variant].

    Raises:
        UserError: there are no cells.
    """
    if not cells:
        raise UserError("there are no results to show")
    tasks = [task for task in TASKS if any(cell["data"] == task for cell in cells)]
    averaged = [task for task in tasks if task.endswith("object")] or tasks
    rows = []
    for name, found in [("-", cells), *_variants(cells).items()]:
        newest = {cell["data"]: cell for cell in reversed(found)}  # the newest comes first
        crl = dict.fromkeys(m for cell in found for m in cell["scores"] if m.startswith("crl"))
        for method in (*BASELINES, *crl) if name != "-" else ("chance",):
            mine = {task: newest[task]["scores"].get(method) for task in newest}
            if not any(mine.values()):
                continue
            scores = [mine[t][f"R@{k}"] if mine.get(t) else None for t in tasks for k in CUTOFFS]
            shown = ["-" if score is None else f"{score:.1f}" for score in scores]
            whole = all(mine.get(task) for task in averaged)
            mean = np.mean([list(mine[task].values()) for task in averaged]) if whole else None
            about = ["-", "-"]
            if method in crl:
                shown_cells = [newest[t] for t in tasks if t in newest]
                about = [_basis(shown_cells), _names(shown_cells)]
            rows.append([name, method, *about, *shown, "-" if mean is None else f"{mean:.1f}"])
    header = [
        f"{t.replace('_', ' ')} R@{k}" if k == 1 else f"R@{k}" for t in tasks for k in CUTOFFS
    ]
    mean = "mean" if averaged == tasks else "mean of object tasks"
    return aligned(title, ["VLM", "method", "basis", "names", *header, mean], rows, left=4)


def _basis(cells: list[Cell]) -> str:
    """The basis of a row if all its tasks have the same basis; else `notes` names the bases."""
    bases = {f"{cell['basis']} ({cell['texts']})" for cell in cells}
    return bases.pop() if len(bases) == 1 else "by task"


def _names(cells: list[Cell]) -> str:
    """How many of the conditions the basis names, in each task."""
    return " ".join(dict.fromkeys(cell.get("names", "-") for cell in cells))


def _variants(cells: list[Cell]) -> dict[str, list[Cell]]:
    """Cells by VLM, and by settings if a VLM has several."""
    several = Counter(label for label, _ in {(c["label"], c["variant"]) for c in cells})
    grouped: dict[str, list[Cell]] = {}
    for cell in cells:
        name = cell["label"]
        if several[name] > 1:
            name += f" [{cell['variant']}]"
        grouped.setdefault(name, []).append(cell)
    return grouped


def notes(cells: list[Cell]) -> list[str]:
    """Notes that a reader of the table needs."""
    found = []
    for name, variant in _variants(cells).items():
        if "[" in name:
            cell = variant[0]
            combiner = (cell["combiner_hash"] or "none")[:6]
            found.append(
                f"{name}: weight {cell['weight']:g}, ties {cell['tie_policy']}, "
                f"Combiner {combiner}, VLM {cell['vlm_fingerprint'][:6]}"
            )
        by_task = _basis(variant) == "by task"
        for cell in variant:
            about = f"{name}, {cell['data']}"
            if by_task:
                found.append(f"{about}: basis {cell['basis']} ({cell['texts']} texts)")
            other = "fair" if cell["tie_policy"] == "paper" else "paper"
            for method, scores in cell["other_tie_policy"].items():
                numbers = ", ".join(f"{k} {v:.1f}" for k, v in scores.items())
                found.append(f"{about}, {method}: ties; tie_policy={other} gives {numbers}")
            if cell["left_out"]:
                found.append(
                    f"{about}: {cell['left_out']} templates of another gallery size left out"
                )
            if cell["target_also_in_gallery"]:
                found.append(
                    f"{about}: {cell['target_also_in_gallery']} templates hold their target twice; "
                    "they are kept"
                )
            if cell["data"].endswith("attribute"):
                found.append(f"{about}: CRL is our extension; the paper has no attribute tasks")
    return found


def comparison(paper: dict[str, Any], cells: list[Cell]) -> list[list[str]]:
    """Table 3 next to our results on GeneCIS's two complete object tasks, with CLIP ViT-B/16
    (*: after GeneCIS's training). Rows: method, basis, task, metric, paper, ours, difference."""
    rows = []
    for cell in cells:
        official = (cell["data"], cell["templates"], cell["images"]) in OFFICIAL
        if not official or cell["weight"] != 10 or cell["label"].removesuffix("*") != "clip-b16":
            continue
        star = "*" if cell["label"].endswith("*") else ""
        names = {method: f"CLIP {method}{star}" for method in ("image", "text", "image+text")}
        names |= {"crl": f"CLIP+CRL{star}", "combiner": f"Combiner{star}"}
        for method, scores in cell["scores"].items():
            known = paper["genecis"].get(names.get(method), {})
            basis = _basis([cell]) if method == "crl" else "-"
            for metric, ours in scores.items():
                key = f"{cell['data'].removesuffix('_object')}/{metric}"
                if key in known:
                    numbers = beside(known[key], ours)
                    rows.append([names[method], basis, cell["data"], metric, *numbers])
    return rows


def report(cells: list[Cell], paper: dict[str, Any]) -> str:
    """The table, its notes, and the paper's numbers next to ours."""
    lines = [table(cells, "similarity_retrieval, percent")]
    lines += [f"note: {note}" for note in notes(cells)]
    if rows := comparison(paper, cells):
        header = ["method", "basis", "task", "metric", "paper", "ours", "difference"]
        lines += ["", aligned("The paper's numbers beside ours", header, rows, left=4)]
    return "\n".join(lines)
