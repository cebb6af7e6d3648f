"""The paper's thirteen tables: run what is missing, and put our numbers beside the paper's.

    python scripts/reproduce_tables.py --table all --dry-run
    python scripts/reproduce_tables.py --table 1 2 --vlm clip
    python scripts/reproduce_tables.py --table all --demo

Runs what configs/tables.yaml says, with the data in --data, and skips what is finished. What is
missing is named, and the rest goes on. Writes <outputs>/tables/table<N>.{md,csv,tex,html,json}, a
figure of each ablation, and <outputs>/index.html, a page with all results. `reproduced` is a
difference within a tolerance, which comes from the spread over seeds. The text bases are the
authors', if they were imported (scripts/import_official_bases.py), else ours.

    python scripts/reproduce_tables.py --runs outputs/clustering/demo-clevr4 --format md

prints the results of any runs instead, and those of the paper beside them; `--runs` without a
folder takes all in --outputs. With --page, it writes the page too.

Exit code: 0 if every number that was compared is reproduced (with --strict: and none is missing),
1 if not, 2 after a mistake.
"""

from crl.run.command import advice, command, one_line

import argparse
import sys
from collections import Counter
from pathlib import Path

from paper_tables import formats, page
from paper_tables.documents import Document, Outcome, make
from paper_tables.dry_run import DryRun
from paper_tables.grids import Published, published
from paper_tables.plan import CONFIGS, Plan, Run, Settings, resolve
from paper_tables.tasks import TASKS

from crl.run.errors import ArgumentParser, Missing, UserError
from crl.run.files import alone_in
from crl.run.results import read_cells
from crl.run.tables import FORMATS, Score, Table
from crl.vlm import find_vlm


@command
def main(argv: list[str]) -> None:
    arguments = parse(argv)
    sys.exit(reproduce(arguments) if arguments.table else show_runs(arguments))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--table", nargs="+", default=[], metavar="N", help="1 to 13, or all")
    add("--demo", action="store_true", help="the demo's drawn data and its VLM")
    add("--dry-run", action="store_true", help="print what would be run")
    add("--quick", action="store_true", help="few seeds, short trainings; no verdict")
    add("--strict", action="store_true", help="what did not run counts as not reproduced")
    add("--vlm", nargs="+", default=[], help="VLMs in place of the plan's")
    add("--data", type=Path, help="folder of the data sets (default: data; with --demo data/demo)")
    add("--outputs", type=Path, help="default: outputs; with --quick outputs/quick")
    add(
        "--official",
        type=Path,
        default=Path("configs/official_bases"),
        metavar="FOLDER",
        help="the authors' text bases (default: %(default)s)",
    )
    add("--plan", type=Path, default=CONFIGS / "tables.yaml", metavar="FILE", help="another plan")
    add("--runs", nargs="*", type=Path, metavar="FOLDER", help="print runs: outputs/<task>/<name>")
    add("--format", choices=FORMATS, default="text", help="of --runs (default: %(default)s)")
    add("--page", action="store_true", help="with --runs: write <outputs>/index.html too")
    arguments = parser.parse_args(argv)
    if bool(arguments.table) == (arguments.runs is not None):
        raise UserError("say --table N, --table all, or --runs; see --help")
    quick = "-quick" if arguments.quick else ""
    for name in arguments.vlm:
        find_vlm(name)
    arguments.data = arguments.data or Path(f"data/demo{quick}" if arguments.demo else "data")
    arguments.outputs = arguments.outputs or Path("outputs", "quick" if quick else "")
    return arguments


# --- tables of the paper --------------------------------------------------------------------------


def reproduce(arguments: argparse.Namespace) -> int:
    """Run what the tables need and write them; -> the exit code."""
    plan = Plan.load(arguments.plan)
    names = ("data", "outputs", "official", "vlm", "demo", "quick")
    settings = Settings(*(getattr(arguments, name) for name in names))
    wrong = False
    rows: dict[int, dict[str, list[Run]]] = {}
    for number in chosen(arguments.table, plan):
        try:
            rows[number] = resolve(plan, number, settings)
        except UserError as error:
            wrong = complain(f"table {number}: {error}")
    if arguments.dry_run:
        planned = DryRun(plan, rows, settings)
        print("\n".join(planned.lines))
        return 2 if wrong or planned.wrong else 0
    with alone_in(settings.outputs / "tables"):
        outcomes = execute([run for of in rows.values() for runs in of.values() for run in runs])
        documents = [make(plan, number, of, outcomes, settings) for number, of in rows.items()]
        for document in documents:
            formats.write(document, settings.outputs / "tables")
    print()
    for document in documents:
        print(f"table {document.number}: {document.said or 'no scores'}. {document.title}")
    print(f"tables: {settings.outputs / 'tables'}")
    wrong = wrong or any(outcome.failed for outcome in outcomes.values())
    wrong = write_page(settings.outputs) or wrong
    return 2 if wrong else verdict(documents, arguments.strict)


def chosen(names: list[str], plan: Plan) -> list[int]:
    """The numbers of the tables.

    Raises:
        UserError: a table that the plan does not have.
    """
    if names == ["all"]:
        return list(plan.tables)
    known = {str(number): number for number in plan.tables}
    for name in names:
        if name not in known:
            raise UserError(f"unknown table {name!r}; known: {', '.join(known)}, or all")
    return [known[name] for name in dict.fromkeys(names)]


def execute(wanted: list[Run]) -> dict[str, Outcome]:
    """Run all, each after those that it needs; what goes wrong ends only its own run.

    Returns:
        the outcome of each by its command.
    """
    runs = {run.command: run for one in wanted for run in one.in_order}
    outcomes: dict[str, Outcome] = {}
    reasons: dict[str, int] = {}  # why something does not run -> its number
    known: dict = {}  # scores of I, which do not depend on the text basis
    for place, run in enumerate(runs.values(), start=1):
        print(f"{place}/{len(runs)}  {run.name}", flush=True)
        before = [outcomes[one.command] for one in run.first]
        outcome = outcomes[run.command] = attempt(run, before, known)
        if why := outcome.not_run:
            new = "" if why in reasons else f": {one_line(why)}"
            print(f"  not run [{reasons.setdefault(why, len(reasons) + 1)}]{new}")
    return outcomes


def attempt(run: Run, before: list[Outcome], known: dict) -> Outcome:
    """Run it, or take the results that another machine left.

    Args:
        before: the outcomes of the runs that it needs.
        known: see `Run.do`.
    """
    outcome = Outcome()
    try:
        if lacking := [why for one in before if (why := one.failed or one.missing)]:
            raise Missing("; ".join(dict.fromkeys(lacking)))
        outcome.cells = run.do(known)
    except Missing as error:
        outcome.missing = str(error)
    except Exception as error:
        outcome.failed = advice(error) or ""
        if not outcome.failed:
            raise
    if outcome.missing:
        try:
            outcome.cells = run.kept()
        except UserError as error:
            outcome.failed = str(error)
    if outcome.failed:
        complain(outcome.failed)
    return outcome


def verdict(documents: list[Document], strict: bool) -> int:
    """1 if a number differs from the paper's, or (strict) was not found; else 0."""
    counts = Counter(verdict for document in documents for verdict in document.verdicts)
    return 1 if counts["differs"] or (strict and counts["not run"]) else 0


def write_page(outputs: Path) -> bool:
    """Write the page and say where it is; -> was any file damaged?"""
    written, problems = page.write(outputs)
    for problem in problems:
        complain(problem)
    print(f"page: {written}")
    return bool(problems)


def complain(message: str) -> bool:
    """One line on stderr; the rest goes on."""
    print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
    return True


# --- any runs -------------------------------------------------------------------------------------


def show_runs(arguments: argparse.Namespace) -> int:
    """Print the tables of runs; a damaged one does not stop the others. -> the exit code."""
    folders = arguments.runs or sorted(
        file.parent for task in TASKS for file in arguments.outputs.glob(f"{task}/*/results.json")
    )
    cells: dict[str, list] = {}
    wrong = False
    for folder in folders:
        task = folder.resolve().parent.name
        try:
            if task not in TASKS:
                raise UserError(
                    f"{folder} is no run of {' or '.join(TASKS)}: outputs/<task>/<name>"
                )
            found = read_cells(folder / "results.json")
            cells.setdefault(task, []).extend(found)
        except UserError as error:
            wrong = complain(str(error))
    parts = []
    for task, found in cells.items():
        try:
            parts += printed(task, found, arguments.format)
        except UserError as error:
            wrong = complain(str(error))
    if parts:
        print("\n\n".join(parts))
    if arguments.page:
        wrong = write_page(arguments.outputs) or wrong
    return 2 if wrong else 0


def printed(task: str, cells: list, form: str) -> list[str]:
    """The table of a task, with the paper's numbers beside ours, and notes."""
    of = TASKS[task]
    try:
        table, scores = of.tables.table(cells, f"{of.title}, percent"), of.tables.scores(cells)
        parts = [table, *comparison(published(of.paper), list(scores))]
        notes = "\n".join(f"note: {note}" for note in of.tables.notes(cells))
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"a results.json of {task} lacks what its table needs ({error!r}); run it again"
        ) from error
    return [
        *(FORMATS[form](part) for part in parts),
        *([notes] if notes and form == "text" else []),
    ]


def comparison(paper: Published, scores: list[Score]) -> list[Table]:
    """The paper's numbers beside ours, of scores that can be compared."""
    known: dict[str, dict[str, float]] = {}
    for rows in paper.values():
        for row, columns in rows.items():
            known.setdefault(row, {}).update(columns)
    shown = []
    for score in scores:
        value = known.get(score.row, {}).get(score.column)
        if score.comparable and value is not None:
            ours = sum(score.values) / len(score.values)
            numbers = [f"{value:.2f}", f"{ours:.2f}", f"{ours - value:+.2f}"]
            shown.append([score.row, score.basis, score.column, *numbers])
    distinct = list(map(list, dict.fromkeys(map(tuple, shown))))
    header = ["method", "basis", "column", "paper", "ours", "difference"]
    return [Table("The paper's numbers beside ours", header, distinct, left=3)] if shown else []


if __name__ == "__main__":
    main()
