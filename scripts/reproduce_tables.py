"""The paper's thirteen tables: run what is missing, and put our numbers beside the paper's.

    python scripts/reproduce_tables.py --table all --dry-run
    python scripts/reproduce_tables.py --table 1 2 --vlm clip
    python scripts/reproduce_tables.py --table all --demo

Runs what scripts/paper_tables/plan.py says, with the data in --data, and skips what is finished.
What is missing is named, and the rest goes on. Writes <outputs>/tables/table<N>.{md,csv,tex}, a
figure of each ablation, and <outputs>/index.html, a page with all results. `reproduced` is a
difference within a tolerance, which comes from the spread over seeds. Doubtful numbers of the paper
have a footnote (configs/table_notes.json). What others publish on the same data
(configs/neighbours.json) stands below, in tables of its own. The text bases are the authors', if
they were imported (scripts/import_official_bases.py), else ours. Exit code: 0 if every
number that was compared is reproduced (with --strict: and none is missing), 1 if not, 2 after a
mistake.

    python scripts/reproduce_tables.py --demo --rivals

trains the rivals of Tables 2, 3 and 4 too, days on the paper's data, and adds table<N>-rivals: what
each learns from, its costs and scores beside CRL's, and a figure. Without --rivals no training of a
rival starts, but what has ended is taken. Rivals keep the VLM of their configurations. CIG in the
demo needs drawings: first scripts/demo/draw_oracle.py.

    python scripts/reproduce_tables.py --runs outputs/clustering/demo-clevr4 --format md

prints the results of any runs instead, and those of the paper beside them; `--runs` without a
folder takes all in --outputs. With --page, it writes the page too.
"""

from crl.run.command import command, one_line

import argparse
import sys
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

from paper_tables import formats, numbers, rivals
from paper_tables.formats import Document
from paper_tables.numbers import TASKS, Problems, Score, compare, neighbours, published
from paper_tables.plan import PaperTable, paper_tables
from paper_tables.runs import Run, Settings

from crl.basis import TextBasis, basis_label
from crl.run.errors import ArgumentParser, UserError
from crl.run.files import alone_in
from crl.run.results import read_rows
from crl.run.tables import FORMATS, Table
from crl.vlm import find_vlm


@command
def main(argv: list[str]) -> None:
    arguments = parse(argv)
    sys.exit(reproduce(arguments) if arguments.table else show_runs(arguments))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__)
    add, official = parser.add_argument, Path("configs/official_bases")
    tables = [*map(str, range(1, 14)), "all"]
    add("--table", nargs="+", choices=tables, default=[], metavar="N", help="1 to 13, or all")
    add("--demo", action="store_true", help="the demo's drawn data and its VLM")
    add("--dry-run", action="store_true", help="print what would be run")
    add("--quick", action="store_true", help="few seeds, short trainings; no verdict")
    add("--rivals", action="store_true", help="train the rivals too; alone: tables 2, 3 and 4")
    add("--strict", action="store_true", help="what did not run counts as not reproduced")
    add("--vlm", nargs="+", default=[], help="VLMs in place of the paper's")
    add("--data", type=Path, help="folder of the data sets (default: data; with --demo data/demo)")
    add("--outputs", type=Path, help="default: outputs; with --quick outputs/quick")
    add("--official", type=Path, default=official, metavar="FOLDER", help="authors' text bases")
    add("--runs", nargs="*", type=Path, metavar="FOLDER", help="print runs: outputs/<task>/<name>")
    add("--format", choices=FORMATS, default="text", help="of --runs (default: %(default)s)")
    add("--page", action="store_true", help="with --runs: write <outputs>/index.html too")
    arguments = parser.parse_args(argv)
    if arguments.rivals and arguments.runs is None:
        arguments.table = arguments.table or [*map(str, rivals.TABLES)]
    if bool(arguments.table) == (arguments.runs is not None):
        raise UserError("say --table N, --table all, or --runs; see --help")
    for name in arguments.vlm:
        find_vlm(name)
    quick = "-quick" if arguments.quick else ""
    arguments.data = arguments.data or Path(f"data/demo{quick}" if arguments.demo else "data")
    arguments.outputs = arguments.outputs or Path("outputs", "quick" if quick else "")
    return arguments


def reproduce(a: argparse.Namespace) -> int:
    """-> the exit code"""
    s = Settings(a.data, a.outputs, a.official, a.vlm, a.demo, a.quick, a.rivals)
    tables = paper_tables(s)
    if "all" not in a.table:
        tables = {number: tables[number] for number in map(int, dict.fromkeys(a.table))}
    if a.dry_run:
        return 2 if execute(tables, dry=True)["wrong"] else 0
    with alone_in(folder := s.outputs / "tables"):
        states = execute(tables)
        documents = [make(number, table, s) for number, table in tables.items()]
        if s.rivals:
            for document in [d for d in documents if d.number in rivals.TABLES]:
                documents += beside_rivals(document, tables[document.number], folder)
        for document in documents:
            formats.write(document, folder)
            print(f"table {document.number}: {document.verdicts}. {document.title}")
    print(f"tables: {folder}")
    if show_page(s.outputs) or states["wrong"]:
        return 2
    counts = Counter(number.verdict for document in documents for number in document.numbers)
    return 1 if counts["differs"] or (a.strict and counts["not run"]) else 0


def execute(tables: dict[int, PaperTable], dry: bool = False) -> Counter[str]:
    """-> how many runs have which state"""
    states: dict[Run, str] = {}
    for number, table in tables.items():
        print(f"Table {number}. {table.title}")
        for row, run in table.in_order:
            print(f"  {row:11} {run.name:50}", end=" " if dry else "\n", flush=True)
            if run not in states:
                states[run] = run.do(dry)
                if states[run] == "wrong":
                    complain(run.reason)
            print(states[run])
    counts = Counter(states.values())
    print(f"{len(states)} runs: {', '.join(f'{n} {state}' for state, n in counts.items())}")
    for reason, n in Counter(run.reason for run in states if run.reason).items():
        print(f"{n} cannot be run: {reason}")
    if counts["lacks"]:
        print("scripts/check_data.py shows which data are there; scripts/download.py gets most")
    return counts


def make(number: int, table: PaperTable, s: Settings) -> Document:
    placed: list[tuple[str, str, Score]] = []
    not_run: dict[str, list[str]] = {}  # why: which runs
    paper = published(number)
    for row, runs in table.runs.items():
        incomplete = {run.task for run in runs if run.reason or run.partly}
        for run in runs:
            if reason := run.reason or run.partly:
                not_run.setdefault(reason, []).append(f"{row} {run.name}".strip())
            # In Tables 10 to 13 the mean is over all criteria: it needs them all.
            if run.rows and not (run.task in paper and run.task in incomplete):
                for score in TASKS[run.task].read(run.rows)[2]:
                    if name := row_of(score, row, run, table, s):
                        placed.append((name, run.task, score))
    every = list(dict.fromkeys(run for _, run in table.in_order))
    about = [made_with([row for run in every for row in run.rows])]
    about += ["Drawn data and the demo VLM: no result on the paper's data"] * s.demo
    about += ["--quick: not the paper's protocol"] * s.quick
    about += [f"Not run: {why} ({', '.join(names)})" for why, names in not_run.items()]
    parts = numbers.with_footnotes(compare(table, paper, placed, s), number)
    texts = None if paper else bases_in_use(s)
    commands = [run.command for run in every]
    tasks = [name for name, task in TASKS.items() if task.number == number and not s.demo]
    quoted = [table for task in tasks for table in neighbours(task)]
    return Document(number, table.title, table.varied, parts, texts, about, commands, quoted)


def beside_rivals(document: Document, table: PaperTable, folder: Path) -> list[Document]:
    """The table of a task's rivals, and its figure; none without results."""
    number, ending, notes = document.number, "-rivals", numbers.table_notes("rivals")
    entries = rivals.entries(number, [run for runs in table.runs.values() for run in runs])
    if not entries:
        return []
    shown = rivals.table(number, entries)
    rivals.draw(shown, entries, folder / f"table{number}{ending}.png")
    about = [f"note: {note}" for note in notes[str(number)] + notes["all"]] + document.about
    return [Document(number, "Its rivals", "", {}, shown, about, document.commands, ending=ending)]


def made_with(rows: list[dict[str, Any]]) -> str:
    words = [f"{row['about']['vlm']} {row['about'].get('vlm_fingerprint', '')}" for row in rows]
    for environment in (row.get("environment", {}) for row in rows):
        edited = " (edited)" if environment.get("dirty") else ""
        words.append(f"commit {str(environment.get('commit'))[:10]}{edited}")
    return ", ".join(dict.fromkeys([*words, str(date.today())]))


def row_of(score: Score, row: str, run: Run, table: PaperTable, s: Settings) -> str:
    """The row of a score; none if it is not of the method that an ablation varies."""
    if not table.varied:
        return score.row
    method = table.method.removeprefix("CLIP")
    if s.demo:
        method = method.rstrip("*")  # its VLM is not trained
    name = f"{row}, {run.vlm}" if s.vlm else row
    return name if score.row.endswith(method) else ""


def bases_in_use(s: Settings) -> Table:
    header = ["text basis", "texts", "VLM prompt", "the first texts", "digest", "from"]
    rows = []
    for file in dict.fromkeys(f for run in s.runs.values() for f in run.bases.values()):
        basis = TextBasis.load(file)
        source = basis.provenance.get("model") or basis.provenance.get("repository", "-")
        first = ", ".join(basis.texts[:4])
        row = [basis_label(file), len(basis.texts), basis.vlm_prompt, first, basis.digest, source]
        rows.append([*map(str, row)])
    return Table("Text bases", header, rows, left=len(header))


def show_page(outputs: Path) -> bool:
    """Write the page and say where it is; -> was any file damaged?"""
    file, problems = formats.write_page(outputs)
    for problem in problems:
        complain(problem)
    print(f"page: {file}")
    return bool(problems)


def complain(problem: str) -> None:
    print(f"error: {one_line(problem)}", file=sys.stderr, flush=True)


def show_runs(arguments: argparse.Namespace) -> int:
    """A damaged run does not stop the others. -> the exit code"""
    files = [arguments.outputs.glob(f"{task}/*/results.json") for task in TASKS]
    folders = arguments.runs or [file.parent for of_task in files for file in sorted(of_task)]
    rows: dict[str, list] = {}
    parts, problems = [], Problems()
    for folder in folders:
        task = folder.resolve().parent.name
        if task not in TASKS:
            problems.append(f"{folder} is no run of {' or '.join(TASKS)}: outputs/<task>/<name>")
        for of_run in problems.unless(read_rows, folder / "results.json") if task in TASKS else []:
            rows.setdefault(task, []).extend(of_run)
    for task, of_task in rows.items():
        for table, notes, scores in problems.unless(TASKS[task].read, of_task):
            tables = [table, *beside_the_paper(TASKS[task].number, scores)]
            if {row["about"]["vlm"] for row in of_task} - {"demo", "-"}:  # not beside drawn data
                tables += neighbours(task)
            parts += [FORMATS[arguments.format](one) for one in tables]
            if notes and arguments.format == "text":
                parts.append("\n".join(f"note: {note}" for note in notes))
    if parts:
        print("\n\n".join(parts))
    for problem in problems:
        complain(problem)
    wrong = show_page(arguments.outputs) if arguments.page else False
    return 2 if problems or wrong else 0


def beside_the_paper(number: int, scores: list[Score]) -> list[Table]:
    """Of scores that can be compared."""
    rows: list[list[str]] = []
    for part in published(number).values():
        for score in scores:
            paper = part.get(score.row, {}).get(score.column)
            if score.comparable and paper is not None:
                ours = sum(score.values) / len(score.values)
                numbers = [f"{paper:.2f}", f"{ours:.2f}", f"{ours - paper:+.2f}"]
                row = [score.row, score.basis, score.column, *numbers]
                rows += [row] if row not in rows else []  # each once
    header = ["method", "basis", "column", "paper", "ours", "difference"]
    return [Table("The paper's numbers beside ours", header, rows, left=3)] if rows else []


if __name__ == "__main__":
    main()
