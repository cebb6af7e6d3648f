"""Tables as text, Markdown, CSV and LaTeX."""

import csv

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
def test_csv_gives_back_the_cells(rows):
    table = Table("t", ["a", "b"], [list(row) for row in rows])
    assert list(csv.reader(table.csv().split("\n"))) == [["a", "b"], *map(list, rows)]
