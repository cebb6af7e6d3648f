"""The numbers of a table: the paper's and ours, the difference, and a verdict on each."""

import json
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from pydantic import BaseModel

from crl.run.tables import Score
from paper_tables.plan import CONFIGS, TablePlan, Tolerance

Verdict = Literal["reproduced", "differs", "not compared", "measured", "quoted", "not run"]
Published = dict[str, dict[str, dict[str, float]]]  # group -> row -> column -> number


class Number(BaseModel):
    """One place of a table; all numbers in percent or percentage points.

    Attributes:
        verdict: `measured` where the paper has no number.
        ours: the mean over seeds. std: the sample standard deviation over seeds.
        tolerance: the largest difference that counts as reproduced.
    """

    paper: float | None = None
    ours: float | None = None
    std: float | None = None
    seeds: int = 0
    difference: float | None = None
    tolerance: float | None = None
    verdict: Verdict = "not run"


class Row(BaseModel):
    """A method, or a setting of an ablation; quoted: only in the paper, ours: beyond it."""

    name: str
    kind: Literal["paper", "quoted", "ours"]
    numbers: list[Number]


class Grid(BaseModel):
    """A part of a table that has columns of its own, as the paper prints it."""

    name: str
    columns: list[str]
    rows: list[Row]


class Found(NamedTuple):
    """A score in its place.

    Attributes:
        row: of the table.
        task: the script's folder in outputs/.
    """

    row: str
    task: str
    score: Score


def published(name: str) -> Published:
    """A table of configs/paper_tables.json; `clevr4-10k:count/nmi` is `count/nmi` here."""
    tables = json.loads((CONFIGS / "paper_tables.json").read_text(encoding="utf-8"))
    return {
        group: {
            row: {column.rpartition(":")[2]: value for column, value in numbers.items()}
            for row, numbers in rows.items()
        }
        for group, rows in tables[name].items()
    }


def grids(
    table: TablePlan,
    paper: Published,
    found: list[Found],
    tolerance: Tolerance,
    demo: bool = False,
    quick: bool = False,
) -> list[Grid]:
    """The groups of the paper's table, with our numbers beside the paper's.

    Args:
        found: all scores; those of a row that did not run are missing.
        demo: without the paper's numbers, and without rows that only the paper has.
        quick: no protocol of the paper, so nothing is compared.
    """
    whole = []
    for name, published_rows in paper.items():
        columns = [column for column in next(iter(published_rows.values())) if column != "std"]
        only_mean = columns == ["mean"]  # of a task, over all criteria and metrics
        mine: dict[str, dict[str, Score]] = {}
        for one in found:
            if one.task == name if only_mean else one.score.column in columns:
                mine.setdefault(one.row, {})[one.score.column] = one.score
        known = {row: {} for row in table.all_rows(demo) if row} if demo else published_rows
        rows = []
        for row in dict.fromkeys([*known, *mine]):
            scores, numbers = mine.get(row, {}), known.get(row, {})
            kind = "ours" if row not in known else "quoted" if row in table.quoted else "paper"
            averaged = list(scores) if only_mean else [c for c in columns if c != "mean"]
            found_numbers = []
            for column in columns:
                parts = averaged if column == "mean" else [column]
                values = _mean_by_seed([scores[c].values for c in parts if c in scores])
                if not parts or any(c not in scores for c in parts):
                    values = []
                number = _number(values, numbers.get(column))
                number.verdict = "quoted" if kind == "quoted" else "measured"
                if kind == "paper" and not demo:
                    trained = row in table.trained or table.method in table.trained
                    fixed = tolerance.training if trained else tolerance.fixed
                    comparable = not quick and all(scores[c].comparable for c in parts if values)
                    spread = tolerance.standard_errors, numbers.get("std")
                    _judge(number, comparable, fixed, *spread)
                elif not values and kind != "quoted":
                    number.verdict = "not run"
                found_numbers.append(number)
            rows.append(Row(name=row, kind=kind, numbers=found_numbers))
        whole.append(Grid(name=name, columns=columns, rows=rows))
    return whole


def _mean_by_seed(values: Sequence[Sequence[float]]) -> list[float]:
    """The mean over columns for each seed; over all if the columns have other seeds.

    >>> _mean_by_seed([[1.0, 2.0], [3.0, 6.0]])
    [2.0, 4.0]
    """
    if len({len(one) for one in values}) == 1:
        return [fmean(of_seed) for of_seed in zip(*values, strict=True)]
    return [fmean(map(fmean, values))] if values else []


def _number(values: list[float], paper: float | None) -> Number:
    if not values:
        return Number(paper=paper)
    ours, std = fmean(values), stdev(values) if len(values) > 1 else None
    difference = None if paper is None else ours - paper
    return Number(paper=paper, ours=ours, std=std, seeds=len(values), difference=difference)


def _judge(
    number: Number, comparable: bool, fixed: float, standard_errors: float, std: float | None
) -> None:
    """Compare with the paper's number.

    With seeds, the difference of two means over n seeds with standard deviations s and t has the
    standard error sqrt((s² + t²) / n). The paper says its own, t, only in Tables 10 to 13; else it
    is taken to be ours. Half a unit in the paper's last digit is added.

    Args:
        fixed: the tolerance of a number that has no seeds.
        std: the paper's standard deviation over seeds.
    """
    if number.ours is None:
        number.verdict = "not run"
    elif not comparable or number.paper is None:
        number.verdict = "not compared"
    else:
        number.tolerance = fixed
        if number.std is not None:
            spread = number.std**2 + (number.std if std is None else std) ** 2
            number.tolerance = standard_errors * math.sqrt(spread / number.seeds) + 0.005
        close = abs(number.difference) <= number.tolerance
        number.verdict = "reproduced" if close else "differs"
