"""Result rows -> their places in the paper's tables, the differences, and a verdict on each."""

import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from statistics import fmean, stdev
from typing import Any, NamedTuple

from crl.run.errors import UserError
from crl.run.tables import Table
from fashion_retrieval.datasets import OFFICIAL_IMAGES, OFFICIAL_VALUES
from paper_tables.plan import PaperTable
from paper_tables.runs import CONFIGS, Settings

Rows = list[dict[str, Any]]  # of a results.json

IMAGES = {"clevr4": 10531, "cards": 8029}  # of the paper's data sets
NAMES = {"clip": "CLIP", "align": "ALIGN", "metaclip": "MetaCLIP", "blip2": "BLIP2"}
# GeneCIS's own templates: task, number of templates, number of distinct images.
TEMPLATES = {("focus_object", 1960, 2198), ("change_object", 1960, 2739)}
FASHION = {  # method: its row in Table 4; all others are CRL without training
    "random": "Random", "random draw": "Random, one draw", "triplet": "Triplet", "csn": "CSN",
    "asen": "ASEN", "asen_pp": "ASEN++", "rpf": "RPF",
    "asen_pp-stage1": "ASEN++, stage 1 only", "rpf-stage1": "RPF, stage 1 only",
    "universal": "CLIP", "crl-mlp": "CLIP+CRL, heads only", "crl": "CLIP+CRL",
}  # fmt: skip
RIVALS = {  # method: its row in Tables 2 and 3
    "cc": "CC", "scan": "SCAN", "multi_map": "Multi-Map",
    "pic2word": "Pic2Word", "searle": "SEARLE", "lincir": "LinCIR",
}  # fmt: skip


class Score(NamedTuple):
    row: str  # method, e.g. `CLIP+CRL`
    column: str  # e.g. `color/nmi`, `color/5` (5 shots), `focus/R@1`
    values: list[float]  # in percent, one for each seed
    basis: str  # - without one
    comparable: bool  # measured as in the paper: whole data, the paper's VLM and settings


def classification(rows: Rows) -> Iterator[Score]:
    """Tables 1 and 2; RI and AMI are not the paper's, and so not part of its means. Rivals are not
    comparable, here and in Table 3: the settings behind the paper's rows are not known."""
    for row in rows:
        about, vlm = row["about"], NAMES.get(row["about"]["vlm"], row["about"]["vlm"])
        if about["method"] == "zero-shot":
            continue
        name = vlm if about["method"] == "universal" else _crl(vlm, about["method"])
        comparable = about["vlm"] in NAMES and row["images"] == IMAGES.get(about["data"])
        if "rival" in about:
            name, comparable = _rival(about["method"], vlm, ("-", "CLIP")), False
        for metric, score in row["scores"].items():
            column = f"{about['criterion']}/{metric.removesuffix('-shot')}"
            if metric not in ("ri", "ami"):
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
        if "rival" in about:
            name, comparable = _rival(method, vlm, ("CLIP",)), False
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


def _rival(method: str, vlm: str, usual: Sequence[str]) -> str:
    """The row of a rival: with a prompt other than `that`, or with an unusual VLM, one of its own.

    >>> _rival("lincir, that", "CLIP", ["CLIP"]), _rival("lincir, released", "demo", ["CLIP"])
    ('LinCIR', 'LinCIR (demo), released')
    """
    name, prompt = re.fullmatch(r"(.*?)(?:, (\w+))?", method).groups()
    name = RIVALS.get(name, name) + ("" if vlm in usual else f" ({vlm})")
    return name if prompt in (None, "that") else f"{name}, {prompt}"


def _basis(about: dict[str, Any]) -> str:
    return f"{about['basis']} ({about['texts']})" if "texts" in about else "-"


class Task(NamedTuple):
    title: str
    package: str  # its module `tables` has `table` and `notes`
    number: int  # of its table in the paper; 0: none
    places: Callable[[Rows], Iterator[Score]]

    def read(self, rows: Rows) -> tuple[Table, list[str], list[Score]]:
        """The table of its results, notes on it, and their places in the paper's table."""
        tables = import_module(f"{self.package}.tables")
        try:
            table = tables.table(rows, f"{self.title}, percent")
            return table, tables.notes(rows), list(self.places(rows))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            lacks = f"a results.json of {self.package} lacks what its table needs ({error!r})"
            raise UserError(f"{lacks}; remove it and run the task again") from error


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
    "retrieval": Task("Retrieval under a criterion", LABELLED, 0, lambda rows: iter(())),
    "similarity_retrieval": Task("Similarity retrieval", "similarity_retrieval", 3, similarity),
    "fashion_retrieval": Task("Fashion retrieval", "fashion_retrieval", 4, fashion),
}

VERDICTS = ("reproduced", "differs", "not compared", "measured", "quoted", "not run")
# Percentage points within which a result counts as reproduced.
STANDARD_ERRORS = 2  # with seeds: of the difference of the two means over seeds, and the rounding
FIXED = 0.3  # nothing is random: ties and rounding on another machine
TRAINING = 1.0  # one training: the paper gives no spread; this is our guess
Published = dict[str, dict[str, dict[str, float]]]  # part of a table: row: column: number


class Number(NamedTuple):  # in percent or percentage points
    kind: str  # of its row: `paper`, `quoted` (only the paper has it) or `ours` (beyond the paper)
    paper: float | None = None
    ours: float | None = None  # the mean over seeds
    std: float | None = None  # the sample standard deviation over seeds
    seeds: int = 0
    difference: float | None = None
    tolerance: float | None = None  # the largest difference that counts as reproduced
    verdict: str = "not run"  # one of `VERDICTS`; `measured` where the paper has no number
    footnote: str = ""  # why the paper's number is doubtful


Parts = dict[str, dict[str, dict[str, Number]]]  # part of a table: row: column: number


def published(number: int) -> Published:
    """A table of configs/paper_tables.json; `clevr4-10k:count/nmi` is `count/nmi` here."""
    tables = json.loads((CONFIGS / "paper_tables.json").read_text(encoding="utf-8"))
    parts = next((t for name, t in tables.items() if name.startswith(f"table{number}_")), {})
    for rows in parts.values():
        for row, numbers in rows.items():
            rows[row] = {column.rpartition(":")[2]: value for column, value in numbers.items()}
    return parts


def table_notes(kind: str) -> dict[str, list[Any]]:
    """A part of configs/table_notes.json: {number of a table: its notes}"""
    return json.loads((CONFIGS / "table_notes.json").read_text(encoding="utf-8"))[kind]


def with_footnotes(parts: Parts, number: int) -> Parts:
    """The same, with why numbers of the paper are doubtful."""
    for note in table_notes("doubtful").get(str(number), []):
        for rows in parts.values():
            for row in rows.keys() & set(note["rows"]):
                for column, cell in rows[row].items():
                    if cell.paper is not None and column in note.get("columns", [column]):
                        rows[row][column] = cell._replace(footnote=note["why"])
    return parts


def neighbours(task: str) -> list[Table]:
    """What others publish on the data of a task (configs/neighbours.json). These tables hold their
    numbers alone."""
    content = json.loads((CONFIGS / "neighbours.json").read_text(encoding="utf-8"))
    tables = []
    for group in content[task]:
        columns = list(dict.fromkeys(c for row in group["rows"] for c in row["numbers"]))
        rows = [
            [f"{row['method']}; {row['backbone']}; from {row['read in']}"]
            + [str(row["numbers"].get(column, "")) for column in columns]
            for row in group["rows"]
        ]
        title = f"Quoted from others, not measured here: {group['setting']}"
        tables.append(Table(title, ["method; backbone; from", *columns], rows))
    return tables


def compare(
    table: PaperTable, paper: Published, placed: list[tuple[str, str, Score]], s: Settings
) -> Parts:
    """Our scores (`placed`: row, task, score) beside the paper's numbers. A demo has no numbers or
    rows of the paper; after --quick nothing is compared."""
    parts: Parts = {}
    for part, printed in paper.items():
        columns = [column for column in next(iter(printed.values())) if column != "std"]
        ours: dict[str, dict[str, Score]] = {}
        for row, task, score in placed:
            if score.column in columns or task == part:  # Tables 10 to 13 have a task as part
                ours.setdefault(row, {})[score.column] = score
        expected = {row: {} for row in table.runs if row} if s.demo else printed
        for row in dict.fromkeys([*expected, *ours]):
            kind = "quoted" if row in table.quoted else "paper" if row in expected else "ours"
            trained = row in table.trained or (table.varied and table.method in table.trained)
            numbers, scores = expected.get(row, {}), ours.get(row, {})
            for column in columns:
                averaged = [column]
                if column == "mean":
                    averaged = [c for c in columns if c != "mean"] or list(scores)
                present = [scores[c] for c in averaged if c in scores]
                values = _mean_by_seed(present) if len(present) == len(averaged) else []
                comparable = not s.quick and all(score.comparable for score in present)
                number = Number(kind, numbers.get(column))
                fixed, std = TRAINING if trained else FIXED, numbers.get("std")
                judged = _judge(number, values, comparable, fixed, std)
                parts.setdefault(part, {}).setdefault(row, {})[column] = judged
    return parts


def _mean_by_seed(scores: Sequence[Score]) -> list[float]:
    """The mean over columns for each seed; over all if the columns have other seeds."""
    if len({len(score.values) for score in scores}) > 1:
        return [fmean(fmean(score.values) for score in scores)]
    return [fmean(of_seed) for of_seed in zip(*(s.values for s in scores), strict=True)]


def _judge(
    number: Number, values: list[float], comparable: bool, fixed: float, std: float | None
) -> Number:
    """With seeds, the difference of two means over n seeds with standard deviations s and t has the
    standard error sqrt((s² + t²) / n). The paper says its own, t (`std`), only in Tables 10 to 13;
    else it is taken to be ours. Half a unit in the paper's last digit is added. `fixed` is the
    tolerance of a number that has no seeds.
    """
    if not values:
        return number._replace(verdict="quoted" if number.kind == "quoted" else "not run")
    ours, spread = fmean(values), stdev(values) if len(values) > 1 else None
    number = number._replace(ours=ours, std=spread, seeds=len(values), verdict="measured")
    if number.paper is None:
        return number
    number = number._replace(difference=ours - number.paper, verdict="not compared")
    if not comparable:
        return number
    if spread is not None:
        error = math.sqrt((spread**2 + (spread if std is None else std) ** 2) / len(values))
        fixed = STANDARD_ERRORS * error + 0.005
    verdict = "reproduced" if abs(number.difference) <= fixed else "differs"
    return number._replace(tolerance=fixed, verdict=verdict)
