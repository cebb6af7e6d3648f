"""Tables as text, Markdown, CSV and LaTeX."""

import csv
import io
import re
from pathlib import Path
from typing import Any, NamedTuple

from tabulate import tabulate

# A minus sign alone, or with a number, is none.
FORMULA = re.compile(r"[=+@\t\r]|-(?![\d.]*( ± [\d.]+)?$)")


def no_formula(cell: Any) -> Any:
    """A cell of a CSV file; a text that a spreadsheet would run as a formula begins with `'`."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


class Table(NamedTuple):
    """A table of texts. The first `left` columns are names, the others numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int = 1

    def text(self) -> str:
        body = self._tabulate("simple")
        rule = "-" * max(map(len, body.splitlines()))
        return f"{self.title}\n{rule}\n{body}\n{rule}"

    def markdown(self) -> str:
        rows = [[cell.replace("|", "\\|") for cell in row] for row in self.rows]
        return f"**{self.title}**\n\n{self._replace(rows=rows)._tabulate('pipe')}"

    def csv(self) -> str:
        stream = io.StringIO()
        rows = [map(no_formula, row) for row in [self.header, *self.rows]]
        csv.writer(stream, lineterminator="\n").writerows(rows)
        return stream.getvalue().removesuffix("\n")

    def latex(self) -> str:
        """A `table` with `booktabs`."""
        body = _symbols(self._tabulate("latex_booktabs"))
        return f"\\begin{{table}}\n\\caption{{{as_latex(self.title)}}}\n{body}\n\\end{{table}}"

    def show(self, notes: list[str], folder: Path) -> None:
        """Print it, what a reader of it needs to know, and where the files are."""
        print("\n".join([self.text(), *(f"note: {note}" for note in notes)]))
        print(f"results and figures: {folder}")

    def _tabulate(self, form: str) -> str:
        align = ["left"] * self.left + ["right"] * (len(self.header) - self.left)
        align = align if self.rows else None
        return tabulate(self.rows, self.header, form, colalign=align, disable_numparse=True)


def as_latex(text: str) -> str:
    return _symbols("".join(f"\\{c}" if c in "&%$#_{}" else c for c in text))


def _symbols(latex: str) -> str:
    return latex.replace("±", r"$\pm$").replace("†", r"$\dagger$")


FORMATS = {"text": Table.text, "csv": Table.csv, "md": Table.markdown, "tex": Table.latex}
