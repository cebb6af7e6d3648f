"""The table of similarity retrieval, and its notes."""

import pytest

from crl.run.errors import UserError
from similarity_retrieval.tables import notes, table

SCORES = {"chance": (6.7, 13.3, 20.0), "image": (9.5, 17, 25), "paper": (15.4, 26, 36)}


def rows(label="clip-b16", task="focus_object", scores=SCORES, basis="scenes", texts=229, **more):
    """The rows of one VLM on one task."""
    rows = []
    for method, recalls in scores.items():
        about = {"data": task, "label": label, "method": method, "tie_policy": "fair"}
        about |= {"basis": "-"} if method in ("chance", "image") else {"basis": basis}
        if about["basis"] != "-":
            about["texts"] = texts
        recalls = dict(zip(("R@1", "R@2", "R@3"), recalls, strict=True))
        counts = {"names": "1/3", "left_out": 0, "target_also_in_gallery": 0, **more}
        rows.append({"about": about, "scores": recalls, "other_ties": recalls, **counts})
    return rows


def lines(rows):
    return [" ".join(line.split()) for line in table(rows, "A title").text().splitlines()]


def test_methods_are_lines_and_tasks_columns():
    starred = {"chance": (6.7, 13.3, 20.0), "combiner": (16, 28, 37)}
    shown = lines(
        rows() + rows("clip-b16*", scores=starred) + rows(task="change_object", names="0/9")
    )
    assert shown[0] == "A title"
    assert shown[4:-1] == [
        "- chance - - 6.7 13.3 20.0 6.7 13.3 20.0 13.3",
        "clip-b16 image - - 9.5 17.0 25.0 9.5 17.0 25.0 17.2",
        "clip-b16 paper scenes (229) 1/3 0/9 15.4 26.0 36.0 15.4 26.0 36.0 25.8",
        "clip-b16* combiner scenes (229) 1/3 16.0 28.0 37.0 - - - -",
    ]
    with pytest.raises(UserError, match="no results"):
        table([], "A title")


def test_each_basis_has_lines_of_its_own():
    shown = lines(rows() + rows(basis="b", texts=9) + rows(task="focus_attribute", basis="color"))
    assert shown[-4:-1] == [
        "clip-b16 paper scenes (229) 1/3 15.4 26.0 36.0 - - - 25.8",
        "clip-b16 paper b (9) 1/3 15.4 26.0 36.0 - - - 25.8",
        "clip-b16 paper color (229) 1/3 - - - 15.4 26.0 36.0 -",
    ]
    assert "mean of object tasks" in shown[2]


def test_notes():
    assert notes(rows()) == []
    tied = rows(scores={"paper": (15.4, 26, 36)}, left_out=4, target_also_in_gallery=1)
    tied[0]["other_ties"] = {"R@1": 20.0, "R@2": 30.0, "R@3": 40.0}
    assert notes(tied + rows(task="focus_attribute")) == [
        "clip-b16, focus_object, paper: ties; tie_policy=paper gives R@1 20.0, R@2 30.0, R@3 40.0",
        "focus_object: 4 templates of another gallery size left out",
        "focus_object: 1 templates hold their target twice; they are kept",
        "focus_attribute: CRL is our extension; the paper has no attribute tasks",
    ]
