"""A table of the paper as Markdown, CSV, LaTeX, HTML, text, and a figure of an ablation."""

import csv
import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files, not windows
import matplotlib.pyplot as plt

from crl.run.files import atomic_path, write_text
from crl.run.tables import Table
from paper_tables.documents import Document
from paper_tables.grids import Grid, Number, Row

MARKS = {"reproduced": "✓", "differs": "≠", "not compared": ""}
LEGEND = (
    "Cells: the paper's number / ours ± standard deviation over seeds (difference). ✓: reproduced, "
    "within the tolerance in the CSV file; ≠: differs."
)
HEADER = ["table", "part", "row", "kind", "column"]


def shown(number: Number) -> str:
    """`88.67 / 88.40 ± 0.52 (-0.27) ✓`."""
    paper = [] if number.paper is None else [f"{number.paper:.2f}"]
    if number.verdict == "quoted":
        return paper[0]
    if number.ours is None:
        return " / ".join([*paper, "not run"])
    ours = f"{number.ours:.2f}" + ("" if number.std is None else f" ± {number.std:.2f}")
    if number.difference is not None:
        ours += f" ({number.difference:+.2f}) {MARKS[number.verdict]}".rstrip()
    return " / ".join([*paper, ours])


def tables(document: Document) -> list[Table]:
    """The parts of the document as they are printed."""
    title = f"Table {document.number}. {document.title}"
    if document.plain:
        header, *rows = document.plain
        return [Table(title, header, rows, left=len(header))]
    return [
        Table(
            f"{title}: {grid.name}" if len(document.grids) > 1 else title,
            [document.varied or "method", *grid.columns],
            [[name(document, row), *map(shown, row.numbers)] for row in grid.rows],
        )
        for grid in document.grids
    ]


def name(document: Document, row: Row) -> str:
    """The name of a row, marked if it is only in the paper, or beyond it."""
    beyond = "" if document.demo else " (ours)"
    return row.name + {"quoted": " (quoted)", "ours": beyond, "paper": ""}[row.kind]


def as_csv(document: Document) -> str:
    """A line per number, with all that is known of it."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    if document.plain:
        writer.writerows(document.plain)
        return stream.getvalue()
    writer.writerow([*HEADER, *Number.model_fields])
    for grid in document.grids:
        for row in grid.rows:
            for column, number in zip(grid.columns, row.numbers, strict=True):
                place = [document.number, grid.name, row.name, row.kind, column]
                values = number.model_dump().values()
                writer.writerow(
                    [*place, *(f"{v:.4f}" if isinstance(v, float) else v for v in values)]
                )
    return stream.getvalue()


def write(document: Document, folder: Path) -> None:
    """Write table<N>.json, the source of all others, and table<N>.md, .csv, .tex and .png."""
    stem = folder / f"table{document.number}"
    if document.varied and any(n.ours is not None for n in _numbers(document)):
        draw(document, stem.with_suffix(".png"))
        document.figure = f"table{document.number}.png"
    parts = tables(document)
    notes = [document.note] if document.note else [] if document.demo else [LEGEND]
    lines = [*document.about, *(f"Not run: {why}" for why in document.not_run)]
    about = [*notes, *(f"- {line}" for line in lines)]
    figure = [f"![score by {document.varied}]({document.figure})"] if document.figure else []
    body = "\n\n".join([*(part.markdown() for part in parts), *figure, "\n".join(about)])
    write_text(stem.with_suffix(".md"), body + "\n")
    comment = "".join(f"% {line}\n" for line in [*notes, *lines])
    write_text(stem.with_suffix(".tex"), comment + "\n".join(p.latex() for p in parts) + "\n")
    write_text(stem.with_suffix(".csv"), as_csv(document))
    write_text(stem.with_suffix(".json"), document.model_dump_json(indent=1) + "\n")


def _numbers(document: Document) -> list[Number]:
    return [number for grid in document.grids for row in grid.rows for number in row.numbers]


def draw(document: Document, file: Path) -> None:
    """Draw the scores of an ablation: a line for each criterion, and the mean, as in the paper's
    Figure 6; the paper's mean is dashed."""
    parts = len(document.grids)
    figure, axes = plt.subplots(1, parts, figsize=(5.2 * parts, 3.8), squeeze=False)
    for axis, grid in zip(axes[0], document.grids, strict=True):
        rows = [row for row in grid.rows if row.kind != "quoted"]
        for label, columns in _lines(grid).items():
            mean = label == "mean"
            values = [[row.numbers[c].ours for c in columns] for row in rows]
            ours = [None if None in v else sum(v) / len(v) for v in values]
            style = {"color": "black", "linewidth": 2} if mean else {"linewidth": 1}
            at = [i for i, value in enumerate(ours) if value is not None]
            spread = [row.numbers[columns[0]].std or 0 for row in rows] if mean else [0] * len(rows)
            axis.errorbar(
                at, [ours[i] for i in at], [spread[i] for i in at], marker="o", label=label, **style
            )
            paper = [row.numbers[columns[0]].paper for row in rows]
            if mean and None not in paper:
                axis.plot(paper, "k--", label="mean, paper")
        axis.set_xticks(range(len(rows)), [row.name for row in rows])
        axis.set(xlabel=document.varied, ylabel="percent", title=grid.name.replace("_", " "))
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    figure.tight_layout()
    with atomic_path(file) as temporary:
        figure.savefig(temporary, format="png", dpi=130)
    plt.close(figure)


def _lines(grid: Grid) -> dict[str, list[int]]:
    """The columns of each line: those of one criterion, and the mean."""
    lines: dict[str, list[int]] = {}
    for number, column in enumerate(grid.columns):
        lines.setdefault(column.partition("/")[0], []).append(number)
    return lines
