"""A table of the paper as text, Markdown, CSV and LaTeX, worked by hand."""

import csv
import json

import pytest
from paper_tables import formats
from paper_tables.documents import Document
from paper_tables.grids import Grid, Number, Row
from PIL import Image

GOOD = Number(
    paper=80, ours=80.5, std=0.5, seeds=3, difference=0.5, tolerance=0.8, verdict="reproduced"
)
FAR = Number(paper=80, ours=70.25, seeds=1, difference=-9.75, tolerance=0.3, verdict="differs")
QUOTED = Number(paper=12.3, verdict="quoted")
MISSING = Number(paper=80, verdict="not run")
OURS = Number(ours=91.0, verdict="measured")


def document(**more) -> Document:
    rows = [
        Row(name="CLIP|x", kind="paper", numbers=[GOOD, FAR]),
        Row(name="CC_1", kind="quoted", numbers=[QUOTED, QUOTED]),
        Row(name="CLIP+CRL", kind="paper", numbers=[MISSING, GOOD]),
        Row(name="CLIP+CRL, posterior", kind="ours", numbers=[OURS, Number(verdict="not run")]),
    ]
    grid = Grid(name="part", columns=["color/nmi", "mean"], rows=rows)
    usual = {"number": 2, "title": "Clustering, in %", "demo": False, "grids": [grid]}
    return Document(**usual | {"about": ["Commit: c0ffee"], "not_run": ["no data (x)"]} | more)


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (GOOD, "80.00 / 80.50 ± 0.50 (+0.50) ✓"),
        (FAR, "80.00 / 70.25 (-9.75) ≠"),
        (QUOTED, "12.30"),
        (MISSING, "80.00 / not run"),
        (OURS, "91.00"),
        (Number(verdict="not run"), "not run"),
    ],
)
def test_a_number(number, shown):
    assert formats.shown(number) == shown


def test_the_files(tmp_path):
    formats.write(document(), tmp_path)
    lines = (tmp_path / "table2.md").read_text().splitlines()
    assert lines[0] == "**Table 2. Clustering, in %**"
    assert lines[2:4] == ["| method | color/nmi | mean |", "| :-- | --: | --: |"]
    assert lines[4] == "| CLIP\\|x | 80.00 / 80.50 ± 0.50 (+0.50) ✓ | 80.00 / 70.25 (-9.75) ≠ |"
    assert lines[5] == "| CC_1 (quoted) | 12.30 | 12.30 |"
    assert lines[7] == "| CLIP+CRL, posterior (ours) | 91.00 | not run |"
    assert lines[-2:] == ["- Commit: c0ffee", "- Not run: no data (x)"]
    with (tmp_path / "table2.csv").open() as file:
        first, *_, last = csv.DictReader(file)
    assert first["paper"] == "80.0000" and first["verdict"] == "reproduced"
    assert (last["kind"], last["ours"], last["verdict"]) == ("ours", "", "not run")
    tex = (tmp_path / "table2.tex").read_text()
    assert "% Commit: c0ffee" in tex and r"CC\_1 (quoted)" in tex and r"in \%" in tex
    assert r"$\pm$" in tex and "±" not in tex.partition("\\begin")[2]
    assert Document.model_validate_json((tmp_path / "table2.json").read_text()) == document()
    assert document().said == "2 reproduced, 1 differs, 1 measured, 2 quoted, 2 not run"
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        f"table2.{kind}" for kind in ("csv", "json", "md", "tex")
    ]


def test_a_table_of_texts(tmp_path):
    plain = [["text basis", "texts"], ["a, b", "9"]]
    formats.write(document(grids=[], plain=plain, note="No score."), tmp_path)
    assert "| a, b | 9 |" in (tmp_path / "table2.md").read_text()
    assert "No score." in (tmp_path / "table2.md").read_text()
    assert list(csv.reader((tmp_path / "table2.csv").open())) == plain


def test_an_ablation_is_drawn(tmp_path):
    formats.write(document(varied="number of texts"), tmp_path)
    assert Image.open(tmp_path / "table2.png").width > 500
    assert "![score by number of texts](table2.png)" in (tmp_path / "table2.md").read_text()
    assert json.loads((tmp_path / "table2.json").read_text())["figure"] == "table2.png"


def test_lines_of_the_figure():
    [grid] = document().grids
    columns = ["color/nmi", "color/acc", "suits/nmi", "mean"]
    assert formats._lines(grid.model_copy(update={"columns": columns})) == {
        "color": [0, 1],
        "suits": [2],
        "mean": [3],
    }
