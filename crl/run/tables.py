"""Tables as text, Markdown, CSV and LaTeX; and the numbers that a table of the paper holds."""

import csv
import io
from dataclasses import dataclass
from typing import NamedTuple

import pandas


class Table(NamedTuple):
    """A table of texts. The first `left` columns are names, the others numbers."""

    title: str
    header: list[str]
    rows: list[list[str]]
    left: int = 1

    def text(self) -> str:
        return aligned(*self)

    def markdown(self) -> str:
        def line(row: list[str]) -> str:
            return "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"

        places = [":--" if i < self.left else "--:" for i in range(len(self.header))]
        head = [f"**{self.title}**", "", line(self.header), line(places)]
        return "\n".join([*head, *map(line, self.rows)])

    def csv(self) -> str:
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows([self.header, *self.rows])
        return stream.getvalue().removesuffix("\n")

    def latex(self) -> str:
        """A `table` with `booktabs`."""
        frame = pandas.DataFrame(self.rows, columns=self.header)
        places = "l" * self.left + "r" * (len(self.header) - self.left)
        title = "".join(f"\\{c}" if c in "&%$#_{}" else c for c in self.title)
        body = frame.to_latex(index=False, escape=True, column_format=places, caption=title)
        for sign, command in {"±": r"$\pm$", "†": r"$\dagger$"}.items():
            body = body.replace(sign, command)
        return body.removesuffix("\n")


FORMATS = {"text": Table.text, "csv": Table.csv, "md": Table.markdown, "tex": Table.latex}


def aligned(title: str, header: list[str], rows: list[list[str]], left: int) -> str:
    """A table as text; the first `left` columns are aligned left, the others right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        cells = [row[i].ljust(widths[i]) for i in range(left)]
        cells += [row[i].rjust(widths[i]) for i in range(left, len(row))]
        return "  ".join(cells)

    rule = "-" * len(line(header))
    return "\n".join([title, rule, line(header), rule, *map(line, rows), rule])


@dataclass(frozen=True)
class Score:
    """What a run measured for one place in the paper's tables.

    Attributes:
        row: the method as the paper calls it, e.g. `CLIP+CRL`; another VLM by its name here.
        column: e.g. `color/nmi`.
        values: a number per seed, in percent; one if nothing is random.
        basis: the text basis as tables show it; `-` for methods without one.
        comparable: measured on the paper's whole data set with its VLM and settings.
    """

    row: str
    column: str
    values: list[float]
    basis: str
    comparable: bool
