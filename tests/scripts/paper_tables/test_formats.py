"""A table of the paper as Markdown, CSV and LaTeX, worked by hand."""

import csv

import pytest
from paper_tables.formats import Document, shown, write
from paper_tables.numbers import Number
from PIL import Image

from crl.run.tables import Table

GOOD = Number("paper", 80.0, 80.5, 0.5, 3, 0.5, 0.8, "reproduced")
FAR = Number("paper", 80, 70.25, None, 1, -9.75, 0.3, "differs")
QUOTED = Number("quoted", 12.3, verdict="quoted")
MISSING = Number("paper", 80)
OURS = Number("ours", ours=91.0, verdict="measured")
ROWS = {
    "CLIP|x": {"color/nmi": GOOD, "mean": FAR},
    "CC_1": {"color/nmi": QUOTED, "mean": QUOTED},
    "CLIP+CRL": {"color/nmi": MISSING, "mean": GOOD},
    "CLIP+CRL, posterior": {"color/nmi": OURS, "mean": Number("ours")},
}


def document(**more) -> Document:
    usual = {"varied": "", "parts": {"part": ROWS}, "texts": None, "commands": ["python x.py"]}
    usual["about"] = ["commit c0ffee", "Not run: no data (x)"]
    return Document(2, "Clustering, in %", **usual | more)


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (GOOD, "80.00 / 80.50 ± 0.50 (+0.50) ✓"),
        (FAR, "80.00 / 70.25 (-9.75) ≠"),
        (QUOTED, "12.30"),
        (MISSING, "80.00 / not run"),
        (OURS, "91.00"),
        (Number("ours"), "not run"),
    ],
)
def test_a_number(number, text):
    assert shown(number) == text


def test_the_files(tmp_path):
    write(document(), tmp_path)
    lines = (tmp_path / "table2.md").read_text().splitlines()
    assert lines[0] == "# Table 2. Clustering, in %" and lines[2] == "**part**"
    cells = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    assert cells[6] == ["| CLIP\\|x", "80.00 / 80.50 ± 0.50 (+0.50) ✓", "80.00 / 70.25 (-9.75) ≠ |"]
    assert cells[7] == ["| CC_1 (quoted)", "12.30", "12.30 |"]
    assert cells[9] == ["| CLIP+CRL, posterior (ours)", "91.00", "not run |"]
    verdicts = "- 2 reproduced, 1 differs, 1 measured, 2 quoted, 2 not run"
    ends = ["- commit c0ffee", "- Not run: no data (x)", verdicts, "", "```", "python x.py", "```"]
    assert lines[-7:] == ends
    with (tmp_path / "table2.csv").open() as file:
        first, *_, last = csv.DictReader(file)
    assert (first["row"], first["paper"], first["verdict"]) == ("CLIP|x", "80.0000", "reproduced")
    assert (last["kind"], last["ours"], last["verdict"]) == ("ours", "", "not run")
    tex = (tmp_path / "table2.tex").read_text()
    assert "% commit c0ffee" in tex and r"CC\_1 (quoted)" in tex and r"in \%" in tex
    assert r"$\pm$" in tex and "±" not in tex.partition("\\begin")[2]
    assert {file.name for file in tmp_path.iterdir()} == {"table2.csv", "table2.md", "table2.tex"}


def test_a_table_of_texts(tmp_path):
    write(
        document(parts={}, texts=Table("Text bases", ["basis", "texts"], [["a, b", "9"]])), tmp_path
    )
    assert "a, b" in (tmp_path / "table2.md").read_text()
    assert list(csv.reader((tmp_path / "table2.csv").open())) == [["basis", "texts"], ["a, b", "9"]]


def test_an_ablation_is_drawn(tmp_path):
    write(document(varied="number of texts"), tmp_path)
    assert Image.open(tmp_path / "table2.png").width > 500
    assert "![Score by number of texts](table2.png)" in (tmp_path / "table2.md").read_text()
