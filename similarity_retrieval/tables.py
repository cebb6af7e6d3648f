"""The table of similarity retrieval, and the places of its results in the paper's Table 3."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from crl.run.errors import UserError
from crl.run.tables import Score, Table
from similarity_retrieval.datasets import TASKS

BASELINES = ("image", "text", "image+text", "combiner")
CUTOFFS = (1, 2, 3)  # of Recall@k
# GeneCIS's own templates: task, number of templates, number of distinct images.
OFFICIAL = {("focus_object", 1960, 2198), ("change_object", 1960, 2739)}

Cell = dict[str, Any]  # one VLM on one task, as in results.json


def table(cells: list[Cell], title: str) -> Table:
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
            recall = [mine[t][f"R@{k}"] if mine.get(t) else None for t in tasks for k in CUTOFFS]
            shown = ["-" if score is None else f"{score:.1f}" for score in recall]
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
    return Table(title, ["VLM", "method", "basis", "names", *header, mean], rows, left=4)


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
            for method, recall in cell["other_tie_policy"].items():
                numbers = ", ".join(f"{k} {v:.1f}" for k, v in recall.items())
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


def scores(cells: list[Cell]) -> Iterator[Score]:
    """The places of the results in Table 3: columns `focus/R@1`, of the object tasks.

    `*` marks GeneCIS's training. Comparable are GeneCIS's two complete object tasks with CLIP
    ViT-B/16 and the paper's weight.
    """
    for cell in cells:
        official = (cell["data"], cell["templates"], cell["images"]) in OFFICIAL
        label, star = cell["label"].removesuffix("*"), "*" if cell["label"].endswith("*") else ""
        comparable = official and cell["weight"] == 10 and label == "clip-b16"
        vlm = "CLIP" if label == "clip-b16" else label
        for method, found in cell["scores"].items():
            row, basis = f"{vlm} {method}{star}", "-"
            if method == "combiner" and label == "clip-b16":
                row = f"Combiner{star}"
            if method == "chance":
                row = "chance"
            if method.startswith("crl"):  # `crl`, `crl posterior`, `crl, standard` ...
                more = method.removeprefix("crl")
                row = f"{vlm}+CRL{star}{',' if more.startswith(' ') else ''}{more}"
                basis = _basis([cell])
            for metric, value in found.items():
                column = f"{cell['data'].removesuffix('_object')}/{metric}"
                yield Score(row, column, [value], basis, comparable)
