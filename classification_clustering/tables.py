"""Tables of the results of clustering.py and few_shot.py, and the paper's numbers next to them."""

from typing import Any

from crl.run.errors import UserError
from crl.run.tables import aligned, beside

Cells = list[dict[str, Any]]  # of a results.json

WHOLE = {"clevr4": ("clevr4-10k", 10531), "cards": ("cards", 8029)}  # name in the paper, images
VLMS = {"clip": "CLIP", "align": "ALIGN", "metaclip": "MetaCLIP", "blip2": "BLIP2"}
BOTH = ("universal", "conditional")


def table(cells: Cells, title: str) -> str:
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
        scores = cell["scores"]
        shown = [scores[which].get(metric) for metric in metrics for which in BOTH]
        shown.append(scores.get("zero-shot", {}).get("acc"))
        about = [_vlm(cell), _criterion(cell), _basis(cell), cell.get("names", "-")]
        rows.append([*about, cell["representation"], *map(_mean_and_deviation, shown)])
    return aligned(title, header, rows, left=5)


def notes(cells: Cells) -> list[str]:
    """Notes that a reader of the table needs."""
    return [
        f"note: {_vlm(cell)}, {_criterion(cell)}: {cell['left_out']} unreadable image(s) left out"
        for cell in cells
        if cell.get("left_out")
    ]


def comparison(paper: dict[str, Any], cells: Cells) -> list[list[str]]:
    """Rows of the paper's numbers next to ours, only for the paper's data sets, VLMs and R.

    Args:
        paper: Table 1 or 2 of configs/paper_tables.json.
    """
    rows = []
    for cell in cells:
        name, images = WHOLE.get(cell["data"], (None, None))
        if cell["images"] != images or cell["vlm"] not in VLMS or cell["representation"] != "paper":
            continue
        for which, suffix in zip(BOTH, ("", "+CRL"), strict=True):
            vlm = VLMS[cell["vlm"]] + suffix
            # The paper lists Clevr4's count with Cards, under the name of its data set.
            known = {f"{name}:{key}": value for key, value in paper["clevr4-10k"][vlm].items()}
            known |= paper["count_and_cards"][vlm]
            for metric, score in cell["scores"][which].items():
                key = f"{name}:{cell['criterion']}/{metric.removesuffix('-shot')}"
                if key in known:
                    about = [vlm, _criterion(cell), _basis(cell), metric]
                    rows.append(about + beside(known[key], score["mean"]))
    return rows


def report(cells: Cells, paper: dict[str, Any]) -> str:
    """Table, notes and comparison of one task's results; `paper`: the paper's table of the task."""
    shots = any(metric.endswith("-shot") for metric in _metrics(cells))
    task = "few_shot" if shots else "clustering"
    title = f"{task}, percent: mean ± standard deviation over seeds"
    lines = [table(cells, title), *notes(cells)]
    if rows := comparison(paper, cells):
        header = ["VLM", "criterion", "basis", "metric", "paper", "ours", "difference"]
        lines += ["", aligned("The paper's numbers beside ours", header, rows, left=4)]
    return "\n".join(lines)


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
