"""Tables as text, Markdown, CSV and LaTeX."""

import csv
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crl.run.tables import Table

TABLE = Table("50 % of a_b", ["name", "NMI"], [["a|b & c_d", "1.5 ± 0.2"], ["x", "10.0"]])


def test_latex_escapes_what_has_a_meaning_there():
    text = TABLE.latex()
    assert r"\caption{50 \% of a\_b}" in text and r"\begin{tabular}{lr}" in text
    assert r"a|b \& c\_d & 1.5 $\pm$ 0.2 \\" in text


cells = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=9)


@given(st.lists(st.tuples(cells, cells), min_size=1, max_size=4))
def test_csv_gives_back_the_cells_but_formulas(rows):
    table = Table("t", ["a", "b"], [list(row) for row in rows])
    header, *lines = csv.reader(table.csv().split("\n"))
    assert header == ["a", "b"] and len(lines) == len(rows)
    cells = zip(chain(*lines), chain(*rows), strict=True)
    for cell, original in cells:
        assert cell in (original, f"'{original}") and not cell.startswith(("=", "+", "@", "\t"))


FORMULAS = ["=1+1", "+1", "@SUM(A1)", "-1+1", "-cmd|' /C calc'!A0", "\t=1", "-1.5 ± =1", "--1"]
VALUES = [
    "-1.5",
    "-",
    "-0.27 ± 0.10",
    "-3",
    "",
    "a=b",
    "1-1",
    "0.5",
    "'=1",
    "-.5",
    "red-left-0.png",
]


@pytest.mark.parametrize("cell", FORMULAS + VALUES)
def test_no_cell_of_a_csv_file_is_a_formula(cell):
    expected = f"'{cell}" if cell in FORMULAS else cell
    table = Table("t", [cell, "b"], [["x", cell]])
    assert list(csv.reader(table.csv().split("\n"))) == [[expected, "b"], ["x", expected]]
