"""The table made from results."""

import re

import pytest

from classification_clustering.tables import notes, table
from crl.run.errors import UserError
from crl.run.results import summary


def row(method="paper", scores=None, criterion="color", basis="mine", **counts):
    about = {"data": "clevr4", "criterion": criterion, "vlm": "clip", "method": method}
    about |= {"basis": basis} | ({} if basis == "-" else {"texts": 9})
    scores = {metric: summary([mean - 1, mean + 1]) for metric, mean in (scores or {}).items()}
    return {"about": about, "scores": scores, **counts}


def test_a_line_for_each_row_and_a_column_for_each_metric():
    rows = [
        row("universal", {"nmi": 5}, basis="-", names="3/4"),
        row(scores={"ari": 61}, names="3/4"),
    ]
    rows[1]["scores"]["acc"] = summary([33.3333])
    lines = table(rows, "A title").text().splitlines()
    assert lines[0] == "A title" and set(lines[1]) == {"-"}
    header, one, two = (re.split(r"\s{2,}", lines[i].strip()) for i in (2, 4, 5))
    assert header == ["VLM", "criterion", "method", "basis", "names", "nmi", "ari", "acc"]
    assert one == ["clip", "clevr4 color", "universal", "-", "-", "5.0 ± 1.4", "-", "-"]
    assert two[2:] == ["paper", "mine (9)", "3/4", "-", "61.0 ± 1.4", "33.3"]
    with pytest.raises(UserError, match="no results"):
        table([], "A title")


def test_images_that_were_left_out_are_noted_once():
    rows = [row(left_out=0), *[row(criterion="shape", left_out=3)] * 2]
    assert notes(rows) == ["clip, shape: 3 unreadable image(s) left out"]
