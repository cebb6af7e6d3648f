"""The table of fashion retrieval, and its notes."""

import pytest

from crl.run.errors import UserError
from fashion_retrieval import tables


def row(method, vlm, first, without_relevant=0, **about):
    scores = {"shape": first, "part": first + 1, "overall": 9.0, "mean": first + 0.5}
    about = {"data": "D", "vlm": vlm, "basis": "-", **about, "method": method}
    counts = {"without_relevant": without_relevant, "queries": 8}
    return {"about": about, "scores": scores, **counts}


def test_the_table():
    basis = {"basis": "d_*", "texts": 97}
    rows = [
        row("random", "-", 1.0),
        row("paper", "clip", 2.0, label="clip", **basis),
        row("crl", "clip", 3.456, label="ours", **basis),
        row("csn", "resnet50", 4.0, label="two"),
    ]
    del rows[3]["scores"]["part"]
    _, _, header, _, *lines = tables.table(rows, "title").text().splitlines()
    assert header.split() == "data model basis (texts) method shape part mean overall".split()
    assert [" ".join(line.split()) for line in lines[:-1]] == [
        "D - - random 1.00 2.00 1.50 9.00",
        "D clip d_* (97) paper 2.00 3.00 2.50 9.00",
        "D clip (ours) d_* (97) crl 3.46 4.46 3.96 9.00",
        "D resnet50 (two) - csn 4.00 - 4.50 9.00",
    ]
    with pytest.raises(UserError, match="no results to show"):
        tables.table([], "title")


def test_notes():
    rows = [row("random", "-", 1.0, without_relevant=n) for n in (0, 2, 2)]
    assert tables.notes(rows) == ["D: 2 of 8 queries have no relevant candidate; they score 0"]
