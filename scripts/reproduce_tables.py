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
folder takes all in --outputs.

Exit code: 0 if every number that was compared is reproduced (with --strict: and none is missing),
1 if not, 2 after a mistake.
"""

from crl.run.command import advice, command, one_line

import argparse
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

from paper_tables import formats, page
from paper_tables.grids import Document, Found, Published, grids, published
from paper_tables.plan import CONFIGS, SCRIPTS, Plan, Run, Settings, TablePlan, resolve

from classification_clustering import tables as classification_tables
from crl.basis import TextBasis, basis_label
from crl.run.errors import ArgumentParser, Missing, UserError
from crl.run.files import alone_in
from crl.run.results import read_cells
from crl.run.tables import FORMATS, Score, Table
from crl.vlm import weights_here
from fashion_retrieval import tables as fashion_tables
from similarity_retrieval import tables as similarity_tables

TASKS: dict[str, tuple[ModuleType, str, str]] = {  # folder in outputs/: its tables, paper, title
    "clustering": (classification_tables, "table2_clustering", "Clustering"),
    "few_shot": (classification_tables, "table1_few_shot_accuracy", "Few-shot classification"),
    "similarity_retrieval": (
        similarity_tables, "table3_similarity_recall", "Similarity retrieval, Recall@k",
    ),
    "fashion_retrieval": (fashion_tables, "table4_fashion_map", "Fashion retrieval, mAP"),
}  # fmt: skip


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


@command
def main(argv: list[str]) -> None:
    arguments = parse(argv)
    if arguments.runs is not None:
        sys.exit(show_runs(arguments))
    sys.exit(reproduce(arguments))


def parse(argv: list[str]) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", nargs="+", default=[], metavar="N", help="1 to 13, or all")
    parser.add_argument("--demo", action="store_true", help="the demo's drawn data and its VLM")
    parser.add_argument("--dry-run", action="store_true", help="print what would be run")
    parser.add_argument(
        "--quick", action="store_true", help="few seeds, short trainings; no verdict"
    )
    parser.add_argument("--strict", action="store_true", help="what did not run counts as failed")
    parser.add_argument("--vlm", nargs="+", default=[], help="VLMs in place of the plan's")
    parser.add_argument("--data", type=Path, help="folder of the data sets (data, or data/demo)")
    parser.add_argument("--outputs", type=Path, help="default: outputs; with --quick outputs/quick")
    parser.add_argument(
        "--official",
        type=Path,
        default=Path("configs/official_bases"),
        help="the authors' text bases (default: %(default)s)",
    )
    parser.add_argument("--plan", type=Path, default=CONFIGS / "tables.yaml", help="another plan")
    parser.add_argument(
        "--runs", nargs="*", type=Path, metavar="FOLDER", help="print runs: outputs/<task>/<name>"
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="of --runs")
    arguments = parser.parse_args(argv)
    if bool(arguments.table) == (arguments.runs is not None):
        raise UserError("say --table N, --table all, or --runs; see --help")
    quick = "-quick" if arguments.quick else ""
    arguments.data = arguments.data or Path(f"data/demo{quick}" if arguments.demo else "data")
    arguments.outputs = arguments.outputs or Path("outputs", "quick" if quick else "")
    return arguments


# --- tables of the paper --------------------------------------------------------------------------


def reproduce(arguments: argparse.Namespace) -> int:
    """Run what the tables need and write them; -> the exit code."""
    plan = Plan.load(arguments.plan)
    settings = Settings(
        arguments.data,
        arguments.outputs,
        arguments.official,
        arguments.vlm,
        arguments.demo,
        arguments.quick,
    )
    wrong = False
    rows: dict[int, dict[str, list[Run]]] = {}
    for number in chosen(arguments.table, plan):
        try:
            rows[number] = resolve(plan, number, settings)
        except UserError as error:
            wrong = complain(f"table {number}: {error}")
    runs = {
        run.command: run
        for of_table in rows.values()
        for of_row in of_table.values()
        for wanted in of_row
        for run in (*wanted.first, wanted)
    }
    if arguments.dry_run:
        print(dry_run(plan, rows, settings))
        return 2 if wrong else 0
    with alone_in(settings.outputs / "tables"):
        outcomes = execute(list(runs.values()))
        documents = []
        for number, of_table in rows.items():
            document = make(plan, number, of_table, outcomes, settings)
            formats.write(document, settings.outputs / "tables")
            documents.append(document)
    written = page.write(settings.outputs)
    print()
    for document in documents:
        print(said(document))
    print(f"tables: {settings.outputs / 'tables'}\npage: {written}")
    wrong = wrong or any(outcome.failed for outcome in outcomes.values())
    verdicts = Counter(verdict for document in documents for verdict in document.verdicts)
    short = verdicts["differs"] or (arguments.strict and verdicts["not run"])
    return 2 if wrong else 1 if short else 0


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


def execute(runs: list[Run]) -> dict[str, Outcome]:
    """Run all, each after those that it needs; what goes wrong ends only its own run."""
    outcomes: dict[str, Outcome] = {}
    known: dict = {}  # scores of I, which do not depend on the text basis
    for number, run in enumerate(runs, start=1):
        print(f"{number}/{len(runs)}  {run.name}", flush=True)
        outcome = outcomes[run.command] = Outcome()
        before = [outcomes[one.command] for one in run.first]
        try:
            if lacking := [one.missing or one.failed for one in before if not_done(one)]:
                raise Missing("; ".join(lacking))
            outcome.cells = run.do(known)
        except Missing as error:
            outcome.missing = str(error)
        except Exception as error:
            outcome.failed = advice(error)
            if not outcome.failed:
                raise
            complain(outcome.failed)
        if outcome.missing:
            try:  # results may have come from another machine
                outcome.cells = run.kept()
            except UserError as error:
                outcome.failed = str(error)
                complain(outcome.failed)
            if not outcome.cells:
                print(f"  not run: {one_line(outcome.missing)}")
    return outcomes


def not_done(outcome: Outcome) -> bool:
    return bool(outcome.failed or outcome.missing)


def complain(message: str) -> bool:
    """One line on stderr; the rest goes on."""
    print(f"error: {one_line(message)}", file=sys.stderr, flush=True)
    return True


def make(
    plan: Plan,
    number: int,
    rows: dict[str, list[Run]],
    outcomes: dict[str, Outcome],
    settings: Settings,
) -> Document:
    """A table of the paper from the outcomes of its runs."""
    table = plan.tables[number]
    document = Document(
        number=number, title=table.title, demo=settings.demo, note=table.note, varied=table.varied
    )
    if not table.paper:
        document.plain = bases_in_use(plan, settings)
        return document
    cells, not_run = [], {}
    found: list[Found] = []
    paper = published_numbers(table.paper)
    for row, runs in rows.items():
        broken = set()
        for run in runs:
            outcome = outcomes[run.command]
            why = run.partly if outcome.cells else outcome.failed or outcome.missing
            if why:
                not_run[f"{row} {run.name}".strip() + f": {why}"] = None
                broken.add(SCRIPTS[run.script].task)
            cells += outcome.cells
        for run in runs:
            task = SCRIPTS[run.script].task
            if table.varied and task in paper and task in broken:
                continue  # a mean over all criteria needs them all
            scores = TASKS[task][0].scores(outcomes[run.command].cells)
            found += [one for s in scores if (one := placed(s, row, task, run, table, settings))]
    document.grids = grids(table, paper, found, plan.tolerance, settings.demo, settings.quick)
    document.about = about(cells, settings)
    document.commands = [run.command for runs in rows.values() for run in (*runs[0].first, *runs)][
        :12
    ]
    document.not_run = list(not_run)
    return document


def placed(
    score: Score, row: str, task: str, run: Run, table: TablePlan, settings: Settings
) -> Found | None:
    """The place of a score; None if it is not of the method that an ablation varies."""
    if not table.varied:
        return Found(score.row, task, score)
    method = table.method.removeprefix("CLIP")
    if settings.demo:
        method = method.rstrip("*")  # its VLM is not trained
    label = f"{row}, {run.vlm}" if settings.vlm else row
    return Found(label, task, score) if score.row.endswith(method) else None


def published_numbers(name: str) -> Published:
    return published(json.loads((CONFIGS / "paper_tables.json").read_text(encoding="utf-8"))[name])


def bases_in_use(plan: Plan, settings: Settings) -> list[list[str]]:
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


def about(cells: list[dict[str, Any]], settings: Settings) -> list[str]:
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


def said(document: Document) -> str:
    """A line about a table."""
    return f"table {document.number}: {document.said or 'no scores'}. {document.title}"


# --- the plan, printed ----------------------------------------------------------------------------


def dry_run(plan: Plan, rows: dict[int, dict[str, list[Run]]], settings: Settings) -> str:
    """The runs of each table: finished, what is missing, or images to encode and a rough time."""
    lines: list[str] = []
    states: dict[str, str] = {}
    encoded: dict[tuple[str, str], int] = {}  # images of each VLM on each data set
    seconds = 0.0
    for number, of_table in rows.items():
        lines.append(f"Table {number}. {plan.tables[number].title}")
        for row, runs in of_table.items():
            for run in [one for wanted in runs for one in (*wanted.first, wanted)]:
                if run.command not in states:
                    state = states[run.command] = state_of(run)
                    place = run.vlm_name, "" if run.prepares else str(run.config.root)
                    if state == "to do" and (place not in encoded or run.prepares):
                        images = min(run.images, settings.images) if settings.demo else run.images
                        encoded[place] = encoded.get(place, 0) + images
                        time = images / plan.speed.get(run.vlm_name, 1.0)
                        seconds += time
                        state += f": {images:,} images, {rough(time)}"
                        state += "" if weights_here(run.vlm_name) else ", weights to be fetched"
                else:
                    state = "as above"
                lines.append(
                    f"  {row:11} {run.name:44} {state}" if row else f"  {run.name:44} {state}"
                )
    counts = Counter(state.partition(":")[0] for state in states.values())
    lines += ["", f"{len(states)} runs: {', '.join(f'{n} {state}' for state, n in counts.items())}"]
    lines.append(
        f"to encode: {sum(encoded.values()):,} images, {rough(seconds)} on 2 CPU cores, and some "
        "minutes per run for its scores; on a GPU not yet measured"
    )
    return "\n".join(lines)


def state_of(run: Run) -> str:
    """`finished`, `to do`, or what it lacks."""
    if run.lacking:
        return f"lacks: {run.lacking}"
    try:
        if run.kept():
            return "finished"
        SCRIPTS[run.script].check(run.config)
    except Missing as error:
        return f"lacks: {error}"
    except UserError as error:
        return f"wrong: {error}"
    return "to do"


def rough(seconds: float) -> str:
    """`about 3 h`."""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"about {seconds / length:.0f} {unit}"
    return "about 2 min" if seconds > 60 else "under a minute"


# --- any runs -------------------------------------------------------------------------------------


def show_runs(arguments: argparse.Namespace) -> int:
    """Print the tables of runs, and write the page; a damaged run does not stop the others."""
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
            cells.setdefault(task, []).extend(read_cells(folder / "results.json"))
        except UserError as error:
            wrong = complain(str(error))
    parts = []
    for task, (tables, name, title) in TASKS.items():
        try:
            found = cells.get(task, [])
            shown = [tables.table(found, f"{title}, percent")] if found else []
            if task in cells and not found:
                raise UserError(f"there are no results of {task} to show")
            beside = comparison(published_numbers(name), list(tables.scores(found)))
            parts += [FORMATS[arguments.format](part) for part in [*shown, *beside]]
            if arguments.format == "text":
                parts += ["\n".join(f"note: {note}" for note in tables.notes(found))]
        except UserError as error:
            wrong = complain(str(error))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            wrong = complain(
                f"a results.json of {task} lacks what its table needs ({error!r}); run it again"
            )
    print("\n\n".join(filter(None, parts)))
    return 2 if wrong else 0


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
