"""The table of similarity retrieval, its notes, and the places of its scores in Table 3."""

import pytest

from crl.run.errors import UserError
from similarity_retrieval.tables import notes, scores, table

SCORES = {"chance": (6.7, 13.3, 20.0), "image": (9.5, 17, 25), "crl": (15.4, 26, 36)}
IMAGES = {"focus_object": 2198, "change_object": 2739, "focus_attribute": 9}


def cell(label="clip-b16", task="focus_object", scores=SCORES, **more):
    metrics = {m: dict(zip(("R@1", "R@2", "R@3"), row, strict=True)) for m, row in scores.items()}
    about = {"data": task, "label": label, "templates": 1960, "images": IMAGES[task]}
    about |= {"weight": 10, "variant": "a", "tie_policy": "fair", "left_out": 0, "texts": 229}
    about |= {"target_also_in_gallery": 0, "other_tie_policy": {}, "scores": metrics}
    about |= {"basis": "scenes", "names": "1/3", "combiner_hash": None, "vlm_fingerprint": "f"}
    return about | more


def lines(table):
    return [" ".join(line.split()) for line in table.text().splitlines()]


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
    basis = [score.basis for score in scores([cell(), cell(basis="b")]) if "CRL" in score.row]
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
    ours = {score.row for score in scores(cells) if "CRL" in score.row}
    assert ours == {"CLIP+CRL", "CLIP+CRL, posterior (2), standard", "CLIP+CRL, standard"}


def test_a_basis_per_task_is_in_the_notes():
    cells = [cell(), cell(task="focus_attribute", basis="clevr4_color + sizes", texts=9)]
    assert "clip-b16 crl by task" in " ".join(lines(table(cells, "A title")))
    assert notes(cells) == [
        "clip-b16, focus_object: basis scenes (229 texts)",
        "clip-b16, focus_attribute: basis clevr4_color + sizes (9 texts)",
        "clip-b16, focus_attribute: CRL is our extension; the paper has no attribute tasks",
    ]


def test_the_places_of_scores_in_table_3():
    starred = {"combiner": (16, 28, 37), "crl": (19, 32, 41)}
    found = list(scores([cell(), cell("clip-b16*", scores=starred)]))
    places = {(score.row, score.basis, score.column): score.values for score in found}
    assert places["CLIP image", "-", "focus/R@1"] == [9.5]
    assert places["CLIP+CRL", "scenes (229)", "focus/R@1"] == [15.4]
    assert places["Combiner*", "-", "focus/R@2"] == [28]
    assert places["CLIP+CRL*", "scenes (229)", "focus/R@3"] == [41]
    assert places["chance", "-", "focus/R@1"] == [6.7]
    assert len(found) == 15 == sum(score.comparable for score in found)


@pytest.mark.parametrize(
    "change", [{"templates": 1959}, {"label": "demo"}, {"images": 3000}, {"weight": 3}]
)
def test_other_data_vlms_and_settings_are_not_comparable(change):
    assert not any(score.comparable for score in scores([cell(**change)]))


def test_templates_that_were_left_out_are_noted():
    [note] = notes([cell(left_out=4)])
    assert note.startswith("clip-b16, focus_object: 4 templates of")
