"""The table of similarity retrieval, its notes, and the paper's Table 3 beside it."""

import json

import pytest
from commands import REPOSITORY

from crl.run.errors import UserError
from similarity_retrieval.tables import comparison, notes, report, table

PAPER = json.loads((REPOSITORY / "configs/paper_tables.json").read_text())
PAPER = PAPER["table3_similarity_recall"]
SCORES = {"chance": (6.7, 13.3, 20.0), "image": (9.5, 17, 25), "crl": (15.4, 26, 36)}
IMAGES = {"focus_object": 2198, "change_object": 2739, "focus_attribute": 9}


def cell(label="clip-b16", task="focus_object", scores=SCORES, **more):
    metrics = {m: dict(zip(("R@1", "R@2", "R@3"), row, strict=True)) for m, row in scores.items()}
    about = {"data": task, "label": label, "templates": 1960, "images": IMAGES[task]}
    about |= {"weight": 10, "variant": "a", "tie_policy": "fair", "left_out": 0, "texts": 229}
    about |= {"target_also_in_gallery": 0, "other_tie_policy": {}, "scores": metrics}
    about |= {"basis": "scenes", "names": "1/3", "combiner_hash": None, "vlm_fingerprint": "f"}
    return about | more


def lines(text):
    return [" ".join(line.split()) for line in text.splitlines()]


def test_methods_are_rows_and_tasks_columns():
    starred = {"chance": (6.7, 13.3, 20.0), "combiner": (16, 28, 37), "crl": (19, 32, 41)}
    cells = [cell(), cell("clip-b16*", scores=starred), cell(task="change_object")]
    shown = lines(table(cells, "A title"))
    assert shown[0] == "A title"
    assert "- chance - - 6.7 13.3 20.0 6.7 13.3 20.0 13.3" in shown
    assert "clip-b16 image - - 9.5 17.0 25.0 9.5 17.0 25.0 17.2" in shown
    assert "clip-b16 crl scenes (229) 1/3 15.4 26.0 36.0 15.4 26.0 36.0 25.8" in shown
    assert "clip-b16* combiner - - 16.0 28.0 37.0 - - - -" in shown
    with pytest.raises(UserError, match="no results"):
        table([], "A title")


def test_several_results_of_one_vlm_are_told_apart():
    other = cell(variant="b", basis="others", texts=7, weight=3, combiner_hash="c0ffee0")
    del other["names"]  # as of a features file
    cells = [cell(), other]
    shown = lines(table(cells, "A title"))
    assert "clip-b16 [a] crl scenes (229) 1/3 15.4 26.0 36.0 25.8" in shown
    assert "clip-b16 [b] crl others (7) - 15.4 26.0 36.0 25.8" in shown
    assert notes(cells) == [
        "clip-b16 [a]: weight 10, ties fair, Combiner none, VLM f",
        "clip-b16 [b]: weight 3, ties fair, Combiner c0ffee, VLM f",
    ]
    basis = [row[1] for row in comparison(PAPER, [cell(), cell(basis="b")]) if "CRL" in row[0]]
    assert basis == ["scenes (229)"] * 3 + ["b (229)"] * 3


def test_a_row_for_each_representation_and_balance():
    more = {"crl posterior (2), standard": (21, 31, 41), "crl, standard": (22, 32, 42)}
    cells = [cell(scores=SCORES | more), cell(task="change_object", names="0/9")]
    shown = [line.split(" scenes (229) ") for line in lines(table(cells, "A title"))]
    assert [line for line in shown if len(line) > 1] == [
        ["clip-b16 crl", "1/3 0/9 15.4 26.0 36.0 15.4 26.0 36.0 25.8"],
        ["clip-b16 crl posterior (2), standard", "1/3 0/9 21.0 31.0 41.0 - - - -"],
        ["clip-b16 crl, standard", "1/3 0/9 22.0 32.0 42.0 - - - -"],
    ]
    compared = comparison(PAPER, cells[:1])
    assert len(compared) == 6 and {row[0] for row in compared} == {"CLIP image", "CLIP+CRL"}


def test_a_basis_per_task_is_in_the_notes():
    cells = [cell(), cell(task="focus_attribute", basis="clevr4_color + sizes", texts=9)]
    assert "clip-b16 crl by task" in " ".join(lines(table(cells, "A title")))
    assert notes(cells) == [
        "clip-b16, focus_object: basis scenes (229 texts)",
        "clip-b16, focus_attribute: basis clevr4_color + sizes (9 texts)",
        "clip-b16, focus_attribute: CRL is our extension; the paper has no attribute tasks",
    ]


def test_the_papers_numbers_beside_ours():
    starred = {"combiner": (16, 28, 37), "crl": (19, 32, 41)}
    rows = [" ".join(row) for row in comparison(PAPER, [cell(), cell("clip-b16*", scores=starred)])]
    assert "CLIP image - focus_object R@1 9.40 9.50 +0.10" in rows
    assert "CLIP+CRL scenes (229) focus_object R@1 15.40 15.40 +0.00" in rows
    assert "Combiner* - focus_object R@2 27.70 28.00 +0.30" in rows
    assert "CLIP+CRL* scenes (229) focus_object R@3 41.30 41.00 -0.30" in rows
    assert len(rows) == 12  # chance is no row of the paper


@pytest.mark.parametrize(
    "change", [{"templates": 1959}, {"label": "demo"}, {"images": 3000}, {"weight": 3}]
)
def test_other_data_vlms_and_settings_are_not_compared(change):
    assert comparison(PAPER, [cell(**change)]) == []
    assert "beside" not in report([cell(**change)], PAPER)


def test_report_is_table_notes_and_comparison():
    found = report([cell(left_out=4)], PAPER)
    parts = ["similarity_retrieval, percent", "note: clip-b16, focus_object: 4 templates of"]
    places = [found.index(part) for part in (*parts, "The paper's numbers beside ours")]
    assert places == sorted(places) and places[0] == 0
