"""A table of the paper as Markdown, CSV, LaTeX, and the figure of an ablation."""

from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")  # files, not windows
import matplotlib.pyplot as plt

from crl.run.files import atomic_path, write_text
from crl.run.tables import Table
from paper_tables.numbers import VERDICTS, Number, Parts

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

    @property
    def numbers(self) -> list[Number]:
        return [n for rows in self.parts.values() for row in rows.values() for n in row.values()]

    @property
    def verdicts(self) -> str:
        """`18 reproduced, 2 differs`."""
        counts = Counter(number.verdict for number in self.numbers)
        return ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v]) or "no scores"

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
        return tables


def as_text(number: Number) -> str:
    """`88.67 / 88.40 ± 0.52 (-0.27) ✓`."""
    paper = "" if number.paper is None else f"{number.paper:.2f}"
    if number.verdict == "quoted":
        return paper
    ours = "not run" if number.ours is None else f"{number.ours:.2f}"
    ours += "" if number.std is None else f" ± {number.std:.2f}"
    if number.difference is not None:
        ours += f" ({number.difference:+.2f}){MARKS.get(number.verdict, '')}"
    return f"{paper} / {ours}" if paper else ours


def write(document: Document, folder: Path) -> None:
    """Writes table<N>.md, .csv and .tex, and .png of an ablation."""
    stem, heading = folder / f"table{document.number}", f"Table {document.number}. {document.title}"
    notes = [LEGEND] if document.compared else []
    blocks = [f"# {heading}", *(table.markdown() for table in document.tables), *notes]
    if document.varied and any(number.ours is not None for number in document.numbers):
        draw(document, stem.with_suffix(".png"))
        blocks.append(f"![Score by {document.varied}]({stem.name}.png)")
    blocks += ["\n".join(f"- {line}" for line in [*document.about, document.verdicts])]
    blocks += ["\n".join(["```", *document.commands, "```"])]
    write_text(stem.with_suffix(".md"), "\n\n".join(blocks) + "\n")
    comment = [f"% {line}" for line in [*notes, *document.about]]
    tables = [t._replace(title=f"{heading}: {t.title}").latex() for t in document.tables]
    write_text(stem.with_suffix(".tex"), "\n".join([*comment, *tables]) + "\n")
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
