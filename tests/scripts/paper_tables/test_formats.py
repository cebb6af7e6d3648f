"""A table of the paper as Markdown, CSV and LaTeX, worked by hand."""

import csv

from paper_tables.formats import Document, write, write_page
from paper_tables.numbers import Number, published, table_notes, with_footnotes

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


def test_a_doubtful_number_has_a_footnote_in_every_format(tmp_path):
    cells = {"color/nmi": Number("paper", 16.54), "shape/nmi": Number("paper", 94.66)}
    parts = with_footnotes({"clevr4-10k": {"CC": cells, "CLIP": dict(cells)}}, 2)
    (tmp_path / "tables").mkdir()
    write(Document(2, "Clustering", "", parts, None, ["made here"], []), tmp_path / "tables")
    write_page(tmp_path)
    note = "CC, color: NMI 16.54 does not go with"
    text = (tmp_path / "tables/table2.md").read_text()
    assert "16.54† / not run" in text and "94.66 /" in text and text.count("16.54†") == 1
    assert f"- † {note}" in text and note in (tmp_path / "tables/table2.csv").read_text()
    tex = (tmp_path / "tables/table2.tex").read_text()
    assert f"$\\dagger$ {note}" in tex and r"16.54$\dagger$" in tex
    page = (tmp_path / "index.html").read_text()
    assert f"† {note}" in page and "16.54†" in page


def test_footnotes_are_about_numbers_that_the_paper_has():
    for number, notes in table_notes("doubtful").items():
        rows = {row: set(numbers) for part in published(int(number)).values()
                for row, numbers in part.items()}  # fmt: skip
        for note in notes:
            assert set(note["rows"]) <= rows.keys()
    every = {column for part in published(2).values() for column in part["CC"]}
    assert {c for note in table_notes("doubtful")["2"] for c in note["columns"]} <= every


def test_the_table_of_rivals_is_on_the_page_too(tmp_path):
    shown = Table("The rivals", ["method", "learns from", "s"], [["CC", "images", "7"]], left=2)
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables/table2-rivals.png").write_bytes(b"")
    write(Document(2, "Its rivals", "", {}, shown, [], [], ending="-rivals"), tmp_path / "tables")
    assert (tmp_path / "tables/table2-rivals.csv").read_text().startswith("method,learns from,s")
    write_page(tmp_path)
    page = (tmp_path / "index.html").read_text()
    assert 'id="table2-rivals"' in page and "tables/table2-rivals.png" in page
