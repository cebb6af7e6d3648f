"""A table of the paper, with all that a reader must know of it, from the outcomes of its runs."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from typing import Any, get_args

from pydantic import BaseModel

from crl.basis import TextBasis, basis_label
from crl.run.tables import Score
from paper_tables.grids import Found, Grid, Verdict, grids, published
from paper_tables.plan import Plan, Run, Settings, TablePlan, resolve
from paper_tables.tasks import TASKS


class Document(BaseModel):
    """A table with all that a reader must know; outputs/tables/table<N>.json.

    Attributes:
        plain: in place of grids, a header and rows of texts (Table 8).
        varied: what an ablation varies.
        about: VLMs, bases, options, commit and date. commands: what made it.
        not_run: what is missing, and why.
    """

    number: int
    title: str
    demo: bool
    note: str = ""
    grids: list[Grid] = []
    plain: list[list[str]] = []
    varied: str = ""
    figure: str = ""
    about: list[str] = []
    commands: list[str] = []
    not_run: list[str] = []

    @property
    def verdicts(self) -> list[Verdict]:
        return [n.verdict for grid in self.grids for row in grid.rows for n in row.numbers]

    @property
    def said(self) -> str:
        """`18 reproduced, 2 differs`."""
        counts = Counter(self.verdicts)
        return ", ".join(f"{counts[v]} {v}" for v in get_args(Verdict) if counts[v])


@dataclass
class Outcome:
    """What became of a run.

    Attributes:
        cells: its results.
        missing: what it lacks, and where to get it.
        failed: what is wrong.
    """

    cells: list[dict[str, Any]] = field(default_factory=list)
    missing: str = ""
    failed: str = ""

    @property
    def not_run(self) -> str:
        """Why there are no results; empty if there are."""
        return "" if self.cells else self.failed or self.missing


def make(
    plan: Plan,
    number: int,
    rows: dict[str, list[Run]],
    outcomes: dict[str, Outcome],
    settings: Settings,
) -> Document:
    """A table of the paper.

    Args:
        rows: the runs of each row, see `resolve`.
        outcomes: of each run, by its command.
    """
    table = plan.tables[number]
    document = Document(
        number=number, title=table.title, demo=settings.demo, note=table.note, varied=table.varied
    )
    if not table.paper:
        document.plain = _bases_in_use(plan, settings)
        return document
    paper = published(table.paper)
    found: list[Found] = []
    cells: list[dict[str, Any]] = []
    not_run: dict[str, list[str]] = {}  # why -> which runs
    for row, runs in rows.items():
        why = {run.command: outcomes[run.command].not_run or run.partly for run in runs}
        incomplete = {run.task for run in runs if why[run.command]}
        for run in runs:
            if why[run.command]:
                not_run.setdefault(why[run.command], []).append(f"{row} {run.name}".strip())
            of_run = outcomes[run.command].cells
            cells += of_run
            if run.task in paper and run.task in incomplete:
                continue  # Tables 10 to 13: a mean over all criteria needs them all
            for score in TASKS[run.task].tables.scores(of_run):
                if placed := _row(score, row, run, table, settings):
                    found.append(Found(placed, run.task, score))
    document.grids = grids(table, paper, found, plan.tolerance, settings.demo, settings.quick)
    document.about = _about(cells, settings)
    every = [one for runs in rows.values() for run in runs for one in run.in_order]
    document.commands = list(dict.fromkeys(run.command for run in every))
    document.not_run = [f"{why} ({', '.join(names)})" for why, names in not_run.items()]
    return document


def _row(score: Score, row: str, run: Run, table: TablePlan, settings: Settings) -> str:
    """The row of a score; none if it is not of the method that an ablation varies."""
    if not table.varied:
        return score.row
    method = table.method.removeprefix("CLIP")
    if settings.demo:
        method = method.rstrip("*")  # its VLM is not trained
    name = f"{row}, {run.vlm}" if settings.vlm else row
    return name if score.row.endswith(method) else ""


def _bases_in_use(plan: Plan, settings: Settings) -> list[list[str]]:
    """A header, and a row for each text basis of the tables."""
    rows = {}
    for number in plan.tables:
        for runs in resolve(plan, number, settings).values():
            for file in [file for run in runs for file in run.bases.values()]:
                basis = TextBasis.load(file)
                few = ", ".join(basis.texts[:4])
                source = basis.provenance.get("model") or basis.provenance.get("repository", "-")
                row = [basis_label(file), str(len(basis.texts)), basis.vlm_prompt, few, basis.hash]
                rows[file] = [*row, str(source)]
    header = ["text basis", "texts", "VLM prompt", "the first texts", "hash", "from"]
    return [header, *rows.values()]


def _about(cells: list[dict[str, Any]], settings: Settings) -> list[str]:
    """What a reader must know of the results: VLMs, bases, options, commit, date."""

    def listed(what: str, values: list[Any]) -> list[str]:
        distinct = list(dict.fromkeys(str(value) for value in values if value is not None))
        return [f"{what}: {', '.join(distinct)}"] if distinct else []

    lines = []
    if settings.demo:
        lines.append("Drawn data and the demo VLM: an illustration, no result on the paper's data")
    if settings.quick:
        lines.append("--quick: few seeds and short trainings, not the paper's protocol")
    lines += listed("VLM (fingerprint)", [f"{c['vlm']} ({c['vlm_fingerprint']})" for c in cells])
    bases = [f"{c['basis']} ({c['texts']} texts, {c['basis_hash']})" for c in cells if "basis" in c]
    lines += listed("Text bases (hash)", bases)
    for key in ("seeds", "shots", "image_vector", "weight", "tie_policy", "sharpness", "precision"):
        lines += listed(key, [c["config"].get(key) for c in cells if "config" in c])
    commits = [
        f"{(e.get('commit') or 'unknown')[:10]}{' (edited)' if e.get('dirty') else ''}"
        for e in [cell.get("environment", {}) for cell in cells]
    ]
    lines += listed("Commit", commits)
    return [*lines, f"Date of the table: {date.today()}"]
