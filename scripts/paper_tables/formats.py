"""A table of the paper as Markdown, CSV, LaTeX, with the figure of an ablation; and the page of all
results, which needs no network."""

import base64
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files, not windows
import matplotlib.pyplot as plt

from crl.explore.render import render
from crl.run.errors import UserError
from crl.run.files import atomic_path, write_text
from crl.run.results import read_rows
from crl.run.tables import Table, as_latex
from paper_tables.numbers import TASKS, VERDICTS, Number, Parts, Problems

WEB = Path(__file__).resolve().parent / "web"
IDEA = Path(__file__).resolve().parent.parent.parent / "figures" / "idea.png"

BELOW = ("†", "note:")  # so begin the lines that stand below a table also in LaTeX, on the page
MARKS = {"reproduced": " ✓", "differs": " ≠"}
LEGEND = (
    "Cells: the paper's number / ours ± standard deviation over seeds (difference). ✓: reproduced, "
    "within the tolerance in the CSV file; ≠: differs."
)


class Document(NamedTuple):
    number: int
    title: str
    varied: str  # what an ablation varies; else empty
    parts: Parts
    texts: Table | None  # in place of numbers, a table of texts (Table 8)
    about: list[str]  # VLMs, commit, date; what did not run and why
    commands: list[str]  # what made it
    quoted: Sequence[Table] = ()  # numbers of others
    ending: str = ""  # of the name of its files

    @property
    def numbers(self) -> list[Number]:
        return [n for rows in self.parts.values() for row in rows.values() for n in row.values()]

    @property
    def notes(self) -> list[str]:
        """Footnotes, what it was made with, and what did not run."""
        footnotes = dict.fromkeys(f"† {n.footnote}" for n in self.numbers if n.footnote)
        return [*footnotes, *self.about]

    @property
    def verdicts(self) -> str:
        """`18 reproduced, 2 differs`."""
        counts = Counter(number.verdict for number in self.numbers)
        return ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v]) or "nothing is compared"

    @property
    def compared(self) -> bool:
        return any(number.paper is not None for number in self.numbers)

    @property
    def tables(self) -> list[Table]:
        marks = {"quoted": " (quoted)", "ours": " (ours)" * self.compared, "paper": ""}
        tables = [self.texts] if self.texts else []
        for part, rows in self.parts.items():
            cells = {name: list(row.values()) for name, row in rows.items()}
            lines = [[n + marks[row[0].kind], *map(as_text, row)] for n, row in cells.items()]
            tables.append(Table(part, [self.varied or "method", *next(iter(rows.values()))], lines))
        return [*tables, *self.quoted]


def as_text(number: Number) -> str:
    """`88.67 / 88.40 ± 0.52 (-0.27) ✓`."""
    paper = "" if number.paper is None else f"{number.paper:.2f}{'†' * bool(number.footnote)}"
    if number.verdict == "quoted":
        return paper
    ours = "not run" if number.ours is None else f"{number.ours:.2f}"
    ours += "" if number.std is None else f" ± {number.std:.2f}"
    if number.difference is not None:
        ours += f" ({number.difference:+.2f}){MARKS.get(number.verdict, '')}"
    return f"{paper} / {ours}" if paper else ours


def write(document: Document, folder: Path) -> None:
    """Writes table<N>.md, .csv and .tex, and .png of an ablation."""
    stem = folder / f"table{document.number}{document.ending}"
    heading = f"Table {document.number}. {document.title}"
    notes = [LEGEND] if document.compared else []
    blocks = [f"# {heading}", *(table.markdown() for table in document.tables), *notes]
    if document.varied and any(number.ours is not None for number in document.numbers):
        draw(document, stem.with_suffix(".png"))
    if stem.with_suffix(".png").exists():
        blocks.append(f"![Scores]({stem.name}.png)")
    blocks += ["\n".join(f"- {line}" for line in [*document.notes, document.verdicts])]
    blocks += ["\n".join(["```", *document.commands, "```"])]
    write_text(stem.with_suffix(".md"), "\n\n".join(blocks) + "\n")
    comment = [f"% {line}" for line in [*notes, *document.about]]
    tables = [t._replace(title=f"{heading}: {t.title}").latex() for t in document.tables]
    below = [as_latex(note) + "\n" for note in document.notes if note.startswith(BELOW)]
    write_text(stem.with_suffix(".tex"), "\n".join([*comment, *tables, *below]) + "\n")
    table = Table("", ["table", "part", "row", "column", *Number._fields], [
        [str(document.number), part, row, column]
        + [f"{v:.4f}" if isinstance(v, float) else str("" if v is None else v) for v in number]
        for part, rows in document.parts.items()
        for row, numbers in rows.items()
        for column, number in numbers.items()
    ])  # fmt: skip
    write_text(stem.with_suffix(".csv"), (document.texts or table).csv() + "\n")


def draw(document: Document, file: Path) -> None:
    """The scores of an ablation: a line for each criterion, and the mean, as in the paper's Figure
    6; the paper's mean is dashed."""
    parts = document.parts
    figure, axes = plt.subplots(1, len(parts), figsize=(5.2 * len(parts), 3.8), squeeze=False)
    for axis, (part, rows) in zip(axes[0], parts.items(), strict=True):
        columns = list(next(iter(rows.values())))
        for criterion in dict.fromkeys(column.partition("/")[0] for column in columns):
            names = [column for column in columns if column.partition("/")[0] == criterion]
            ours = [[row[name].ours for name in names] for row in rows.values()]
            drawn = [place for place, values in enumerate(ours) if None not in values]
            style: dict[str, Any] = {"linewidth": 1}
            if criterion == "mean":
                means = [row["mean"] for row in rows.values()]
                spread = [means[place].std or 0 for place in drawn]
                style = {"linewidth": 2, "color": "black", "yerr": spread}
                if all(number.paper is not None for number in means):
                    axis.plot([number.paper for number in means], "k--", label="mean, paper")
            height = [fmean(ours[place]) for place in drawn]
            axis.errorbar(drawn, height, marker="o", label=criterion, **style)
        axis.set_xticks(range(len(rows)), list(rows))
        axis.set(xlabel=document.varied, ylabel="percent", title=part.replace("_", " "))
        axis.legend(fontsize=8)
    figure.tight_layout()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)


def write_page(outputs: Path) -> tuple[Path, list[str]]:
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
    page = render(
        WEB / "results.html",
        [(WEB / "sort.js").read_text("utf-8")],
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
        return {"id": file.stem, "number": int(number), "title": title, "verdicts": verdicts,
                "notes": [line for line in about if line.startswith(BELOW)],
                "about": [line for line in about if not line.startswith(BELOW)],
                "parts": parts, "commands": commands.strip("`\n"), "files": files,
                "figures": figures}  # fmt: skip
    except (ValueError, LookupError) as error:
        raise UserError(f"{file} is damaged; remove it and make the table again") from error


def _part(title: str, table: str) -> Table:
    """A table from Markdown."""
    header, rules, *rows = [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table.splitlines()
    ]
    left = sum(rule.endswith("-") for rule in rules)  # numbers: `---:`
    return Table(title.strip("*"), header, rows, left)


def _number(text: str) -> dict[str, str]:
    """`88.67 / 88.40 (-0.27) ✓`: the paper's number stands below ours, which sorts the column."""
    paper, _, ours = text.rpartition(" / ")
    value = re.match(r"-?\d+(\.\d+)?", ours)
    kind = {"✓": "reproduced", "≠": "differs"}.get(ours[-1:], "" if value else "missing")
    return {"text": ours, "paper": paper, "kind": kind, "value": value[0] if value else ""}
