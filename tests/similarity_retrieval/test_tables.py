"""The table of similarity retrieval, and its notes."""

from similarity_retrieval.tables import notes, table

SCORES = {"chance": (6.7, 13.3, 20.0), "image": (9.5, 17, 25), "paper": (15.4, 26, 36)}


def rows(label="clip-b16", task="focus_object", scores=SCORES, basis="scenes", **more):
    """The rows of one VLM on one task."""
    rows = []
    for method, recalls in scores.items():
        about = {"data": task, "label": label, "method": method, "tie_policy": "fair", "basis": "-"}
        about |= {} if method in ("chance", "image") else {"basis": basis, "texts": 229}
        recalls = dict(zip(("R@1", "R@2", "R@3"), recalls, strict=True))
        counts = {"names": "1/3", "left_out": 0, "target_also_in_gallery": 0, **more}
        rows.append({"about": about, "scores": recalls, "other_ties": recalls, **counts})
    return rows


def test_methods_and_bases_are_lines_and_tasks_columns():
    starred = rows("clip-b16*", scores={"combiner": (16, 28, 37)})
    attribute = rows(task="focus_attribute", scores={"paper": (1, 2, 3)}, basis="color")
    several = [*rows(), *starred, *rows(task="change_object", names="0/9"), *attribute]
    lines = [" ".join(line.split()) for line in table(several, "A title").text().splitlines()]
    assert lines[0] == "A title" and "mean of object tasks" in lines[2]
    assert lines[4:-1] == [
        "- chance - - 6.7 13.3 20.0 6.7 13.3 20.0 - - - 13.3",
        "clip-b16 image - - 9.5 17.0 25.0 9.5 17.0 25.0 - - - 17.2",
        "clip-b16 paper scenes (229) 1/3 0/9 15.4 26.0 36.0 15.4 26.0 36.0 - - - 25.8",
        "clip-b16* combiner scenes (229) 1/3 16.0 28.0 37.0 - - - - - - -",
        "clip-b16 paper color (229) 1/3 - - - - - - 1.0 2.0 3.0 -",
    ]


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
