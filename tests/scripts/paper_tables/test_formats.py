"""A table of the paper as Markdown, CSV and LaTeX, worked by hand."""

import csv

from paper_tables.formats import Document, write
from paper_tables.numbers import Number

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


def test_the_files(tmp_path):
    about = ["commit c0ffee", "Not run: no data (x)"]
    parts = {"part": ROWS}
    write(Document(2, "Clustering, in %", "", parts, None, about, ["python x.py"]), tmp_path)
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
