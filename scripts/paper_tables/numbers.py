"""The numbers of a table: the paper's and ours, the difference, and a verdict on each."""

import json
import math
from collections.abc import Sequence
from statistics import fmean, stdev
from typing import NamedTuple

from paper_tables.places import Score
from paper_tables.plan import PaperTable
from paper_tables.runs import CONFIGS

VERDICTS = ("reproduced", "differs", "not compared", "measured", "quoted", "not run")
# Percentage points within which a result counts as reproduced.
STANDARD_ERRORS = 2  # with seeds: of the difference of the two means over seeds, and the rounding
FIXED = 0.3  # nothing is random: ties and rounding on another machine
TRAINING = 1.0  # one training: the paper gives no spread; this is our guess
Published = dict[str, dict[str, dict[str, float]]]  # part of a table: row: column: number


class Number(NamedTuple):
    """One place of a table; all numbers in percent or percentage points."""

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
    table: PaperTable,
    paper: Published,
    placed: Sequence[tuple[str, str, Score]],
    demo: bool = False,
    quick: bool = False,
) -> Parts:
    """Our numbers beside the paper's.

    Args:
        placed: our scores, each after its row and its task (folder in outputs/).
        demo: without the paper's numbers, and without rows that only the paper has.
        quick: no protocol of the paper, so nothing is compared.
    """
    parts: Parts = {}
    for part, printed in paper.items():
        columns = [column for column in next(iter(printed.values())) if column != "std"]
        ours: dict[str, dict[str, Score]] = {}
        for row, task, score in placed:
            if score.column in columns or task == part:  # Tables 10 to 13 have a task as part
                ours.setdefault(row, {})[score.column] = score
        expected = {row: {} for row in table.runs if row} if demo else printed
        for row in dict.fromkeys([*expected, *ours]):
            kind = "quoted" if row in table.quoted else "paper" if row in expected else "ours"
            trained = row in table.trained or (table.varied and table.method in table.trained)
            numbers, scores = expected.get(row, {}), ours.get(row, {})
            for column in columns:
                averaged = [column]
                if column == "mean":
                    averaged = [c for c in columns if c != "mean"] or list(scores)
                present = [scores[c] for c in averaged if c in scores]
                values = zip(*(score.values for score in present), strict=True)  # of each seed
                parts.setdefault(part, {}).setdefault(row, {})[column] = _judge(
                    Number(kind, numbers.get(column)),
                    [*map(fmean, values)] if len(present) == len(averaged) else [],
                    comparable=not quick and all(score.comparable for score in present),
                    fixed=TRAINING if trained else FIXED,
                    std=numbers.get("std"),
                )
    return parts


def _judge(
    number: Number, values: list[float], comparable: bool, fixed: float, std: float | None
) -> Number:
    """Compare our values, one for each seed, with the paper's number.

    With seeds, the difference of two means over n seeds with standard deviations s and t has the
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
