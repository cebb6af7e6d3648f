"""outputs/index.html: one page with all results; it needs no network. And a page for each table."""

import base64
import io
import re
import shlex
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import ValidationError

from crl.explore.page import render
from crl.run.config import as_yaml
from crl.run.errors import UserError
from crl.run.files import write_text
from crl.run.results import read_cells
from crl.run.tables import Table
from paper_tables import formats
from paper_tables.documents import Document
from paper_tables.grids import Grid, Number, Row
from paper_tables.tasks import SCRIPTS, TASKS

IDEA = Path(__file__).resolve().parent.parent.parent / "figures" / "idea.png"
WIDEST = 1500  # pixels of a figure in the page; the file beside it is as it was drawn


def write(outputs: Path) -> tuple[Path, list[str]]:
    """Write <outputs>/index.html from the results that lie there, and a page for each table.

    Returns:
        the file, and what is wrong with the results that are left out.
    """
    problems: list[str] = []

    def readable(read: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
        found = []
        for thing in things:
            try:
                found.append(read(thing))
            except UserError as error:
                problems.append(str(error))
        return found

    documents = readable(partial(_document, outputs=outputs), _numbered(outputs / "tables"))
    for document in documents:
        legend = "" if document["demo"] else formats.LEGEND
        file = outputs / "tables" / f"table{document['number']}.html"
        title = f"Table {document['number']}. {document['title']}"
        write_text(file, render("table.html", title=title, document=document, legend=legend))
    results: dict[str, dict[Path, list]] = {name: {} for name in TASKS}
    for file, cells in readable(lambda file: (file, read_cells(file)), _results(outputs)):
        results[file.parent.parent.name][file.parent] = cells
    tasks = readable(
        lambda name: _task(name, results[name], outputs), [name for name in TASKS if results[name]]
    )
    reports = [
        {"name": file.parent.name, "file": file.relative_to(outputs).as_posix()}
        for file in sorted(outputs.glob("explore/*/report.html"))
    ]
    vlms = {vlm for task in tasks for vlm in task["vlms"]}
    about = "The same pictures under three criteria; every number is an entry of R"
    page = render(
        "results.html",
        title="Conditional representations: results",
        idea=_picture(IDEA, about),
        demo="demo" in vlms,
        tasks=tasks,
        documents=documents,
        legend="" if all(document["demo"] for document in documents) else formats.LEGEND,
        reports=reports,
    )
    write_text(outputs / "index.html", page)
    return outputs / "index.html", problems


# --- the tasks ------------------------------------------------------------------------------------


def _results(outputs: Path) -> list[Path]:
    """The results of all tasks, but for those of ablations."""
    files = [file for name in TASKS for file in sorted(outputs.glob(f"{name}/*/results.json"))]
    return [file for file in files if not file.parent.name.endswith("-ablations")]


def _task(name: str, results: dict[Path, list], outputs: Path) -> dict[str, Any]:
    """A section of the page.

    Args:
        results: folder of a run -> its cells.
    """
    task, cells = TASKS[name], [cell for found in results.values() for cell in found]
    try:
        table, notes = task.tables.table(cells, ""), task.tables.notes(cells)
        vlms = [cell["vlm"] for cell in cells]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"a results.json of {name} lacks what its table needs ({error!r}); run it again"
        ) from error
    pictures = [file for folder in results for file in sorted(folder.glob("*.png"))]
    return {
        "id": name,
        "title": task.title,
        "about": task.about,
        "table": _of_texts(table),
        "notes": notes,
        "commands": list(dict.fromkeys(_command(name, cell) for cell in cells)),
        "figures": [_picture(file, _caption(file), outputs) for file in pictures],
        "vlms": vlms,
    }


def _command(task: str, cell: dict[str, Any]) -> str:
    """The command that gives such a result: the keys that are not as by default."""
    [script] = [name for name, script in SCRIPTS.items() if script.task == task]
    fields = SCRIPTS[script].config.model_fields
    given = cell.get("config", {})
    changed = [
        f"{key}={as_yaml(value)}"
        for key, value in given.items()
        if key in fields and value != _plain(fields[key].get_default(call_default_factory=True))
    ]
    return shlex.join(["python", script, *changed])


def _caption(file: Path) -> str:
    """Its name without the digests at its end."""
    return re.sub(r"(-[0-9a-f]{6})+$", "", file.stem).replace("-", " ")


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _of_texts(table: Table) -> dict[str, Any]:
    def cell(text: str) -> dict[str, Any]:
        number = re.match(r"-?\d+(\.\d+)?", text)
        return {"text": text, "small": "", "kind": "", "value": number[0] if number else ""}

    rows = [
        [
            {**cell(text), "value": text} if i < table.left else cell(text)
            for i, text in enumerate(row)
        ]
        for row in table.rows
    ]
    return {"title": table.title, "header": table.header, "rows": rows, "left": table.left}


# --- the paper's tables ---------------------------------------------------------------------------


def _numbered(folder: Path) -> list[Path]:
    """The files table<N>.json, in the order of N."""
    return sorted(folder.glob("table*.json"), key=lambda file: int(re.sub(r"\D", "", file.stem)))


def _document(file: Path, outputs: Path) -> dict[str, Any]:
    try:
        document = Document.model_validate_json(file.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is damaged; remove it and make the table again") from error
    parts = [_of_grid(document, grid) for grid in document.grids]
    if document.plain:
        parts = [_of_texts(formats.tables(document)[0]._replace(title=""))]
    picture = file.parent / document.figure if document.figure else None
    files = [file.with_suffix(f".{kind}") for kind in ("html", "md", "csv", "tex")]
    return document.model_dump(exclude={"grids", "plain"}) | {
        "parts": parts,
        "picture": picture and _picture(picture, f"Score by {document.varied}", outputs),
        "said": document.said,
        "files": [one.relative_to(outputs).as_posix() for one in files],
    }


def _of_grid(document: Document, grid: Grid) -> dict[str, Any]:
    def cells(row: Row) -> Iterator[dict[str, Any]]:
        name = formats.name(document, row)
        yield {"text": name, "small": "", "kind": row.kind, "value": row.name}
        for number in row.numbers:
            yield _cell(number)

    title = grid.name if len(document.grids) > 1 else ""
    header = [document.varied or "method", *grid.columns]
    return {
        "title": title,
        "header": header,
        "rows": [list(cells(r)) for r in grid.rows],
        "left": 1,
    }


def _cell(number: Number) -> dict[str, Any]:
    """Ours, and below it the paper's and the difference."""
    if number.ours is None:
        text = "–" if number.paper is None else f"{number.paper:.2f}"
        small = "" if number.paper is None or number.verdict == "quoted" else "paper; not run"
        value = "" if number.paper is None else number.paper
        return {"text": text, "small": small, "kind": "missing", "value": value}
    text = f"{number.ours:.2f}" + ("" if number.std is None else f" ± {number.std:.2f}")
    small = ""
    if number.paper is not None:
        small = f"paper {number.paper:.2f} ({number.difference:+.2f})"
    kind = number.verdict if number.verdict in ("reproduced", "differs") else ""
    return {"text": text, "small": small, "kind": kind, "value": number.ours}


def _picture(file: Path, about: str, outputs: Path | None = None) -> dict[str, Any]:
    """A figure inside the page, as WebP; a click opens the file itself."""
    with Image.open(file) as picture:
        shown = picture.convert("RGB")
    shown.thumbnail((WIDEST, 20 * WIDEST))
    stream = io.BytesIO()
    shown.save(stream, "WEBP", quality=80)
    data = "data:image/webp;base64," + base64.b64encode(stream.getvalue()).decode()
    link = file.relative_to(outputs).as_posix() if outputs else ""
    size = {"width": shown.width, "height": shown.height}
    return {"data": data, "file": link, "about": about, **size}
