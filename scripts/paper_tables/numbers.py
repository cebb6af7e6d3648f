"""The numbers of a table: the paper's and ours, the difference, and a verdict on each."""

import json
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from paper_tables.places import Score
from paper_tables.plan import PaperTable
from paper_tables.runs import CONFIGS, Settings

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


Parts = dict[str, dict[str, dict[str, Number]]]  # part of a table: row: column: number


def published(number: int) -> Published:
    """A table of configs/paper_tables.json; `clevr4-10k:count/nmi` is `count/nmi` here."""
    tables = json.loads((CONFIGS / "paper_tables.json").read_text(encoding="utf-8"))
    parts = next((t for name, t in tables.items() if name.startswith(f"table{number}_")), {})
    for rows in parts.values():
        for row, numbers in rows.items():
            rows[row] = {column.rpartition(":")[2]: value for column, value in numbers.items()}
    return parts


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
    if len({len(score.values) for score in scores}) == 1:
        return [fmean(of_seed) for of_seed in zip(*(s.values for s in scores), strict=True)]
    return [fmean(fmean(score.values) for score in scores)] if scores else []


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
