"""outputs/index.html: one page with all results; it needs no network."""

import base64
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup

import crl
from crl.run.errors import UserError
from crl.run.files import write_text
from crl.run.results import read_rows
from crl.run.tables import Table
from paper_tables.formats import LEGEND
from paper_tables.numbers import TASKS, Problems

WEB = Path(__file__).resolve().parent / "web"
BASE = Path(crl.__file__).parent / "explore" / "web"  # page.html and style.css
IDEA = Path(__file__).resolve().parent.parent.parent / "figures" / "idea.png"


def write(outputs: Path) -> tuple[Path, list[str]]:
    """Writes <outputs>/index.html from the results and tables there; figures are links.
    -> the file, and what is wrong with the results that are left out."""
    problems = Problems()

    def listed(pattern: str) -> list[str]:
        return [file.relative_to(outputs).as_posix() for file in sorted(outputs.glob(pattern))]

    files = sorted(outputs.glob("tables/table*.md"))
    tables = [table for file in files for table in problems.unless(_table, file)]
    tasks = []
    for name, task in TASKS.items():
        files = sorted(outputs.glob(f"{name}/*/results.json"))
        files = [file for file in files if not file.parent.name.endswith("-ablations")]
        rows = [row for file in files for rows in problems.unless(read_rows, file) for row in rows]
        for table, notes, _ in problems.unless(task.read, rows) if rows else []:
            figures = [f for file in files for f in listed(f"{name}/{file.parent.name}/*.png")]
            section = {"id": name, "title": task.title, "notes": notes, "figures": figures}
            demo = any(row["about"].get("vlm") == "demo" for row in rows)
            tasks.append(section | {"parts": [table._replace(title="")], "demo": demo})
    pages = Environment(loader=FileSystemLoader([WEB, BASE]), autoescape=True, trim_blocks=True)
    pages.globals["asset"] = lambda name: Markup(pages.loader.get_source(pages, name)[0])
    page = pages.get_template("results.html").render(
        title="Conditional representations: results",
        idea="data:image/png;base64," + base64.b64encode(IDEA.read_bytes()).decode(),
        demo=any(task["demo"] for task in tasks),
        tasks=tasks,
        tables=sorted(tables, key=lambda table: table["number"]),
        legend=LEGEND,
        reports=listed("explore/*/report.html"),
        number=_number,
    )
    write_text(outputs / "index.html", page)
    return outputs / "index.html", problems


def _table(file: Path) -> dict[str, Any]:
    """A section for table<N>.md, as `formats.write` wrote it."""
    files = [f"tables/{file.stem}.{kind}" for kind in ("md", "csv", "tex")]
    figures = [f"tables/{file.stem}.png"] if file.with_suffix(".png").exists() else []
    try:
        heading, *blocks, bullets, commands = file.read_text(encoding="utf-8").split("\n\n")
        number, _, title = heading.removeprefix("# Table ").partition(". ")
        parts = [_part(*pair) for pair in pairwise(blocks) if pair[1].startswith("|")]
        *about, verdicts = bullets.removeprefix("- ").split("\n- ")
        return {"number": int(number), "title": title, "verdicts": verdicts, "about": about,
                "parts": parts, "commands": commands.strip("`\n"), "files": files,
                "figures": figures}  # fmt: skip
    except (ValueError, LookupError) as error:
        raise UserError(f"{file} is damaged; remove it and make the table again") from error


def _part(title: str, table: str) -> Table:
    """A table from Markdown."""
    header, _, *rows = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()
    ]
    return Table(title.strip("*"), header, rows, len(header) if title == "**Text bases**" else 1)


def _number(text: str) -> dict[str, str]:
    """`88.67 / 88.40 (-0.27) ✓`: the paper's number stands below ours, which sorts the column."""
    paper, _, ours = text.rpartition(" / ")
    value = re.match(r"-?\d+(\.\d+)?", ours)
    kind = {"✓": "reproduced", "≠": "differs"}.get(ours[-1:], "" if value else "missing")
    return {"text": ours, "paper": paper, "kind": kind, "value": value[0] if value else ""}
