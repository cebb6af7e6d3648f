"""The table of the results of clustering.py and few_shot.py, and their places in the paper's."""

from collections.abc import Iterator
from typing import Any

from crl.run.errors import UserError
from crl.run.tables import Score, Table

Cells = list[dict[str, Any]]  # of a results.json

WHOLE = {"clevr4": 10531, "cards": 8029}  # images
VLMS = {"clip": "CLIP", "align": "ALIGN", "metaclip": "MetaCLIP", "blip2": "BLIP2"}
BOTH = ("universal", "conditional")


def table(cells: Cells, title: str) -> Table:
    """One row per VLM, criterion, basis and representation R; two columns per metric, I and R, in
    percent.

    `mean ± standard deviation` over seeds; `0-shot` is the accuracy with the true class names;
    `names` is how many of the classes the basis names.

    Raises:
        UserError: there are no cells.
    """
    if not cells:
        raise UserError("there are no results to show")
    metrics = _metrics(cells)
    header = ["VLM", "criterion", "basis", "names", "R is"]
    header += [f"{metric} {x}" for metric in metrics for x in "IR"] + ["0-shot"]
    rows = []
    for cell in cells:
        found = cell["scores"]
        shown = [found[which].get(metric) for metric in metrics for which in BOTH]
        shown.append(found.get("zero-shot", {}).get("acc"))
        about = [_vlm(cell), _criterion(cell), _basis(cell), cell.get("names", "-")]
        rows.append([*about, cell["representation"], *map(_mean_and_deviation, shown)])
    return Table(title, header, rows, left=5)


def notes(cells: Cells) -> list[str]:
    """Notes that a reader of the table needs."""
    return [
        f"{_vlm(cell)}, {_criterion(cell)}: {cell['left_out']} unreadable image(s) left out"
        for cell in cells
        if cell.get("left_out")
    ]


def scores(cells: Cells) -> Iterator[Score]:
    """The places of the results in Tables 1 and 2: columns `color/nmi`, `color/5` (5 shots)."""
    for cell in cells:
        vlm = VLMS.get(cell["vlm"], cell["vlm"])
        comparable = cell["vlm"] in VLMS and cell["images"] == WHOLE.get(cell["data"])
        for which in BOTH:
            row, basis = vlm, "-"
            if which == "conditional":
                row, basis = f"{vlm}+CRL", _basis(cell)
                if cell["representation"] != "paper":
                    row += f", {cell['representation']}"
            for metric, score in cell["scores"][which].items():
                column = f"{cell['criterion']}/{metric.removesuffix('-shot')}"
                yield Score(row, column, score["seeds"], basis, comparable)


def _metrics(cells: Cells) -> list[str]:
    return list(dict.fromkeys(metric for cell in cells for metric in cell["scores"]["universal"]))


def _vlm(cell: dict[str, Any]) -> str:
    """The VLM, with the rule of `single_vector` if it was used, because I depends on it."""
    rule = cell.get("image_vector")
    return cell["vlm"] + (f" [{rule}]" if rule else "")


def _criterion(cell: dict[str, Any]) -> str:
    return f"{cell['data']} {cell['criterion']}"


def _basis(cell: dict[str, Any]) -> str:
    return f"{cell['basis']} ({cell['texts']})"


def _mean_and_deviation(score: dict[str, Any] | None) -> str:
    if score is None:
        return "-"
    return f"{score['mean']:.1f}" + ("" if score["std"] is None else f" ±{score['std']:4.1f}")
