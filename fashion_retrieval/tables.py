"""The table of the results of evaluate.py, and their places in the paper's Table 4."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from crl.run.errors import UserError
from crl.run.tables import Score, Table
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
ROWS = {  # method -> its row in Table 4, and its tower there
    "random": ("Random", None),
    "triplet": ("Triplet", "resnet50"),
    "csn": ("CSN", "resnet50"),
    "asen": ("ASEN", "resnet50"),
    "universal": ("CLIP", "clip-b16"),
    "crl-free": ("CLIP+CRL (no training)", "clip-b16"),
    "crl-mlp": ("CLIP+CRL, heads only", "clip-b16"),
    "crl": ("CLIP+CRL", "clip-b16"),
}


def table(cells: Cells, title: str) -> Table:
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
            found = cell["scores"].get(method)
            if found is None:
                continue
            shown = [f"{found[c]:.2f}" if c in found else "-" for c in columns]
            model = "-" if method.startswith("random") else name
            called = row_name(cell) if method == cell["method"] else METHODS[method]
            row = [cell["data"], model, _basis(cell), cell.get("names", "-"), called, *shown]
            if row not in rows:  # a random ranking is the same for all models
                rows.append(row)
    return Table(
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
            found.append(f"{name}, {row_name(cell)}: {', '.join(what)}")
    for cell in cells:
        if cell["without_relevant"]:
            found.append(
                f"{cell['data']}: {cell['without_relevant']} of {cell['queries']} queries "
                "have no relevant candidate; they score 0"
            )
    return list(dict.fromkeys(found))


def scores(cells: Cells) -> Iterator[Score]:
    """The places of the results in Table 4: columns are attributes; `mean` is not among them.

    Comparable are results on ASEN's complete test split of DeepFashion with the paper's tower: CLIP
    ViT-B/16, and for rivals the ResNet-50 of ASEN's authors. The split is recognised by its
    attributes, their numbers of values, and its number of images in thousands, because we know no
    more about it. Random is the exact expectation.
    """
    for cell in cells:
        images = f"{cell['images'] / 1000:.0f}k"
        whole = (cell["data"], cell["values"]) == ("DeepFashion", OFFICIAL_VALUES)
        official = whole and images == OFFICIAL_IMAGES["test"]
        vlm = "CLIP" if cell["label"] == "clip-b16" else cell["label"]
        for method, found in cell["scores"].items():
            row, tower = ROWS.get(method, (METHODS.get(method, method), None))
            row = row.replace("CLIP", vlm)
            if cell.get("representation", "paper") != "paper" and method == "crl-free":
                row += f", {cell['representation']}"
            if tower == "resnet50" and cell["label"] != tower:
                row += f" ({vlm})"
            basis = _basis(cell) if method.startswith("crl") else "-"
            for attribute, value in found.items():
                if attribute not in ("mean", "overall"):
                    comparable = official and tower in (None, cell["label"])
                    yield Score(row, attribute, [value], basis, comparable)


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
