"""Tables of the results of evaluate.py, and the paper's numbers next to them (paper, Table 4)."""

from collections import Counter
from typing import Any

from crl.run.errors import UserError
from crl.run.tables import aligned, beside
from fashion_retrieval.datasets import OFFICIAL_IMAGES, OFFICIAL_VALUES

Cells = list[dict[str, Any]]  # of a results.json

METHODS = {  # in the order of the paper's table; other methods follow
    "random": "Random",
    "random draw": "Random, one draw",
    "triplet": "Triplet",
    "csn": "CSN",
    "asen": "ASEN",
    "universal": "universal: I",
    "crl-free": "CRL† (no training)",
    "crl-mlp": "CRL, heads trained",
    "crl": "CRL, backbone trained",
}
PAPER = {  # method -> its name and its tower in the paper
    "random": ("Random", None),
    "triplet": ("Triplet", "resnet50"),
    "csn": ("CSN", "resnet50"),
    "asen": ("ASEN", "resnet50"),
    "universal": ("CLIP", "clip-b16"),
    "crl-free": ("CLIP+CRL (no training)", "clip-b16"),
    "crl": ("CLIP+CRL", "clip-b16"),
}


def table(cells: Cells, title: str) -> str:
    """Methods as rows; as columns the mAP of each attribute, `mean` and `overall` (as in Table 4;
    `mean` is over attributes, `overall` over queries). Several results of one method, model and
    basis, e.g. with other heads, have separate rows, marked [variant].

    Raises:
        UserError: there are no cells.
    """
    if not cells:
        raise UserError("there are no results to show")
    columns = list(dict.fromkeys(c for cell in cells for s in cell["scores"].values() for c in s))
    columns = [c for c in columns if c not in ("mean", "overall")] + ["mean", "overall"]
    methods = list(dict.fromkeys([*METHODS, *(m for cell in cells for m in cell["scores"])]))
    rows = []
    for method in methods:
        for name, cell in zip(_names(cells), cells, strict=True):
            scores = cell["scores"].get(method)
            if scores is None:
                continue
            shown = [f"{scores[c]:.2f}" if c in scores else "-" for c in columns]
            model = "-" if method.startswith("random") else name
            called = row_name(cell) if method == cell["method"] else METHODS[method]
            row = [cell["data"], model, _basis(cell), cell.get("names", "-"), called, *shown]
            if row not in rows:  # a random ranking is the same for all models
                rows.append(row)
    return aligned(
        title, ["data", "model", "basis (texts)", "names", "method", *columns], rows, left=5
    )


def row_name(cell: dict[str, Any]) -> str:
    """The method of a row: `CRL† (no training)`, `CRL†, posterior (no training)` ..."""
    name = METHODS.get(cell["method"], cell["method"])
    representation = cell.get("representation", "paper")
    return name if representation == "paper" else name.replace("†", f"†, {representation}")


def notes(cells: Cells) -> list[str]:
    """Notes that a reader of the table needs."""
    found = []
    for name, cell in zip(_names(cells), cells, strict=True):
        if name != cell["label"]:
            what = [f"{cell['vlm']} {cell['vlm_fingerprint'][:6]}"]
            if "texts" in cell:
                what.append(f"{cell['texts']} texts {cell['basis_hash'][:6]}")
            if "heads_hash" in cell:
                what.append(f"heads {cell['heads_hash'][:6]}")
            if "from" in cell:
                what.append(f"from {cell['from']}")
            found.append(f"note: {name}, {row_name(cell)}: {', '.join(what)}")
    for cell in cells:
        if cell["without_relevant"]:
            found.append(
                f"note: {cell['data']}: {cell['without_relevant']} of {cell['queries']} queries "
                "have no relevant candidate; they score 0"
            )
    return list(dict.fromkeys(found))


def comparison(paper: dict[str, Any], cells: Cells) -> list[list[str]]:
    """Rows of the paper's numbers next to ours.

    Only results on ASEN's complete test split of DeepFashion with the paper's tower are compared:
    CLIP ViT-B/16, and for rivals the ResNet-50 of ASEN's authors. The split is recognised by its
    attributes, their numbers of values, and its number of images in thousands, because we know no
    more about it. Random is the exact expectation. The paper's Mean is compared with our plain mean
    over attributes, to which it is closest.

    Args:
        paper: Table 4 of configs/paper_tables.json.
    """
    rows = []
    official = [
        (name, cell)
        for name, cell in zip(_names(cells), cells, strict=True)
        if (cell["data"], cell["values"]) == ("DeepFashion", OFFICIAL_VALUES)
        and paper["deepfashion"]["Random"].keys() <= cell["scores"][cell["method"]].keys()
        and f"{cell['images'] / 1000:.0f}k" == OFFICIAL_IMAGES["test"]
    ]
    for method, (known_as, tower) in PAPER.items():
        for name, cell in official:
            of_paper = cell.get("representation", "paper") == "paper"
            if method in cell["scores"] and tower in (None, cell["label"]) and of_paper:
                mark = "" if tower is None else name.removeprefix(tower)  # if there are several
                ours = cell["scores"][method]
                for column, known in paper["deepfashion"][known_as].items():
                    about = [known_as + mark, _basis(cell), column, "mAP"]
                    row = about + beside(known, ours[column])
                    if row not in rows:  # a random ranking is the same for all models
                        rows.append(row)
    return rows


def quoted(paper: dict[str, Any], compared: list[list[str]]) -> list[list[str]]:
    """Rows of the paper's table that are not in `compared`."""
    measured = {row[0].partition(" [")[0] for row in compared}
    return [
        [method, *(f"{known:.2f}" for known in scores.values())]
        for method, scores in paper["deepfashion"].items()
        if method not in measured
    ]


def report(cells: Cells, paper: dict[str, Any]) -> str:
    """Table, notes and comparison of the results; `paper` is Table 4."""
    lines = [table(cells, "fashion_retrieval, mAP in percent"), *notes(cells)]
    if rows := comparison(paper, cells):
        header = ["method", "basis (texts)", "criterion", "metric", "paper", "ours", "difference"]
        lines += ["", aligned("The paper's numbers beside ours", header, rows, left=4)]
        if rest := quoted(paper, rows):
            title = "Only quoted from the paper, no result of ours: mAP in percent"
            header = ["method", *paper["deepfashion"]["CLIP"]]
            lines += ["", aligned(title, header, rest, left=1)]
    return "\n".join(lines)


def _names(cells: Cells) -> list[str]:
    """The model of each cell as tables show it, marked with [variant] if there are several results
    of one method, label and basis."""
    keys = ("data", "method", "label", "basis", "texts", "representation")
    kinds = [(*(cell.get(key) for key in keys), cell["variant"]) for cell in cells]
    several = Counter(kind[:-1] for kind in set(kinds))
    return [kind[2] + (f" [{kind[-1]}]" if several[kind[:-1]] > 1 else "") for kind in kinds]


def _basis(cell: dict[str, Any]) -> str:
    """The basis of a row, if it has one."""
    return f"{cell['basis']} ({cell['texts']})" if "basis" in cell else "-"
