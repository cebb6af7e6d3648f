"""outputs/index.html: one page with all results; it needs no network."""

import base64
import io
import re
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader
from markupsafe import Markup
from PIL import Image

import crl
from crl.run.config import as_yaml
from crl.run.errors import UserError
from crl.run.files import write_text
from crl.run.results import read_rows
from crl.run.tables import Table
from paper_tables.formats import LEGEND
from paper_tables.places import TASKS
from paper_tables.runs import script_of

WEB = Path(__file__).resolve().parent / "web"
BASE = Path(crl.__file__).parent / "explore" / "web"  # page.html and style.css
IDEA = Path(__file__).resolve().parent.parent.parent / "figures" / "idea.png"
WIDEST = 1500  # pixels of a figure in the page; the file beside it is as it was drawn


def write(outputs: Path) -> tuple[Path, list[str]]:
    """Write <outputs>/index.html from the results and tables that lie there.

    Returns:
        the file, and what is wrong with those that are left out.
    """
    problems: list[str] = []

    def readable(read: Callable[..., Any], *arguments: Any) -> list[Any]:
        try:
            return [read(*arguments)]
        except UserError as error:
            problems.append(str(error))
            return []

    files = sorted(outputs.glob("tables/table*.md"))
    tables = [table for file in files for table in readable(_table, file, outputs)]
    tables.sort(key=lambda table: table["number"])
    tasks = []
    for name in TASKS:
        files = sorted(outputs.glob(f"{name}/*/results.json"))
        files = [file for file in files if not file.parent.name.endswith("-ablations")]
        rows = [row for file in files for rows in readable(read_rows, file) for row in rows]
        figures = [figure for file in files for figure in sorted(file.parent.glob("*.png"))]
        tasks += readable(_task, name, rows, figures, outputs) if rows else []
    reports = [
        {"name": file.parent.name, "file": file.relative_to(outputs).as_posix()}
        for file in sorted(outputs.glob("explore/*/report.html"))
    ]
    pages = Environment(loader=FileSystemLoader([WEB, BASE]), autoescape=True, trim_blocks=True)
    pages.globals["number"] = _number
    pages.globals["asset"] = lambda name: Markup(pages.loader.get_source(pages, name)[0])
    page = pages.get_template("results.html").render(
        title="Conditional representations: results",
        idea=_picture(IDEA, "The same pictures under three criteria; numbers are entries of R"),
        demo=any("demo" in task["vlms"] for task in tasks),
        tasks=tasks,
        tables=tables,
        legend=LEGEND if any(table["compared"] for table in tables) else "",
        reports=reports,
    )
    write_text(outputs / "index.html", page)
    return outputs / "index.html", problems


def _task(name: str, rows: list[dict], figures: list[Path], outputs: Path) -> dict[str, Any]:
    """A section of the page."""
    task = TASKS[name]
    table, notes = task.table(rows)
    return {
        "id": name,
        "title": task.title,
        "parts": [table._replace(title="")],
        "notes": notes,
        "commands": list(dict.fromkeys(_command(name, row.get("config", {})) for row in rows)),
        "figures": [_picture(file, _caption(file), outputs) for file in figures],
        "vlms": {row["about"].get("vlm") for row in rows},
    }


def _command(task: str, config: dict[str, Any]) -> str:
    """The command that gives such a result: the keys that are not as by default."""
    script, _, kind = script_of(task)
    default = kind.model_construct().model_dump(mode="json")
    changed = [f"{k}={as_yaml(v)}" for k, v in config.items() if k in default and v != default[k]]
    return shlex.join(["python", script, *changed])


def _caption(file: Path) -> str:
    """Its name without the digests at its end."""
    return re.sub(r"(-[0-9a-f]{6})+$", "", file.stem).replace("-", " ")


def _table(file: Path, outputs: Path) -> dict[str, Any]:
    """A section for table<N>.md, as `formats.write` wrote it."""
    try:
        heading, *blocks = file.read_text(encoding="utf-8").strip().split("\n\n")
        number, _, title = heading.removeprefix("# Table ").partition(". ")
        *blocks, bullets, commands = blocks
        parts = [_part(*pair) for pair in pairwise(blocks) if pair[1].startswith("|")]
        *about, verdicts = bullets.removeprefix("- ").split("\n- ")
        section = {"number": int(number), "title": title, "verdicts": verdicts}
    except (ValueError, LookupError) as error:
        raise UserError(f"{file} is damaged; remove it and make the table again") from error
    figure = file.with_suffix(".png")
    files = [file.with_suffix(f".{kind}") for kind in ("md", "csv", "tex")]
    return section | {
        "compared": LEGEND in blocks,
        "parts": parts,
        "figures": [_picture(figure, title, outputs)] if figure.exists() else [],
        "about": about,
        "commands": commands.strip("`\n").split("\n"),
        "files": [file.relative_to(outputs).as_posix() for file in files],
    }


def _part(title: str, table: str) -> Table:
    """A table from Markdown."""
    header, _, *rows = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()
    ]
    left = len(header) if title == "**Text bases**" else 1
    return Table(title.strip("*"), header, rows, left)


def _number(text: str) -> dict[str, str]:
    """`88.67 / 88.40 (-0.27) ✓`: the paper's number stands below ours, which sorts the column."""
    paper, _, ours = text.rpartition(" / ")
    value = re.match(r"-?\d+(\.\d+)?", ours)
    kind = {"✓": "reproduced", "≠": "differs"}.get(ours[-1:], "" if value else "missing")
    return {"text": ours, "paper": paper, "kind": kind, "value": value[0] if value else ""}


def _picture(file: Path, about: str, outputs: Path | None = None) -> dict[str, Any]:
    """A figure inside the page, as WebP; a click opens the file itself."""
    with Image.open(file) as picture:
        small = picture.convert("RGB")
    small.thumbnail((WIDEST, 20 * WIDEST))
    stream = io.BytesIO()
    small.save(stream, "WEBP", quality=80)
    data = "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
    link = file.relative_to(outputs).as_posix() if outputs else ""
    size = {"width": small.width, "height": small.height}
    return {"data": data, "file": link, "about": about, **size}
