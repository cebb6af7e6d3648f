"""Result rows -> their places in the paper's tables."""

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from crl.run.errors import UserError
from crl.run.tables import Table
from fashion_retrieval.datasets import OFFICIAL_IMAGES, OFFICIAL_VALUES

Rows = list[dict[str, Any]]  # of a results.json

IMAGES = {"clevr4": 10531, "cards": 8029}  # of the paper's data sets
NAMES = {"clip": "CLIP", "align": "ALIGN", "metaclip": "MetaCLIP", "blip2": "BLIP2"}
# GeneCIS's own templates: task, number of templates, number of distinct images.
TEMPLATES = {("focus_object", 1960, 2198), ("change_object", 1960, 2739)}
FASHION = {  # method: its row in Table 4; all others are CRL without training
    "random": "Random", "random draw": "Random, one draw", "triplet": "Triplet", "csn": "CSN",
    "asen": "ASEN", "universal": "CLIP", "crl-mlp": "CLIP+CRL, heads only", "crl": "CLIP+CRL",
}  # fmt: skip


class Score(NamedTuple):
    row: str  # method, e.g. `CLIP+CRL`
    column: str  # e.g. `color/nmi`, `color/5` (5 shots), `focus/R@1`
    values: list[float]  # in percent, one for each seed
    basis: str  # - without one
    comparable: bool  # measured as in the paper: whole data, the paper's VLM and settings


def classification(rows: Rows) -> Iterator[Score]:
    """Tables 1 and 2."""
    for row in rows:
        about, vlm = row["about"], NAMES.get(row["about"]["vlm"], row["about"]["vlm"])
        if about["method"] == "zero-shot":
            continue
        name = vlm if about["method"] == "universal" else _crl(vlm, about["method"])
        comparable = about["vlm"] in NAMES and row["images"] == IMAGES.get(about["data"])
        for metric, score in row["scores"].items():
            column = f"{about['criterion']}/{metric.removesuffix('-shot')}"
            yield Score(name, column, score["seeds"], _basis(about), comparable)


def similarity(rows: Rows) -> Iterator[Score]:
    """Table 3, its object tasks; `*` marks GeneCIS's training. Comparable are GeneCIS's two
    complete object tasks with CLIP ViT-B/16 and the paper's weight."""
    for row in rows:
        about, method = row["about"], row["about"]["method"]
        star, label = "*" * about["label"].endswith("*"), about["label"].removesuffix("*")
        vlm = "CLIP" if label == "clip-b16" else label
        name = _crl(vlm, method, star) if "texts" in about else f"{vlm} {method}{star}"
        if method == "chance" or (vlm, method) == ("CLIP", "combiner"):
            name = method if method == "chance" else f"Combiner{star}"
        whole = (about["data"], row["templates"], row["images"]) in TEMPLATES
        comparable = whole and vlm == "CLIP" and about.get("weight", 10) == 10
        for metric, value in row["scores"].items():
            column = f"{about['data'].removesuffix('_object')}/{metric}"
            yield Score(name, column, [value], _basis(about), comparable)


def fashion(rows: Rows) -> Iterator[Score]:
    """Table 4; `mean` is not among the columns. Comparable are results on ASEN's complete test
    split of DeepFashion with the paper's tower: CLIP ViT-B/16, and for rivals the ResNet-50 of
    ASEN's authors. The split is recognised by its attributes, their numbers of values, and its
    number of images in thousands, because we know no more about it."""
    for row in rows:
        about, method = row["about"], row["about"]["method"]
        tower = "CLIP" if about["vlm"] == "clip-b16" else about["vlm"]
        name = FASHION.get(method) or _crl("CLIP", method, " (no training)")
        ours = name.startswith("CLIP")
        usual = method.startswith("random") or tower == ("CLIP" if ours else "resnet50")
        name = name.replace("CLIP", tower) if ours or usual else f"{name} ({tower})"
        data = about["data"], row.get("values"), f"{row['images'] / 1000:.0f}k"
        comparable = usual and data == ("DeepFashion", OFFICIAL_VALUES, OFFICIAL_IMAGES["test"])
        for attribute, value in row["scores"].items():
            if attribute not in ("mean", "overall"):
                yield Score(name, attribute, [value], _basis(about), comparable)


def _crl(vlm: str, method: str, mark: str = "") -> str:
    """
    >>> _crl("CLIP", "paper"), _crl("CLIP", "posterior, standard", "*")
    ('CLIP+CRL', 'CLIP+CRL*, posterior, standard')
    """
    return ", ".join([f"{vlm}+CRL{mark}", *(p for p in method.split(", ") if p != "paper")])


def _basis(about: dict[str, Any]) -> str:
    return f"{about['basis']} ({about['texts']})" if "texts" in about else "-"


class Task(NamedTuple):
    title: str
    package: str  # its module `tables` has `table` and `notes`
    number: int  # of its table in the paper
    places: Callable[[Rows], Iterator[Score]]

    def read(self, rows: Rows) -> tuple[Table, list[str], list[Score]]:
        """The table of its results, notes on it, and their places in the paper's table."""
        tables = import_module(f"{self.package}.tables")
        try:
            table = tables.table(rows, f"{self.title}, percent")
            return table, tables.notes(rows), list(self.places(rows))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"a results.json of {self.package} lacks what its table needs "
                            f"({error!r}); remove it and run the task again") from error  # fmt: skip


class Problems(list[str]):
    """What is wrong with the files that are left out."""

    def unless(self, read: Callable[..., Any], *arguments: Any) -> list[Any]:
        """What `read` gives, as a list of one; an empty list after a problem."""
        try:
            return [read(*arguments)]
        except UserError as error:
            self.append(str(error))
            return []


LABELLED = "classification_clustering"
TASKS = {  # folder in outputs/
    "clustering": Task("Clustering", LABELLED, 2, classification),
    "few_shot": Task("Few-shot classification", LABELLED, 1, classification),
    "similarity_retrieval": Task("Similarity retrieval", "similarity_retrieval", 3, similarity),
    "fashion_retrieval": Task("Fashion retrieval", "fashion_retrieval", 4, fashion),
}
